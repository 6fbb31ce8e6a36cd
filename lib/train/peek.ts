/** The first of some batches (undefined where there is none), and all of them. */
export async function peek<T>(batches: AsyncIterable<T>): Promise<{ first: T | undefined; all: AsyncIterable<T> }> {
  const iterator = batches[Symbol.asyncIterator]();
  const next = await iterator.next();
  async function* chain(): AsyncGenerator<T> {
    try {
      for (let each = next; !each.done; each = await iterator.next()) yield each.value;
    } finally {
      await iterator.return?.();
    }
  }
  return { first: next.done ? undefined : next.value, all: chain() };
}
