import { stat } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { constants, gunzip } from "node:zlib";
import { ArgumentError, expected } from "../errors.js";
import { readRegularFile, reason } from "../files.js";

/** An IDX file of unsigned bytes: row-major, the last dimension fastest. */
export interface IdxArray {
  shape: number[];
  data: Uint8Array;
}

/** Images and labels of one split: `images` is [count, height, width], `labels` [count]. */
export interface IdxDataset {
  images: Uint8Array;
  labels: Uint8Array;
  count: number;
  height: number;
  width: number;
}

/** What the ten labels of Fashion-MNIST mean, in order. */
export const fashionMnistClasses: readonly string[] = [
  "T-shirt/top",
  "Trouser",
  "Pullover",
  "Dress",
  "Coat",
  "Sandal",
  "Shirt",
  "Sneaker",
  "Bag",
  "Ankle boot",
];

const unsignedByte = 0x08;
const mostBytes = 2 ** 30;
const inflate = promisify(gunzip);

/**
 * Reads an IDX file (the format of MNIST and its relatives) of unsigned bytes, gzipped or plain: the bytes tell which.
 * Throws ArgumentError for a missing file, wrong magic, a shape that does not fit the data, and damaged gzip.
 */
export async function readIdx(path: string): Promise<IdxArray> {
  let bytes: Uint8Array;
  try {
    bytes = await readRegularFile(path, mostBytes);
    if (bytes[0] === 0x1f && bytes[1] === 0x8b) bytes = await unpack(bytes, path);
  } catch (error) {
    if (error instanceof ArgumentError) throw error;
    throw new ArgumentError(expected(path, "an IDX file, plain or gzipped", reason(error)), { cause: error });
  }
  const { shape, start, size } = parseHeader(bytes, path);
  if (bytes.length !== start + size)
    throw new ArgumentError(
      expected(path, `${size} bytes of data for shape [${shape.join(", ")}]`, `${bytes.length - start}`),
    );
  return { shape, data: bytes.subarray(start) };
}

/** No more than the header says: a small file may unpack to gigabytes. */
async function unpack(packed: Uint8Array, path: string): Promise<Uint8Array> {
  const beginning = await inflate(packed.subarray(0, 4096), { finishFlush: constants.Z_SYNC_FLUSH });
  const { shape, start, size } = parseHeader(beginning, path);
  const wanted = `${size} bytes of data for shape [${shape.join(", ")}]`;
  if (start + size > mostBytes) throw new ArgumentError(expected(path, `at most ${mostBytes} bytes`, `${size}`));
  return inflate(packed, { maxOutputLength: start + size }).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ERR_BUFFER_TOO_LARGE")
      throw new ArgumentError(expected(path, wanted, "more when unpacked"), { cause: error });
    throw error;
  });
}

function parseHeader(bytes: Uint8Array, path: string): { shape: number[]; start: number; size: number } {
  const fail = (what: string, got: string): never => {
    throw new ArgumentError(expected(path, what, got));
  };
  if (bytes.length < 4) fail("an IDX file of at least 4 bytes", `${bytes.length}`);
  const [zero, zeroToo, type, rank] = bytes;
  if (zero !== 0 || zeroToo !== 0 || type !== unsignedByte || rank === 0)
    fail(
      "an IDX file of unsigned bytes (magic 00 00 08 and the rank)",
      Buffer.from(bytes.subarray(0, 4)).toString("hex"),
    );
  const start = 4 + 4 * rank;
  if (bytes.length < start) fail(`an IDX header of ${start} bytes`, `a file of ${bytes.length}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, start);
  const shape = Array.from({ length: rank }, (_, axis) => view.getUint32(4 + 4 * axis));
  return { shape, start, size: shape.reduce((product, extent) => product * extent, 1) };
}

/**
 * Reads one split of a folder in MNIST's layout: `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`, or `t10k-…`
 * for the test split, each plain or with `.gz`. Throws ArgumentError when a file is missing, damaged, or the two disagree.
 */
export async function loadIdxDataset(folder: string, split: "train" | "test"): Promise<IdxDataset> {
  if (split !== "train" && split !== "test")
    throw new ArgumentError(expected("loadIdxDataset", 'split "train" or "test"', JSON.stringify(split) ?? "nothing"));
  const prefix = split === "train" ? "train" : "t10k";
  const imagesPath = await findFile(folder, `${prefix}-images-idx3-ubyte`);
  const labelsPath = await findFile(folder, `${prefix}-labels-idx1-ubyte`);
  const [images, labels] = await Promise.all([readIdx(imagesPath), readIdx(labelsPath)]);
  if (images.shape.length !== 3 || images.data.length === 0)
    throw new ArgumentError(expected(imagesPath, "images [count, height, width]", `[${images.shape.join(", ")}]`));
  const [count, height, width] = images.shape;
  if (labels.shape.length !== 1 || labels.shape[0] !== count)
    throw new ArgumentError(expected(labelsPath, `labels [${count}]`, `[${labels.shape.join(", ")}]`));
  return { images: images.data, labels: labels.data, count, height, width };
}

async function findFile(folder: string, name: string): Promise<string> {
  for (const path of [join(folder, name), join(folder, `${name}.gz`)]) if (await exists(path)) return path;
  throw new ArgumentError(expected(folder, `a folder with ${name} or ${name}.gz`, "neither"));
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
