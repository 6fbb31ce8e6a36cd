import { floats, type Kernel } from "./kernel.js";

/** Largest value in each window; padding counts as -infinity, and a NaN in the window is the result. */
export const maxPool2d: Kernel = ({ inputs: [x], outputs: [y], attributes }, share) => {
  const [kernelH, kernelW] = attributes.kernelSize as readonly number[];
  const [strideH, strideW] = attributes.stride as readonly number[];
  const [padH, padW] = attributes.padding as readonly number[];
  const [dilationH, dilationW] = attributes.dilation as readonly number[];
  const [, , height, width] = x.shape;
  const [batch, channels, outH, outW] = y.shape;
  const from = floats(x);
  const out = floats(y);
  const [first, last] = share(batch * channels * outH);
  for (let row = first; row < last; row++) {
    const image = Math.floor(row / outH) * height * width;
    const top = (row % outH) * strideH - padH;
    for (let column = 0; column < outW; column++) {
      const left = column * strideW - padW;
      let largest = Number.NEGATIVE_INFINITY;
      for (let i = 0; i < kernelH; i++) {
        const yIn = top + i * dilationH;
        if (yIn < 0 || yIn >= height) continue;
        for (let j = 0; j < kernelW; j++) {
          const xIn = left + j * dilationW;
          if (xIn < 0 || xIn >= width) continue;
          const value = from[image + yIn * width + xIn];
          if (value > largest || Number.isNaN(value)) largest = value;
        }
      }
      out[row * outW + column] = largest;
    }
  }
};
