import { expected, ImageError } from "../errors.js";
import { decodeSamples, type ImageFile, type Samples, toGrey, toRgb } from "./decode.js";
import { crop, type Interpolation, type Raster, resize, type Window } from "./resize.js";

/** Which pixels of an image there are to be. */
export interface Geometry {
  /** The part of the image that counts, in pixels; default all of it. */
  readonly crop?: Window;
  /** The sides that it is resized to. */
  readonly width: number;
  readonly height: number;
  /** The part of the resized image that is wanted. */
  readonly window: Window;
  /** The square that this is put on, where it is smaller; default none. */
  readonly canvas?: Canvas;
}

export interface Canvas {
  readonly side: number;
  readonly left: number;
  readonly top: number;
  /** What is around the image: a byte for each channel. */
  readonly fill: readonly number[];
}

/** How an image file becomes an image for a network. Plain data, for another thread. */
export interface Recipe {
  readonly geometry: Geometry;
  readonly interpolation: Interpolation;
  readonly channels: 1 | 3;
  /** What each of the 256 samples becomes, for each channel; default the samples as they are. */
  readonly table?: Float32Array;
  /** Decode JPEGs at a smaller scale, at least twice the one asked for. */
  readonly draft?: boolean;
}

/** An image to prepare in another thread. */
export interface ImageOrder {
  readonly file: ImageFile;
  readonly recipe: Recipe;
}

/** 8-bit samples, [height, width, channels]; or, with a table, planes of floats, [channels, height, width]. */
export type Prepared = Uint8Array | Float32Array;

/** The sides that a draft is decoded to, as the file stores it; undefined where that would save nothing. */
export function draftSides(
  file: ImageFile,
  { geometry, draft }: Recipe,
): { width: number; height: number } | undefined {
  const { width, height, crop: part } = geometry;
  if (!draft || file.format !== "jpeg" || part || file.width < 4 * width || file.height < 4 * height) return undefined;
  const isOnItsSide = file.orientation >= 5;
  return { width: 2 * (isOnItsSide ? height : width), height: 2 * (isOnItsSide ? width : height) };
}

/** Throws ImageError where the decoder found another size than the header says, `width` x `height`. */
export function checkSize({ name }: ImageFile, { width: w, height: h }: Samples, width: number, height: number): void {
  if (w !== width || h !== height)
    throw new ImageError(expected(name, `${width} x ${height} pixels, as its header says`, `${w} x ${h}`));
}

/** The same in TypeScript, on this thread: the judge of the addon's, and what there is without one. */
export async function prepareHere(file: ImageFile, recipe: Recipe): Promise<Prepared> {
  const { geometry, interpolation, channels, table } = recipe;
  const { width, height, window, canvas } = geometry;
  const draft = draftSides(file, recipe);
  const samples = await decodeSamples(file, { upright: !draft, draft });
  const sides = draft ?? file;
  checkSize(file, samples, sides.width, sides.height);
  let image = toRgb(samples, file);
  if (draft) image = upright(image, file.orientation); // which the decoder would do before it makes the image smaller
  if (geometry.crop) image = crop(image, geometry.crop, [0]);
  if (channels === 1) image = toGrey(image);
  image = resize(image, width, height, interpolation, window);
  if (canvas) image = onCanvas(image, canvas);
  return table ? normalize(image, table) : image.data;
}

/** An image that is stored as EXIF's `orientation` says, upright. */
function upright({ data, width, height, channels }: Raster, orientation: number): Raster {
  const isOnItsSide = orientation >= 5;
  const [across, down] = isOnItsSide ? [height, width] : [width, height];
  const out = new Uint8Array(data.length);
  for (let y = 0; y < down; y++)
    for (let x = 0; x < across; x++) {
      const column = [2, 3, 6, 7].includes(orientation) ? across - 1 - x : x;
      const row = [3, 4, 7, 8].includes(orientation) ? down - 1 - y : y;
      const from = (isOnItsSide ? column * width + row : row * width + column) * channels;
      for (let c = 0; c < channels; c++) out[(y * across + x) * channels + c] = data[from + c];
    }
  return { data: out, width: across, height: down, channels };
}

function onCanvas(image: Raster, { side, left, top, fill }: Canvas): Raster {
  const { width, height, channels } = image;
  const data = new Uint8Array(side * side * channels);
  for (let i = 0; i < data.length; i++) data[i] = fill[i % channels];
  const row = width * channels;
  for (let y = 0; y < height; y++)
    data.set(image.data.subarray(y * row, (y + 1) * row), ((y + top) * side + left) * channels);
  return { data, width: side, height: side, channels };
}

function normalize({ data, channels }: Raster, table: Float32Array): Float32Array {
  const pixels = data.length / channels;
  const values = new Float32Array(data.length);
  for (let c = 0; c < channels; c++)
    for (let i = 0; i < pixels; i++) values[c * pixels + i] = table[c * 256 + data[i * channels + c]];
  return values;
}
