import { sizeOf } from "../../../shape.js";
import { floats, type Kernel } from "./kernel.js";
import { addProducts } from "./products.js";

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

  // Where the elements of a patch lie, from its first one on, when all of it lies inside the image.
  const offsets = new Int32Array(blockChannels * taps);
  for (let k = 0; k < offsets.length; k++) {
    const [channel, i, j] = [Math.floor(k / taps), Math.floor((k % taps) / kernelW), k % kernelW];
    offsets[k] = channel * height * width + i * dilationH * width + j * dilationW;
  }

  /** Fills `patches` with what rows [from, to) see of `count` input channels starting at `channel`. */
  function packPatches(from: number, to: number, channel: number, count: number): void {
    const depth = count * taps;
    for (let row = from; row < to; row++) {
      const start = (row - from) * depth;
      const position = row % plane;
      const top = Math.floor(position / outW) * strideH - padH;
      const left = (position % outW) * strideW - padW;
      const origin = (((row - position) / plane) * channels + channel) * height * width + top * width + left;
      const inside =
        top >= 0 && left >= 0 && top + (kernelH - 1) * dilationH < height && left + (kernelW - 1) * dilationW < width;
      if (inside) for (let k = 0; k < depth; k++) patches[start + k] = image[origin + offsets[k]];
      else packBorder(start, depth, origin, top, left);
    }
    if ((to - from) % 2 === 1) patches.fill(0, (to - from) * depth, (to - from + 1) * depth);
  }

  /** One patch that reaches over the edge of the image, where there are zeros. */
  function packBorder(start: number, depth: number, origin: number, top: number, left: number): void {
    const iFrom = Math.max(0, Math.ceil(-top / dilationH));
    const iTo = Math.min(kernelH, Math.ceil((height - top) / dilationH));
    const jFrom = Math.max(0, Math.ceil(-left / dilationW));
    const jTo = Math.min(kernelW, Math.ceil((width - left) / dilationW));
    patches.fill(0, start, start + depth);
    for (let first = 0; first < depth; first += taps)
      for (let i = iFrom; i < iTo; i++)
        for (let k = first + i * kernelW + jFrom; k < first + i * kernelW + jTo; k++)
          patches[start + k] = image[origin + offsets[k]];
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
          addProducts(sums, quad * 4 * tileStep + row, tileStep, weights, patches, row, count * taps);
      }
    }

    for (let o = firstQuad * 4; o < Math.min(groupOut, lastQuad * 4); o++) {
      const outChannel = group * groupOut + o;
      const shift = bias ? floats(bias)[outChannel] : 0;
      for (let row = from; row < to; ) {
        const n = Math.floor(row / plane);
        const at = (n * outChannels + outChannel) * plane + row - n * plane;
        const count = Math.min(to, (n + 1) * plane) - row; // a tile may span images
        const sum = o * tileStep + row - from;
        for (let k = 0; k < count; k++) out[at + k] = sums[sum + k] + shift;
        row += count;
      }
    }
  }
};
