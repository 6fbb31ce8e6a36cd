import { floats, type Kernel, type Task } from "./kernel.js";

/** For each tap of the window, the output positions whose tap lies inside the image. */
function geometry({ attributes }: Task, x: readonly number[], y: readonly number[], kernel: readonly number[]) {
  const { stride, padding, dilation } = attributes as Record<string, readonly [number, number]>;
  const range = (axis: 0 | 1, tap: number) => {
    const shift = tap * dilation[axis] - padding[axis]; // input = output * stride + shift
    const from = Math.max(0, Math.ceil(-shift / stride[axis]));
    const to = Math.min(y[2 + axis], Math.floor((x[2 + axis] - 1 - shift) / stride[axis]) + 1);
    return { shift, from, to };
  };
  return {
    stride,
    rows: Array.from({ length: kernel[2] }, (_, i) => range(0, i)),
    columns: Array.from({ length: kernel[3] }, (_, j) => range(1, j)),
  };
}

/** dL/dx of a convolution: every output gradient goes back to the inputs it saw, times their weights. Inputs: dy, weight. */
export const conv2dInputGradient: Kernel = (task, share) => {
  const { inputs, outputs, attributes } = task;
  const [dy, weight] = inputs;
  const [dx] = outputs;
  const { stride, rows, columns } = geometry(task, dx.shape, dy.shape, weight.shape);
  const [batch, channels, height, width] = dx.shape;
  const [outChannels, groupIn, kernelH, kernelW] = weight.shape;
  const [, , outH, outW] = dy.shape;
  const groupOut = outChannels / (attributes.groups as number);
  const [filter, from, out] = [floats(weight), floats(dy), floats(dx)];
  const plane = new Float64Array(height * width);
  const [first, last] = share(batch * channels);
  for (let index = first; index < last; index++) {
    const [n, c] = [Math.floor(index / channels), index % channels];
    const group = Math.floor(c / groupIn);
    plane.fill(0);
    for (let o = group * groupOut; o < (group + 1) * groupOut; o++) {
      const image = (n * outChannels + o) * outH * outW;
      const taps = (o * groupIn + (c % groupIn)) * kernelH * kernelW;
      for (let i = 0; i < kernelH; i++)
        for (let j = 0; j < kernelW; j++) {
          const factor = filter[taps + i * kernelW + j];
          const { from: left, to: right, shift } = columns[j];
          for (let row = rows[i].from; row < rows[i].to; row++) {
            const at = (row * stride[0] + rows[i].shift) * width + shift;
            const source = image + row * outW;
            for (let column = left; column < right; column++)
              plane[at + column * stride[1]] += factor * from[source + column];
          }
        }
    }
    out.set(plane, index * height * width);
  }
};

/** dL/dweight of a convolution: each tap sums what it saw times what came of it. Inputs: x, dy. */
export const conv2dWeightGradient: Kernel = (task, share) => {
  const { inputs, outputs, attributes } = task;
  const [x, dy] = inputs;
  const [dw] = outputs;
  const { stride, rows, columns } = geometry(task, x.shape, dy.shape, dw.shape);
  const [batch, channels, height, width] = x.shape;
  const [outChannels, groupIn, kernelH, kernelW] = dw.shape;
  const [, , outH, outW] = dy.shape;
  const groupOut = outChannels / (attributes.groups as number);
  const [image, gradient, out] = [floats(x), floats(dy), floats(dw)];
  const [first, last] = share(outChannels * groupIn);
  for (let index = first; index < last; index++) {
    const o = Math.floor(index / groupIn);
    const c = Math.floor(o / groupOut) * groupIn + (index % groupIn);
    for (let i = 0; i < kernelH; i++)
      for (let j = 0; j < kernelW; j++) {
        const { from: left, to: right, shift } = columns[j];
        let sum = 0;
        for (let n = 0; n < batch; n++) {
          const origin = (n * channels + c) * height * width + shift;
          const source = (n * outChannels + o) * outH * outW;
          for (let row = rows[i].from; row < rows[i].to; row++) {
            const at = origin + (row * stride[0] + rows[i].shift) * width;
            const of = source + row * outW;
            for (let column = left; column < right; column++)
              sum += image[at + column * stride[1]] * gradient[of + column];
          }
        }
        out[(index * kernelH + i) * kernelW + j] = sum;
      }
  }
};
