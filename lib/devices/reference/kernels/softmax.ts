import { sizeOf } from "../../../shape.js";
import { floats, type Kernel } from "./kernel.js";

/** Softmax over one dim, or its logarithm; the largest value is taken off first, so that nothing overflows. */
const softmaxOf =
  (logarithm: boolean): Kernel =>
  ({ inputs: [x], outputs: [y], attributes }, share) => {
    const dim = attributes.dim as number;
    const extent = x.shape[dim];
    const step = sizeOf(x.shape.slice(dim + 1));
    const from = floats(x);
    const out = floats(y);
    const [first, last] = share(out.length === 0 ? 0 : out.length / extent);
    for (let line = first; line < last; line++) {
      const start = Math.floor(line / step) * extent * step + (line % step);
      const end = start + extent * step;
      let largest = Number.NEGATIVE_INFINITY;
      for (let i = start; i < end; i += step) largest = Math.max(largest, from[i]);
      let sum = 0;
      for (let i = start; i < end; i += step) sum += Math.exp(from[i] - largest);
      const logSum = Math.log(sum);
      for (let i = start; i < end; i += step)
        out[i] = logarithm ? from[i] - largest - logSum : Math.exp(from[i] - largest) / sum;
    }
  };

export const softmax = softmaxOf(false);
export const logSoftmax = softmaxOf(true);
