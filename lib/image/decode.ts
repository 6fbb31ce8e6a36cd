import type { Metadata, Sharp } from "sharp";
import { expected, ImageError } from "../errors.js";
import { type GifBackground, gifBackground, onBackground } from "./gif.js";
import type { Raster } from "./resize.js";
import { loadSharp } from "./sharp.js";
import { type ImageSource, nameOf, readImageFile } from "./source.js";

/** Pillow refuses images past this many pixels as decompression bombs, and so do we. */
const pixelLimit = 178_956_970;

/** Raster formats sharp decodes (avif is heif to it); svg and pdf, which it can also open, are programs more than images. */
const formats = ["jpeg", "png", "webp", "gif", "tiff", "heif"];

/** What the samples of an image file mean: grey or RGB, either with alpha; inks; RGB on a GIF's background. */
export type Colours = "plain" | "cmyk" | "gif";

/** 8-bit samples as the decoder left them, row by row. */
export interface Samples {
  readonly data: Uint8Array;
  readonly width: number;
  readonly height: number;
  readonly channels: number;
}

/** An image file whose header has been read. */
export interface ImageFile {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly format: string;
  /** Of the image upright. */
  readonly width: number;
  readonly height: number;
  /** How the stored image is turned, by EXIF: 1 (upright) to 8. */
  readonly orientation: number;
  readonly colours: Colours;
  /** Whether its samples are grey alone. */
  readonly isGrey: boolean;
  readonly background: GifBackground | undefined;
  /** What its samples take at the most. */
  readonly decodedBytes: number;
}

export interface DecodeOptions {
  /** Turn it upright, default false. */
  readonly upright?: boolean;
  /** Decode no more detail than an image of these sides has, as it is stored; JPEG only. Default: all there is. */
  readonly draft?: { readonly width: number; readonly height: number };
}

/** Reads an image file and its header. Throws ImageError for a missing, empty, damaged, too large or non-image file. */
export async function openImage(source: ImageSource): Promise<ImageFile> {
  const name = nameOf(source);
  const bytes = await readImageFile(source);
  return inOurWords(name, async () => {
    const metadata = await reader(bytes).metadata();
    if (!formats.includes(metadata.format)) throw new Error(`a file of format ${metadata.format}`);
    return describe(name, bytes, metadata);
  });
}

function describe(name: string, bytes: Uint8Array, metadata: Metadata): ImageFile {
  const { format, orientation = 1, autoOrient, space, depth, channels } = metadata;
  const { width, height } = autoOrient;
  const background = format === "gif" ? gifBackground(bytes) : undefined;
  const colours = background ? "gif" : space === "cmyk" ? "cmyk" : "plain";
  const isGrey = !background && space === "b-w" && depth === "uchar";
  const decodedBytes = width * height * (isGrey ? 1 : Math.max(3, channels)); // all else becomes RGB in the decoder
  return { name, bytes, format, width, height, orientation, colours, isGrey, background, decodedBytes };
}

/** Profiles are ignored because Pillow ignores them, and the published weights were trained through Pillow. */
function reader(bytes: Uint8Array): Sharp {
  return loadSharp()(bytes, { limitInputPixels: pixelLimit, failOn: "error", ignoreIcc: true });
}

/** The samples of an image file, decoded on another thread. Throws ImageError for a damaged one. */
export function decodeSamples(file: ImageFile, { upright = false, draft }: DecodeOptions = {}): Promise<Samples> {
  return inOurWords(file.name, async () => {
    let image = reader(file.bytes);
    if (upright) image = image.autoOrient();
    if (draft) image = image.resize({ ...draft, fit: "fill", kernel: "linear", fastShrinkOnLoad: true });
    // sharp's own CMYK conversion goes through a colour profile; Pillow's is plain arithmetic
    if (file.colours === "cmyk") image = image.pipelineColourspace("cmyk").toColourspace("cmyk");
    else image = (file.background ? image : image.removeAlpha()).toColourspace(file.isGrey ? "b-w" : "srgb");
    const { data, info } = await image.raw({ depth: "uchar" }).toBuffer({ resolveWithObject: true });
    return { data, width: info.width, height: info.height, channels: info.channels };
  });
}

/**
 * Decodes an image (JPEG, PNG, WebP, GIF, TIFF, AVIF) to 8-bit RGB, upright: EXIF
 * orientation is applied; then as Pillow's `convert("RGB")`: alpha dropped, grey and CMYK converted, colour profiles
 * not applied; 16 bits cut to the upper 8. The conversions are done on this thread.
 * Throws ImageError for a missing, empty, damaged, too large or non-image file.
 */
export async function decodeImage(source: ImageSource): Promise<Raster> {
  const file = await openImage(source);
  return toRgb(await decodeSamples(file, { upright: true }), file);
}

/** Samples as RGB. */
export function toRgb({ data, width, height, channels }: Samples, { colours, background }: ImageFile): Raster {
  if (background) return { data: onBackground(data, channels, width, background), width, height, channels: 3 };
  const rgb = colours === "cmyk" ? fromCmyk(data, channels) : channels === 3 ? data : fromGrey(data, channels);
  return { data: rgb, width, height, channels: 3 };
}

function fromGrey(grey: Uint8Array, channels: number): Uint8Array {
  const pixels = grey.length / channels;
  const rgb = new Uint8Array(pixels * 3);
  for (let i = 0; i < pixels; i++) rgb.fill(grey[i * channels], i * 3, i * 3 + 3);
  return rgb;
}

function fromCmyk(cmyk: Uint8Array, channels: number): Uint8Array {
  const pixels = cmyk.length / channels;
  const rgb = new Uint8Array(pixels * 3);
  for (let i = 0; i < pixels; i++) {
    const light = 255 - cmyk[i * channels + 3];
    for (let c = 0; c < 3; c++) rgb[i * 3 + c] = light - divideBy255(cmyk[i * channels + c] * light);
  }
  return rgb;
}

/** Rounded, as Pillow's MULDIV255. */
function divideBy255(product: number): number {
  const shifted = product + 128;
  return (shifted + (shifted >> 8)) >> 8;
}

/** The grey image Pillow's `convert("L")` makes of RGB: ITU-R 601 weights in units of 2^-16. */
export function toGrey(image: Raster): Raster {
  const { data, width, height } = image;
  const grey = new Uint8Array(width * height);
  for (let i = 0; i < grey.length; i++)
    grey[i] = (data[i * 3] * 19595 + data[i * 3 + 1] * 38470 + data[i * 3 + 2] * 7471 + 0x8000) >> 16;
  return { data: grey, width, height, channels: 1 };
}

/** What `work` answers, or an ImageError that begins with the image's name. */
async function inOurWords<T>(name: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof ImageError) throw error;
    throw new ImageError(expected(name, "an image that can be decoded", explain(error)), { cause: error });
  }
}

/** The first line of what the decoder said, in our words where it is common. */
function explain(error: unknown): string {
  const [line] = (error instanceof Error ? error.message : String(error)).trim().split("\n");
  if (line.includes("unsupported image format")) return "bytes of no known image format";
  if (line.includes("exceeds pixel limit")) return `more than ${pixelLimit} pixels`;
  return line;
}
