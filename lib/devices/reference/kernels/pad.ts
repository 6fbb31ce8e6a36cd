import { floats, type Kernel, offsetOf, stridesOf } from "./kernel.js";

/** Puts x into a larger array of zeros, `before[dim]` elements from the start of each dim. */
export const pad: Kernel = ({ inputs: [x], outputs: [y], attributes }, share) => {
  const before = attributes.before as readonly number[];
  const rank = y.shape.length;
  const strides = stridesOf(x.shape);
  const zero = y.dtype === "int64" ? 0n : 0;
  const out = y.data as { [index: number]: number | bigint };
  const from = x.data;
  const position = new Array<number>(rank);
  const [first, last] = share(y.data.length);
  for (let index = first; index < last; index++) {
    for (let dim = rank - 1, rest = index; dim >= 0; rest = Math.floor(rest / y.shape[dim--]))
      position[dim] = (rest % y.shape[dim]) - before[dim];
    let at = 0;
    let inside = true;
    for (let dim = 0; dim < rank; dim++) {
      inside &&= position[dim] >= 0 && position[dim] < x.shape[dim];
      at += position[dim] * strides[dim];
    }
    out[index] = inside ? from[at] : zero;
  }
};

/** Takes every `steps[dim]`-th element of each dim, from `starts[dim]` on, as many as the output holds. */
export const slice: Kernel = ({ inputs: [x], outputs: [y], attributes }, share) => {
  const starts = attributes.starts as readonly number[];
  const steps = attributes.steps as readonly number[];
  const own = stridesOf(x.shape);
  const origin = own.reduce((at, stride, dim) => at + stride * starts[dim], 0);
  const strides = own.map((stride, dim) => stride * steps[dim]);
  const from = floats(x); // any dtype: elements are only moved
  const out = floats(y);
  const [first, last] = share(out.length);
  for (let index = first; index < last; index++) out[index] = from[origin + offsetOf(index, y.shape, strides)];
};
