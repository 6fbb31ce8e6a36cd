import { floats, type Kernel } from "./kernel.js";

/**
 * Mean of each window. The divisor is PyTorch's: with `countIncludePad` the window clipped to image and padding (a window
 * may run past both in ceil mode), without it the window clipped to the image.
 */
export const avgPool2d: Kernel = ({ inputs: [x], outputs: [y], attributes }, share) => {
  const [kernelH, kernelW] = attributes.kernelSize as readonly number[];
  const [strideH, strideW] = attributes.stride as readonly number[];
  const [padH, padW] = attributes.padding as readonly number[];
  const [, , height, width] = x.shape;
  const [batch, channels, outH, outW] = y.shape;
  const from = floats(x);
  const out = floats(y);
  const [first, last] = share(batch * channels * outH);
  for (let row = first; row < last; row++) {
    const image = Math.floor(row / outH) * height * width;
    const top = (row % outH) * strideH - padH;
    const bottom = Math.min(top + kernelH, height + padH);
    const [yFrom, yTo] = [Math.max(top, 0), Math.min(bottom, height)];
    for (let column = 0; column < outW; column++) {
      const left = column * strideW - padW;
      const right = Math.min(left + kernelW, width + padW);
      const [xFrom, xTo] = [Math.max(left, 0), Math.min(right, width)];
      let sum = 0;
      for (let i = yFrom; i < yTo; i++) for (let j = xFrom; j < xTo; j++) sum += from[image + i * width + j];
      const count = attributes.countIncludePad ? (bottom - top) * (right - left) : (yTo - yFrom) * (xTo - xFrom);
      out[row * outW + column] = sum / count;
    }
  }
};
