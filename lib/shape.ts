import { ArgumentError, expected, ShapeError, shown } from "./errors.js";

/** `[8, 3, 224, 224]`, as messages show shapes. */
export function formatShape(shape: readonly (number | string)[]): string {
  return `[${shape.join(", ")}]`;
}

export function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((extent, i) => extent === b[i]);
}

/** The shape two operands have together, by numpy's broadcasting rule. Throws ShapeError when there is none. */
export function broadcastShapes(where: string, a: readonly number[], b: readonly number[]): number[] {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => {
    const x = a[i - rank + a.length] ?? 1;
    const y = b[i - rank + b.length] ?? 1;
    if (x !== y && x !== 1 && y !== 1)
      throw new ShapeError(expected(where, "shapes that broadcast", `${formatShape(a)} and ${formatShape(b)}`));
    return x === 1 ? y : x;
  });
}

/** `dims` counted from the front, sorted and free of doubles; negative ones count from the back, undefined means all. */
export function normalizeDims(where: string, dims: number | readonly number[] | undefined, rank: number): number[] {
  const list =
    dims === undefined ? Array.from({ length: rank }, (_, i) => i) : typeof dims === "number" ? [dims] : dims;
  if (!Array.isArray(list)) throw new ShapeError(expected(where, "dimensions as numbers", shown(list)));
  const normal = list.map((dim: number) => {
    if (!Number.isInteger(dim) || dim < -rank || dim >= rank)
      throw new ShapeError(expected(where, `dimensions from ${-rank} to ${rank - 1}`, shown(dim)));
    return dim < 0 ? dim + rank : dim;
  });
  if (new Set(normal).size !== normal.length)
    throw new ShapeError(expected(where, "each dimension once", formatShape(list)));
  return normal.sort((a, b) => a - b);
}

/** An option for height and width: one number for both, or `[h, w]`. */
export type Pair = number | readonly [number, number];

/** Both numbers of a Pair, each an integer of at least `least`. Throws ArgumentError otherwise. */
export function pair(where: string, name: string, value: Pair, least: number): readonly [number, number] {
  const both = typeof value === "number" ? ([value, value] as const) : value;
  if (!Array.isArray(both) || both.length !== 2 || !both.every((n) => Number.isSafeInteger(n) && n >= least))
    throw new ArgumentError(
      expected(where, `${name} to be an integer of at least ${least}, or two of them`, shown(value)),
    );
  return [both[0], both[1]];
}

/** An integer option of at least `least`. Throws ArgumentError otherwise. */
export function integer(where: string, name: string, value: number, least: number): number {
  if (!Number.isSafeInteger(value) || value < least)
    throw new ArgumentError(expected(where, `${name} to be an integer of at least ${least}`, shown(value)));
  return value;
}

/** Throws ShapeError unless `shape` is an array of integers of at least 1. */
export function checkExtents(where: string, name: string, shape: unknown): asserts shape is readonly number[] {
  if (!Array.isArray(shape) || !shape.every((extent) => Number.isSafeInteger(extent) && extent >= 1))
    throw new ShapeError(
      expected(
        where,
        `${name} of integers of at least 1`,
        Array.isArray(shape) ? formatShape(shape.map(String)) : shown(shape),
      ),
    );
}

/** `options`, or ArgumentError where untyped code passes something else than an object. */
export function checkObject<T>(where: string, name: string, options: T): T {
  if (typeof options !== "object" || options === null || Array.isArray(options))
    throw new ArgumentError(expected(where, `${name} as an object`, shown(options)));
  return options;
}

/** Elements of a shape; 1 for a scalar. */
export function sizeOf(shape: readonly number[]): number {
  let size = 1;
  for (const extent of shape) size *= extent;
  return size;
}
