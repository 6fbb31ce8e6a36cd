import { stat } from "node:fs/promises";
import { glob, isDynamicPattern } from "tinyglobby";
import { findImages } from "../data/folders.js";
import { ArgumentError, expected, ImageError } from "../errors.js";

/** An image that was named on the command line: its path, or what stdin holds, and what it is called. */
export interface NamedImage {
  readonly name: string;
  readonly source: string | Uint8Array;
}

const mostBytes = 2 ** 29;

/**
 * The images that arguments name: files, folders (every image in them and below), patterns (`"photos/*.jpg"`, which the
 * shell left alone) and `-` for an image on stdin. What folders hold beside is said in `remarks`. A file that is not there
 * is in the list: whoever reads it says so.
 *
 * @throws ArgumentError for a folder without images and for a pattern that matches none
 */
export async function findNamedImages(
  named: readonly string[],
): Promise<{ images: NamedImage[]; remarks: readonly string[] }> {
  const images: NamedImage[] = [];
  const remarks: string[] = [];
  const add = (paths: readonly string[]) => {
    for (const path of paths) images.push({ name: path, source: path });
  };
  for (const argument of named) {
    const found = argument === "-" ? undefined : await stat(argument).catch(() => undefined);
    if (argument === "-") {
      if (images.some(({ name }) => name === "-"))
        throw new ArgumentError(expected("classify", "- for stdin once", "it twice"));
      images.push({ name: "-", source: await readStdin() });
    } else if (found?.isDirectory()) {
      const inside = await findImages(argument);
      if (inside.paths.length === 0) throw new ArgumentError(expected(argument, "a folder with images", "none in it"));
      add(inside.paths);
      remarks.push(...inside.remarks);
    } else if (!found && isDynamicPattern(argument)) {
      const paths = (await glob(argument, { dot: false, expandDirectories: false })).sort();
      if (paths.length === 0)
        throw new ArgumentError(expected(argument, "a pattern of files that are there", "no such file"));
      add(paths);
    } else {
      add([argument]);
    }
  }
  return { images, remarks };
}

async function readStdin(): Promise<Uint8Array> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of process.stdin) {
    size += (chunk as Buffer).length;
    if (size > mostBytes) throw new ImageError(expected("-", `an image of at most ${mostBytes} bytes`, "more"));
    chunks.push(chunk as Buffer);
  }
  return Buffer.concat(chunks);
}
