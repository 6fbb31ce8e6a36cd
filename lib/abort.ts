const callbacks = new WeakMap<AbortSignal, Set<() => void>>();

/**
 * Calls `action` when the signal aborts, until the function returned is called. However many wait for one signal, it has
 * one listener: Node 20 warns of a leak at eleven.
 */
export function onAbort(signal: AbortSignal | undefined, action: () => void): () => void {
  if (!signal) return () => {};
  let waiting = callbacks.get(signal);
  if (!waiting) {
    const all = new Set<() => void>();
    callbacks.set(signal, all);
    const tell = () => {
      for (const each of [...all]) each();
    };
    signal.addEventListener("abort", tell, { once: true });
    waiting = all;
  }
  const own = () => action(); // the same action may wait twice
  waiting.add(own);
  return () => waiting.delete(own);
}
