import { floats, type Kernel, offsetOf, stridesOf } from "./kernel.js";

/** Every element `value`. No inputs. */
export const fill: Kernel = ({ outputs: [y], attributes }, share) => {
  floats(y).fill(attributes.value as number, ...share(y.data.length));
};

/** x broadcast to the output's shape (extents of 1 repeat) and multiplied by `scale`: the way back of sum and mean. */
export const broadcast: Kernel = ({ inputs: [x], outputs: [y], attributes }, share) => {
  const scale = attributes.scale as number;
  const strides = stridesOf(x.shape).map((stride, dim) => (x.shape[dim] === 1 ? 0 : stride));
  const [from, out] = [floats(x), floats(y)];
  const [first, last] = share(out.length);
  for (let i = first; i < last; i++) out[i] = scale * from[offsetOf(i, y.shape, strides)];
};

/** The last two dims exchanged. */
export const transpose: Kernel = ({ inputs: [x], outputs: [y] }, share) => {
  const [rows, columns] = y.shape.slice(-2);
  const [from, out] = [floats(x), floats(y)];
  const [first, last] = share(out.length / columns);
  for (let row = first; row < last; row++) {
    const matrix = Math.floor(row / rows) * rows * columns + (row % rows);
    for (let column = 0; column < columns; column++) out[row * columns + column] = from[matrix + column * rows];
  }
};

/** The way back of slice: x's elements at `starts + i * steps` of an array of zeros. */
export const sliceGradient: Kernel = ({ inputs: [dy], outputs: [dx], attributes }, share) => {
  const { starts, steps } = attributes as Record<string, readonly number[]>;
  const strides = stridesOf(dy.shape);
  const [from, out] = [floats(dy), floats(dx)];
  const rank = dx.shape.length;
  const [first, last] = share(out.length);
  for (let index = first; index < last; index++) {
    let at = 0;
    for (let dim = rank - 1, rest = index; dim >= 0 && at >= 0; rest = Math.floor(rest / dx.shape[dim--])) {
      const position = (rest % dx.shape[dim]) - starts[dim];
      const taken = position >= 0 && position % steps[dim] === 0 && position / steps[dim] < dy.shape[dim];
      at = taken ? at + (position / steps[dim]) * strides[dim] : Number.NEGATIVE_INFINITY;
    }
    out[index] = at >= 0 ? from[at] : 0;
  }
};

/** dy where the ReLU's output was positive, 0 elsewhere. Inputs: y, dy. */
export const reluGradient: Kernel = ({ inputs: [y, dy], outputs: [dx] }, share) => {
  const [value, gradient, out] = [floats(y), floats(dy), floats(dx)];
  const [first, last] = share(out.length);
  for (let i = first; i < last; i++) out[i] = value[i] <= 0 ? 0 : gradient[i]; // NaN lets through, as in PyTorch
};

/** dy y (1 - y). Inputs: y, dy. */
export const sigmoidGradient: Kernel = ({ inputs: [y, dy], outputs: [dx] }, share) => {
  const [value, gradient, out] = [floats(y), floats(dy), floats(dx)];
  const [first, last] = share(out.length);
  for (let i = first; i < last; i++) out[i] = gradient[i] * value[i] * (1 - value[i]);
};
