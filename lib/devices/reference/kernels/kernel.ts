import type { DType, HostArray } from "../../../dtype.js";
import type { Attributes } from "../../../graph/attributes.js";

/** One tensor as a kernel sees it: row-major, and shared by all threads. */
export interface View {
  readonly shape: readonly number[];
  readonly dtype: DType;
  data: HostArray;
}

export interface Task {
  readonly attributes: Attributes;
  readonly inputs: readonly View[];
  readonly outputs: readonly View[];
}

/** The part [from, to) of `total` pieces of work that belongs to the calling thread. */
export type Share = (total: number) => readonly [from: number, to: number];

/**
 * Computes an op. All threads call it at once, and each fills its own share of the outputs. An output element is computed
 * by one thread, in an order that does not depend on the share, so the number of threads never changes a bit of a result.
 */
export type Kernel = (task: Task, share: Share) => void;

/** Arrays whose elements are JavaScript numbers. */
export type NumberArray = Float32Array | Int32Array | Uint8Array;

/** The elements of a view of a float dtype. */
export function floats(view: View): Float32Array {
  return view.data as Float32Array;
}

/** Row-major strides of a shape, in elements. */
export function stridesOf(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length);
  for (let dim = shape.length - 1, stride = 1; dim >= 0; stride *= shape[dim--]) strides[dim] = stride;
  return strides;
}

/** Where the row-major `index` of `shape` lies in an array that is stepped through with `strides`. */
export function offsetOf(index: number, shape: readonly number[], strides: readonly number[]): number {
  let offset = 0;
  for (let dim = shape.length - 1, rest = index; dim >= 0; dim--) {
    offset += (rest % shape[dim]) * strides[dim];
    rest = Math.floor(rest / shape[dim]);
  }
  return offset;
}

/** Joins neighbouring dims that all arrays step through evenly, so that loops over the last dim are as long as can be. */
export function mergeDims(
  shape: readonly number[],
  strides: readonly (readonly number[])[],
): { shape: number[]; strides: number[][] } {
  const merged = { shape: [] as number[], strides: strides.map(() => [] as number[]) };
  for (let dim = 0; dim < shape.length; dim++) {
    if (shape[dim] === 1) continue;
    const last = merged.shape.length - 1;
    const even = last >= 0 && strides.every((of, i) => merged.strides[i][last] === of[dim] * shape[dim]);
    if (even) merged.shape[last] *= shape[dim];
    else merged.shape.push(shape[dim]);
    strides.forEach((of, i) => {
      merged.strides[i][even ? last : last + 1] = of[dim];
    });
  }
  return merged;
}
