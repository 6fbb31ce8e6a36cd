import { fileURLToPath } from "node:url";
import { types } from "node:util";
import { expected, ImageError } from "../errors.js";
import { readRegularFile, reason } from "../files.js";

/** An image: a path, a `file:` or `data:` URL, or what an image file holds (JPEG, PNG, WebP, GIF, TIFF, AVIF). */
export type ImageSource = string | URL | Uint8Array | ArrayBuffer | Blob;

const fileLimit = 2 ** 29;

export function isImageSource(value: unknown): value is ImageSource {
  return (
    typeof value === "string" ||
    value instanceof URL ||
    ArrayBuffer.isView(value) ||
    types.isAnyArrayBuffer(value) ||
    value instanceof Blob
  );
}

/** What messages call an image. */
export function nameOf(source: unknown): string {
  const text = source instanceof URL ? source.href : source;
  if (typeof text !== "string") return "loadImage";
  return /^data:/i.test(text) ? "the data: URL" : text;
}

/**
 * The bytes of an image file. Throws ImageError for one that is missing, empty, larger than 512 MiB, or anything else than an
 * image source; a URL of the network is refused, with what fetches it.
 */
export async function readImageFile(source: unknown): Promise<Uint8Array> {
  const name = nameOf(source);
  if (!isImageSource(source))
    throw new ImageError(
      expected("loadImage", "a path, a URL or the bytes of an image", source === null ? "null" : typeof source),
    );
  let bytes: Uint8Array;
  try {
    bytes = await read(source);
  } catch (error) {
    if (error instanceof ImageError) throw error;
    const isMissing = ["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "");
    const what = isMissing ? "an image file" : `an image file of at most ${fileLimit} bytes`;
    throw new ImageError(expected(name, what, reason(error)), { cause: error });
  }
  if (bytes.length === 0) throw new ImageError(expected(name, "an image", "no bytes at all"));
  return bytes;
}

async function read(source: ImageSource): Promise<Uint8Array> {
  if (source instanceof URL) return read(source.href);
  // as this realm's bytes, which is what sharp takes
  if (types.isAnyArrayBuffer(source)) return Buffer.from(source);
  if (ArrayBuffer.isView(source)) return Buffer.from(source.buffer, source.byteOffset, source.byteLength);
  if (source instanceof Blob) {
    if (source.size > fileLimit) throw new Error(`a Blob of ${source.size} bytes`);
    return new Uint8Array(await source.arrayBuffer());
  }
  const [, scheme] = /^(data|file|https?):/i.exec(source) ?? [];
  switch (scheme?.toLowerCase()) {
    case undefined:
      return readRegularFile(source, fileLimit);
    case "file":
      return readRegularFile(fileURLToPath(source), fileLimit);
    case "data":
      return new Uint8Array(await (await fetch(source)).arrayBuffer());
    default:
      throw new ImageError(
        expected(
          source,
          "a path, a file: or data: URL, or bytes",
          "a URL of the network, which is fetched by: new Uint8Array(await (await fetch(url)).arrayBuffer())",
        ),
      );
  }
}
