import { sizeOf } from "../../plan/plan.js";
import { floats, type Kernel } from "./kernel.js";

// A tile of patches (tileRows x tileDepth doubles) stays in the second-level cache while every output channel passes over it.
const tileRows = 64;
const tileDepth = 512;

let patches = new Float64Array(tileRows * tileDepth);
let weights = new Float64Array(4 * tileDepth);
let sums = new Float64Array(0);

/**
 * Convolution as a matrix product, tile by tile. A row is one output position of one image; its patch is the input it
 * sees, input channels outermost. Patches and weights are unpacked to float64 first, so that the inner loop only
 * multiplies and adds. Depth is cut into blocks of whole input channels, with the sums kept in float64 between blocks.
 */
export const conv2d: Kernel = ({ inputs: [x, weight, bias], outputs: [y], attributes }, share) => {
  const [strideH, strideW] = attributes.stride as readonly number[];
  const [padH, padW] = attributes.padding as readonly number[];
  const [dilationH, dilationW] = attributes.dilation as readonly number[];
  const groups = attributes.groups as number;
  const [batch, channels, height, width] = x.shape;
  const [outChannels, groupIn, kernelH, kernelW] = weight.shape;
  const [, , outH, outW] = y.shape;
  const image = floats(x);
  const filter = floats(weight);
  const out = floats(y);
  const groupOut = outChannels / groups;
  const taps = kernelH * kernelW;
  const blockChannels = Math.max(1, Math.min(groupIn, Math.floor(tileDepth / taps)));
  const plane = outH * outW;
  const rows = batch * plane;
  if (sizeOf(y.shape) === 0) return;

  /** Fills `patches` with what rows [from, to) see of `count` input channels starting at `channel`. */
  function packPatches(from: number, to: number, channel: number, count: number): void {
    const depth = count * taps;
    for (let row = from; row < to; row++) {
      const start = (row - from) * depth;
      const position = row % plane;
      const top = Math.floor(position / outW) * strideH - padH;
      const left = (position % outW) * strideW - padW;
      const iFrom = top < 0 ? Math.ceil(-top / dilationH) : 0;
      const iTo = Math.min(kernelH, Math.ceil((height - top) / dilationH));
      const jFrom = left < 0 ? Math.ceil(-left / dilationW) : 0;
      const jTo = Math.min(kernelW, Math.ceil((width - left) / dilationW));
      if (iFrom > 0 || jFrom > 0 || iTo < kernelH || jTo < kernelW) patches.fill(0, start, start + depth);
      let from2d = (((row - position) / plane) * channels + channel) * height * width + top * width + left;
      for (let tap = start; tap < start + depth; tap += taps, from2d += height * width)
        for (let i = iFrom; i < iTo; i++)
          for (let j = jFrom; j < jTo; j++)
            patches[tap + i * kernelW + j] = image[from2d + i * dilationH * width + j * dilationW];
    }
    if ((to - from) % 2 === 1) patches.fill(0, (to - from) * depth, (to - from + 1) * depth);
  }

  /** Fills `weights` with the same input channels of four output channels; those past the group's end become zeros. */
  function packWeights(group: number, outChannel: number, channel: number, count: number): void {
    const depth = count * taps;
    for (let o = 0; o < 4; o++) {
      const from = ((group * groupOut + outChannel + o) * groupIn + channel) * taps;
      if (outChannel + o >= groupOut) weights.fill(0, o * depth, (o + 1) * depth);
      else for (let k = 0; k < depth; k++) weights[o * depth + k] = filter[from + k];
    }
  }

  const tiles = Math.ceil(rows / tileRows);
  const tileStep = Math.ceil(rows / tiles / 2) * 2;
  const quads = Math.ceil(groupOut / 4);
  if (patches.length < tileStep * blockChannels * taps) patches = new Float64Array(tileStep * blockChannels * taps);
  if (weights.length < 4 * blockChannels * taps) weights = new Float64Array(4 * blockChannels * taps);
  if (sums.length < quads * 4 * tileStep) sums = new Float64Array(quads * 4 * tileStep);

  // The unit of sharing is four output channels of a tile, so that small maps with many channels keep all threads busy.
  const [begin, end] = share(groups * tiles * quads);
  for (let unit = begin; unit < end; ) {
    const tile = Math.floor(unit / quads) % tiles;
    const group = Math.floor(unit / quads / tiles);
    const firstQuad = unit % quads;
    const lastQuad = Math.min(quads, firstQuad + end - unit);
    unit += lastQuad - firstQuad;
    const from = tile * tileStep;
    const to = Math.min(rows, from + tileStep);

    sums.fill(0, firstQuad * 4 * tileStep, lastQuad * 4 * tileStep);
    for (let channel = 0; channel < groupIn; channel += blockChannels) {
      const count = Math.min(blockChannels, groupIn - channel);
      packPatches(from, to, group * groupIn + channel, count);
      for (let quad = firstQuad; quad < lastQuad; quad++) {
        packWeights(group, quad * 4, channel, count);
        for (let row = 0; row < to - from; row += 2)
          addProducts(row, count * taps, quad * 4 * tileStep + row, tileStep);
      }
    }

    for (let o = firstQuad * 4; o < Math.min(groupOut, lastQuad * 4); o++) {
      const outChannel = group * groupOut + o;
      const shift = bias ? floats(bias)[outChannel] : 0;
      for (let row = from; row < to; row++) {
        const position = row % plane;
        out[(((row - position) / plane) * outChannels + outChannel) * plane + position] =
          sums[o * tileStep + row - from] + shift;
      }
    }
  }
};

/** Adds the products of four rows of `weights` and two of `patches` to `sums`: eight accumulators fit the registers. */
function addProducts(row: number, depth: number, at: number, step: number): void {
  const w = weights;
  const x = patches;
  const x0 = row * depth;
  const x1 = x0 + depth;
  const [w1, w2, w3] = [depth, 2 * depth, 3 * depth];
  const [at1, at2, at3] = [at + step, at + 2 * step, at + 3 * step];
  let s00 = sums[at];
  let s01 = sums[at + 1];
  let s10 = sums[at1];
  let s11 = sums[at1 + 1];
  let s20 = sums[at2];
  let s21 = sums[at2 + 1];
  let s30 = sums[at3];
  let s31 = sums[at3 + 1];
  for (let k = 0; k < depth; k++) {
    const a = x[x0 + k];
    const b = x[x1 + k];
    const u0 = w[k];
    const u1 = w[w1 + k];
    const u2 = w[w2 + k];
    const u3 = w[w3 + k];
    s00 += u0 * a;
    s01 += u0 * b;
    s10 += u1 * a;
    s11 += u1 * b;
    s20 += u2 * a;
    s21 += u2 * b;
    s30 += u3 * a;
    s31 += u3 * b;
  }
  sums[at] = s00;
  sums[at + 1] = s01;
  sums[at1] = s10;
  sums[at1 + 1] = s11;
  sums[at2] = s20;
  sums[at2 + 1] = s21;
  sums[at3] = s30;
  sums[at3 + 1] = s31;
}
