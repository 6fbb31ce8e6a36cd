import { floats, type Kernel } from "./kernel.js";

/** Which taps [from, to) of a window that starts at `start` lie within the image: its border may be far larger than that. */
export function tapsWithin(start: number, taps: number, dilation: number, extent: number): readonly [number, number] {
  const from = Math.max(0, Math.ceil(-start / dilation));
  return [from, Math.min(taps, Math.ceil((extent - start) / dilation))];
}

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
    const [iFrom, iTo] = tapsWithin(top, kernelH, dilationH, height);
    for (let column = 0; column < outW; column++) {
      const left = column * strideW - padW;
      const [jFrom, jTo] = tapsWithin(left, kernelW, dilationW, width);
      let largest = Number.NEGATIVE_INFINITY;
      for (let i = iFrom; i < iTo; i++)
        for (let j = jFrom; j < jTo; j++) {
          const value = from[image + (top + i * dilationH) * width + left + j * dilationW];
          if (value > largest || Number.isNaN(value)) largest = value;
        }
      out[row * outW + column] = largest;
    }
  }
};
