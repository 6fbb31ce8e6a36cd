import { DtypeError, expected } from "../../../errors.js";
import { type Kernel, mergeDims, type NumberArray, offsetOf, stridesOf, type View } from "./kernel.js";

/** out[o + k] = a[i + k * stepA] (op) b[j + k * stepB] for k in [0, count). */
type Loop<T> = (
  out: T,
  o: number,
  a: T,
  i: number,
  stepA: number,
  b: T,
  j: number,
  stepB: number,
  count: number,
) => void;

/** Strides that walk `view` along `shape`: 0 along dims it is repeated over (numpy's broadcasting). */
function broadcastStrides(view: View, shape: readonly number[]): number[] {
  const own = stridesOf(view.shape);
  const missing = shape.length - view.shape.length;
  return shape.map((_, dim) => (dim < missing || view.shape[dim - missing] === 1 ? 0 : own[dim - missing]));
}

function binary(op: string, numbers: Loop<NumberArray>, bigints?: Loop<BigInt64Array>): Kernel {
  return ({ inputs: [a, b], outputs: [y] }, share) => {
    const { shape, strides } = mergeDims(y.shape, [
      stridesOf(y.shape),
      broadcastStrides(a, y.shape),
      broadcastStrides(b, y.shape),
    ]);
    const length = shape.at(-1) ?? 1;
    const stepA = strides[1].at(-1) ?? 0;
    const stepB = strides[2].at(-1) ?? 0;
    const [first, last] = share(y.data.length);
    for (let at = first; at < last; ) {
      const count = Math.min(last - at, length - (at % length));
      const i = offsetOf(at, shape, strides[1]);
      const j = offsetOf(at, shape, strides[2]);
      if (!(y.data instanceof BigInt64Array)) {
        numbers(y.data, at, a.data as NumberArray, i, stepA, b.data as NumberArray, j, stepB, count);
      } else if (bigints) {
        bigints(y.data, at, a.data as BigInt64Array, i, stepA, b.data as BigInt64Array, j, stepB, count);
      } else {
        throw new DtypeError(expected(op, "tensors of a float dtype", "int64"));
      }
      at += count;
    }
  };
}

export const add = binary(
  "add",
  (out, o, a, i, stepA, b, j, stepB, count) => {
    for (let k = 0; k < count; k++) out[o + k] = a[i + k * stepA] + b[j + k * stepB];
  },
  (out, o, a, i, stepA, b, j, stepB, count) => {
    for (let k = 0; k < count; k++) out[o + k] = a[i + k * stepA] + b[j + k * stepB];
  },
);

export const sub = binary(
  "sub",
  (out, o, a, i, stepA, b, j, stepB, count) => {
    for (let k = 0; k < count; k++) out[o + k] = a[i + k * stepA] - b[j + k * stepB];
  },
  (out, o, a, i, stepA, b, j, stepB, count) => {
    for (let k = 0; k < count; k++) out[o + k] = a[i + k * stepA] - b[j + k * stepB];
  },
);

export const mul = binary(
  "mul",
  (out, o, a, i, stepA, b, j, stepB, count) => {
    // doubles cannot hold the product of two large int32
    if (out instanceof Int32Array)
      for (let k = 0; k < count; k++) out[o + k] = Math.imul(a[i + k * stepA], b[j + k * stepB]);
    else for (let k = 0; k < count; k++) out[o + k] = a[i + k * stepA] * b[j + k * stepB];
  },
  (out, o, a, i, stepA, b, j, stepB, count) => {
    for (let k = 0; k < count; k++) out[o + k] = a[i + k * stepA] * b[j + k * stepB];
  },
);

export const div = binary("div", (out, o, a, i, stepA, b, j, stepB, count) => {
  for (let k = 0; k < count; k++) out[o + k] = a[i + k * stepA] / b[j + k * stepB];
});
