import { floats, type Kernel } from "./kernel.js";
import { tapsWithin } from "./max_pool2d.js";

/** Sends each window's gradient to its largest input (the first of equals, or the last NaN, as in PyTorch). Inputs: x, dy. */
export const maxPool2dGradient: Kernel = ({ inputs: [x, dy], outputs: [dx], attributes }, share) => {
  const { kernelSize, stride, padding, dilation } = attributes as Record<string, readonly [number, number]>;
  const [batch, channels, height, width] = x.shape;
  const [, , outH, outW] = dy.shape;
  const [from, gradient, out] = [floats(x), floats(dy), floats(dx)];
  const plane = new Float64Array(height * width);
  const [first, last] = share(batch * channels);
  for (let image = first; image < last; image++) {
    const origin = image * height * width;
    plane.fill(0);
    for (let row = 0; row < outH; row++) {
      const top = row * stride[0] - padding[0];
      const [iFrom, iTo] = tapsWithin(top, kernelSize[0], dilation[0], height);
      for (let column = 0; column < outW; column++) {
        const left = column * stride[1] - padding[1];
        const [jFrom, jTo] = tapsWithin(left, kernelSize[1], dilation[1], width);
        let best = -1;
        for (let i = iFrom; i < iTo; i++)
          for (let j = jFrom; j < jTo; j++) {
            const y = top + i * dilation[0];
            const at = left + j * dilation[1];
            const value = from[origin + y * width + at];
            const largest = best < 0 ? Number.NEGATIVE_INFINITY : from[origin + best];
            if (best < 0 || value > largest || Number.isNaN(value)) best = y * width + at;
          }
        if (best >= 0) plane[best] += gradient[(image * outH + row) * outW + column];
      }
    }
    out.set(plane, origin);
  }
};

/** Spreads each window's gradient evenly over its inputs; the divisor is the forward op's. Input: dy. */
export const avgPool2dGradient: Kernel = ({ inputs: [dy], outputs: [dx], attributes }, share) => {
  const { kernelSize, stride, padding } = attributes as Record<string, readonly [number, number]>;
  const [batch, channels, height, width] = dx.shape;
  const [, , outH, outW] = dy.shape;
  const [gradient, out] = [floats(dy), floats(dx)];
  const plane = new Float64Array(height * width);
  const [first, last] = share(batch * channels);
  for (let image = first; image < last; image++) {
    plane.fill(0);
    for (let row = 0; row < outH; row++) {
      const top = row * stride[0] - padding[0];
      const bottom = Math.min(top + kernelSize[0], height + padding[0]);
      const [yFrom, yTo] = [Math.max(top, 0), Math.min(bottom, height)];
      for (let column = 0; column < outW; column++) {
        const left = column * stride[1] - padding[1];
        const right = Math.min(left + kernelSize[1], width + padding[1]);
        const [xFrom, xTo] = [Math.max(left, 0), Math.min(right, width)];
        const count = attributes.countIncludePad ? (bottom - top) * (right - left) : (yTo - yFrom) * (xTo - xFrom);
        const part = gradient[(image * outH + row) * outW + column] / count;
        for (let i = yFrom; i < yTo; i++) for (let j = xFrom; j < xTo; j++) plane[i * width + j] += part;
      }
    }
    out.set(plane, image * height * width);
  }
};
