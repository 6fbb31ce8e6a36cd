import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import sharp from "sharp";

const colours = ["#c82828", "#28c828", "#2828c8", "#c8c828", "#28c8c8"];

/** An image of 12 x 12 pixels in a colour of its own, as a file of some format. */
export const blot = (colour: number, format: "png" | "jpeg" | "gif" = "png"): Promise<Buffer> =>
  sharp({ create: { width: 12, height: 12, channels: 3, background: colours[colour % colours.length] } })
    .toFormat(format)
    .toBuffer();

/** Writes files by their paths under a folder: bytes or text, or a number for an image of that colour. */
export async function writeTree(
  root: string,
  files: Readonly<Record<string, number | string | Buffer>>,
): Promise<void> {
  for (const [path, contents] of Object.entries(files)) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), typeof contents === "number" ? await blot(contents) : contents);
  }
}

/** `count` images of each class under a folder. */
export const classFolders = (names: readonly string[], count: number): Record<string, number> =>
  Object.fromEntries(
    names.flatMap((name, colour) => Array.from({ length: count }, (_, i) => [`${name}/${i}.png`, colour] as const)),
  );
