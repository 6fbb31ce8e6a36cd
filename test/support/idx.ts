import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

/**
 * Writes IDX files (MNIST's layout) of square images in four classes that a network can tell apart: the label says
 * which quarter of the image is bright. Image i is of class i mod 4.
 */
export async function writeIdx(
  folder: string,
  { train, test, side }: { train: number; test: number; side: number },
): Promise<void> {
  await mkdir(folder, { recursive: true });
  for (const [prefix, count] of [
    ["train", train],
    ["t10k", test],
  ] as const) {
    const labels = Uint8Array.from({ length: count }, (_, i) => i % 4);
    const pixels = new Uint8Array(count * side * side);
    for (let i = 0; i < pixels.length; i++) {
      const [x, y] = [i % side, Math.floor(i / side) % side];
      const quarter = (y * 2 >= side ? 2 : 0) + (x * 2 >= side ? 1 : 0);
      const noise = (Math.imul(i + 1, 2654435761) >>> 24) / 2;
      pixels[i] = noise + (quarter === labels[Math.floor(i / side / side)] ? 100 : 0);
    }
    await writeFile(join(folder, `${prefix}-images-idx3-ubyte`), Buffer.concat([header(count, side, side), pixels]));
    await writeFile(join(folder, `${prefix}-labels-idx1-ubyte`), Buffer.concat([header(count), labels]));
  }
}

function header(...shape: number[]): Buffer {
  const bytes = Buffer.from([0, 0, 8, shape.length, ...new Array<number>(4 * shape.length).fill(0)]);
  for (const [axis, extent] of shape.entries()) bytes.writeUInt32BE(extent, 4 + 4 * axis);
  return bytes;
}
