import type { HostArray } from "../../../dtype.js";
import { floats, type Kernel, type NumberArray } from "./kernel.js";

type Loop = (out: NumberArray, x: NumberArray, from: number, to: number) => void;

// A loop each, not one loop that calls a function: a call for every element would cost more than the arithmetic.
const unary =
  (loop: Loop): Kernel =>
  ({ inputs: [x], outputs: [y] }, share) =>
    loop(floats(y), floats(x), ...share(y.data.length));

export const relu = unary((out, x, from, to) => {
  for (let i = from; i < to; i++) out[i] = Math.max(x[i], 0); // NaN stays NaN
});

export const sigmoid = unary((out, x, from, to) => {
  for (let i = from; i < to; i++) out[i] = 1 / (1 + Math.exp(-x[i]));
});

export const sqrt = unary((out, x, from, to) => {
  for (let i = from; i < to; i++) out[i] = Math.sqrt(x[i]);
});

export const exp = unary((out, x, from, to) => {
  for (let i = from; i < to; i++) out[i] = Math.exp(x[i]);
});

export const log = unary((out, x, from, to) => {
  for (let i = from; i < to; i++) out[i] = Math.log(x[i]);
});

export const neg = unary((out, x, from, to) => {
  for (let i = from; i < to; i++) out[i] = -x[i];
});

/** Converts to the output's dtype. Floats become integers by dropping the fraction; what does not fit wraps around. */
export const cast: Kernel = ({ inputs: [x], outputs: [y] }, share) => {
  const from: HostArray = x.data;
  const out: HostArray = y.data;
  const [first, last] = share(out.length);
  if (out instanceof BigInt64Array) {
    for (let i = first; i < last; i++) out[i] = toBigInt(from[i]);
  } else if (from instanceof BigInt64Array) {
    for (let i = first; i < last; i++)
      out[i] = Number(out instanceof Float32Array ? from[i] : BigInt.asIntN(32, from[i]));
  } else {
    for (let i = first; i < last; i++) out[i] = from[i];
  }
};

/** NaN and infinities, which no integer stands for, become 0 as they do in Int32Array. */
function toBigInt(value: number | bigint): bigint {
  if (typeof value === "bigint") return value;
  return Number.isFinite(value) ? BigInt(Math.trunc(value)) : 0n;
}

/** Same elements, other shape. Where the memory plan lets both share storage there is nothing to move. */
export const reshape: Kernel = ({ inputs: [x], outputs: [y] }, share) => {
  if (x.data.byteOffset === y.data.byteOffset && x.data.buffer === y.data.buffer) return;
  const [first, last] = share(y.data.length);
  floats(y).set(floats(x).subarray(first, last), first);
};
