/** What a GIF's first frame leaves of its canvas. */
export interface GifBackground {
  /** The colour of what is transparent or not drawn: that of the transparent index, else of index 0, as Pillow has it. */
  readonly colour: readonly [number, number, number];
  /** The part of the canvas that the frame draws. */
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

/**
 * Reads a GIF up to its first frame. Decoders give what the frame does not draw as transparent black; Pillow, whose numbers
 * ours are to be, fills the canvas with the transparent index before it draws.
 * Returns undefined for a file that ends before, which the decoder refuses.
 */
export function gifBackground(bytes: Uint8Array): GifBackground | undefined {
  const word = (at: number) => bytes[at] | (bytes[at + 1] << 8);
  const palette = (flags: number, at: number) =>
    flags & 0x80 ? bytes.subarray(at, at + 3 * 2 ** ((flags & 7) + 1)) : new Uint8Array(0);
  const global = palette(bytes[10], 13);
  let transparent: number | undefined;
  for (let at = 13 + global.length; at < bytes.length; ) {
    if (bytes[at] === 0x21) {
      // an extension; 0xf9 says of the next frame, among other things, which index is transparent
      if (bytes[at + 1] === 0xf9) transparent = bytes[at + 3] & 1 ? bytes[at + 6] : undefined;
      at += 2;
      while (bytes[at] > 0) at += bytes[at] + 1;
      at++;
    } else if (bytes[at] === 0x2c) {
      const local = palette(bytes[at + 9], at + 10);
      const colour = colourOf(local.length > 0 ? local : global, transparent ?? 0);
      return { colour, left: word(at + 1), top: word(at + 3), width: word(at + 5), height: word(at + 7) };
    } else return undefined;
  }
  return undefined;
}

function colourOf(palette: Uint8Array, index: number): [number, number, number] {
  if (palette.length === 0) return [index, index, index]; // without a palette, indices are greys
  return [0, 1, 2].map((channel) => palette[3 * index + channel] ?? 0) as [number, number, number];
}

/** RGB of a frame's RGBA or RGB samples on the canvas's background. */
export function onBackground(
  samples: Uint8Array,
  channels: number,
  canvasWidth: number,
  background: GifBackground,
): Uint8Array {
  const { colour, left, top, width, height } = background;
  const pixels = samples.length / channels;
  const rgb = new Uint8Array(pixels * 3);
  for (let i = 0; i < pixels; i++) {
    const [x, y] = [(i % canvasWidth) - left, Math.floor(i / canvasWidth) - top];
    const isDrawn = x >= 0 && x < width && y >= 0 && y < height && (channels < 4 || samples[i * channels + 3] > 0);
    for (let c = 0; c < 3; c++) rgb[i * 3 + c] = isDrawn ? samples[i * channels + (channels < 3 ? 0 : c)] : colour[c];
  }
  return rgb;
}
