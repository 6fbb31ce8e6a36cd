import type { Metadata, Sharp } from "sharp";
import { expected, ImageError } from "../errors.js";
import { gifGround, onGround } from "./gif.js";
import type { Raster } from "./resize.js";
import { loadSharp } from "./sharp.js";
import { type ImageSource, nameOf, readImageFile } from "./source.js";

/** Pillow refuses pictures past this many pixels as decompression bombs, and so do we. */
const pixelLimit = 178_956_970;

/** Raster formats sharp decodes (avif is heif to it); svg and pdf, which it can also open, are programs more than pictures. */
const formats = ["jpeg", "png", "webp", "gif", "tiff", "heif"];

/**
 * Decodes an image (JPEG, PNG, WebP, GIF, TIFF, AVIF) to 8-bit RGB, upright: EXIF
 * orientation is applied; then as Pillow's `convert("RGB")`: alpha dropped, grey and CMYK converted, colour profiles
 * not applied; 16 bits cut to the upper 8.
 * Throws ImageError for a missing, empty, damaged, too large or non-image file.
 */
export async function decodeImage(source: ImageSource): Promise<Raster> {
  const name = nameOf(source);
  const bytes = await readImageFile(source);
  const sharp = loadSharp();
  try {
    // profiles are ignored because Pillow ignores them, and the published weights were trained through Pillow
    const picture = sharp(bytes, { limitInputPixels: pixelLimit, failOn: "error", ignoreIcc: true });
    const metadata = await picture.metadata();
    if (!formats.includes(metadata.format)) throw new Error(`a file of format ${metadata.format}`);
    return await decodePixels(picture, metadata, bytes);
  } catch (error) {
    throw new ImageError(expected(name, "a picture that can be decoded", explain(error)), { cause: error });
  }
}

async function decodePixels(picture: Sharp, metadata: Metadata, bytes: Uint8Array): Promise<Raster> {
  const ground = metadata.format === "gif" ? gifGround(bytes) : undefined;
  const isCmyk = metadata.space === "cmyk";
  const upright = picture.autoOrient();
  // sharp's own CMYK conversion goes through a colour profile; Pillow's is plain arithmetic
  const converted = isCmyk
    ? upright.pipelineColourspace("cmyk").toColourspace("cmyk")
    : (ground ? upright : upright.removeAlpha()).toColourspace("srgb");
  const { data, info } = await converted.raw({ depth: "uchar" }).toBuffer({ resolveWithObject: true });
  const { width, height, channels } = info;
  if (ground) return { data: onGround(data, channels, width, ground), width, height, channels: 3 };
  const rgb = isCmyk ? fromCmyk(data, channels) : channels === 3 ? data : fromGrey(data, channels);
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

/** The grey picture Pillow's `convert("L")` makes of RGB: ITU-R 601 weights in units of 2^-16. */
export function toGrey(image: Raster): Raster {
  const { data, width, height } = image;
  const grey = new Uint8Array(width * height);
  for (let i = 0; i < grey.length; i++)
    grey[i] = (data[i * 3] * 19595 + data[i * 3 + 1] * 38470 + data[i * 3 + 2] * 7471 + 0x8000) >> 16;
  return { data: grey, width, height, channels: 1 };
}

/** The first line of what the decoder said, in our words where it is common. */
function explain(error: unknown): string {
  const [line] = (error instanceof Error ? error.message : String(error)).trim().split("\n");
  if (line.includes("unsupported image format")) return "bytes of no known picture format";
  if (line.includes("exceeds pixel limit")) return `more than ${pixelLimit} pixels`;
  return line;
}
