import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { type Classifier, preprocessingOf } from "../classifier/source.js";
import { isPicture } from "../data/dataset.js";
import { loadIdxDataset } from "../data/idx.js";
import { ArgumentError, expected, listed, ShapeError } from "../errors.js";
import { loadImage } from "../image/preprocess.js";
import { stack } from "../image/stack.js";
import { reason } from "../io/files.js";
import { type Tensor, tensor } from "../tensor.js";
import { warn } from "./output.js";

/** Pictures with the truth about them. */
export interface Pictures {
  /** The class of each picture, as an index. */
  labels: readonly number[];
  /** Pictures `from` to `to` (exclusive) as the network's input: uint8 still to be normalised, or float32. */
  batch(from: number, to: number): Promise<Tensor>;
}

/**
 * Opens a folder of IDX test files, or one of class folders, for a classifier. Of IDX files `limit` takes the first
 * pictures; of class folders it takes them evenly spread, so that no class is left out.
 * Throws ArgumentError for a folder that is neither, and whose classes the classifier does not have.
 */
export async function openPictures(folder: string, classifier: Classifier, limit: number): Promise<Pictures> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((error: unknown) => {
    throw new ArgumentError(expected(folder, "a folder of pictures", reason(error)), { cause: error });
  });
  if (entries.some(({ name }) => /^t10k-(images|labels)-idx/.test(name))) return openIdx(folder, classifier, limit);
  const folders = entries.filter((entry) => entry.isDirectory() && !entry.name.startsWith("."));
  if (folders.length > 0) return openClassFolders(folder, folders.map(({ name }) => name).sort(), classifier, limit);
  throw new ArgumentError(
    expected(folder, "IDX test files (t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte) or class folders", "neither"),
  );
}

async function openIdx(folder: string, { info }: Classifier, limit: number): Promise<Pictures> {
  const { images, labels, count, height, width } = await loadIdxDataset(folder, "test");
  const size = [1, height, width];
  if (String(size) !== String(info.inputSize))
    throw new ShapeError(
      expected(folder, `pictures of the network's input [${info.inputSize.join(", ")}]`, `[${size.join(", ")}]`),
    );
  const known = Array.from(labels.subarray(0, Math.min(limit, count)));
  const wrong = known.find((label) => label >= info.classes.length);
  if (wrong !== undefined)
    throw new ArgumentError(
      expected(folder, `labels under ${info.classes.length}, as the model has classes`, `${wrong}`),
    );
  const pixels = height * width;
  const batch = async (from: number, to: number) =>
    tensor(images.subarray(from * pixels, to * pixels), [to - from, ...size]);
  return { labels: known, batch };
}

async function openClassFolders(
  folder: string,
  names: readonly string[],
  classifier: Classifier,
  limit: number,
): Promise<Pictures> {
  const indices = matchClasses(folder, names, classifier.info.classes);
  const all: { path: string; label: number }[] = [];
  for (const [i, name] of names.entries()) {
    const files = (await readdir(join(folder, name))).filter(isPicture).sort();
    all.push(...files.map((file) => ({ path: join(folder, name, file), label: indices[i] })));
  }
  if (all.length === 0) throw new ArgumentError(expected(folder, "class folders with pictures in them", "none"));
  const count = Math.min(limit, all.length);
  const chosen = Array.from({ length: count }, (_, i) => all[Math.floor((i * all.length) / count)]);
  const preprocessing = preprocessingOf(classifier);
  const batch = async (from: number, to: number) =>
    stack(await Promise.all(chosen.slice(from, to).map(({ path }) => loadImage(path, preprocessing))));
  return { labels: chosen.map(({ label }) => label), batch };
}

/** The class each folder means: by its name where all names are known, else by its place in the alphabet. */
function matchClasses(folder: string, names: readonly string[], classes: readonly string[]): number[] {
  const byName = new Map(classes.map((label, index) => [plain(label), index]));
  const unknown = names.filter((name) => !byName.has(plain(name)));
  if (unknown.length === 0) return names.map((name) => byName.get(plain(name)) as number);
  if (unknown.length === names.length && names.length === classes.length) {
    warn(`${folder}: no folder is named after a class, so the sorted folders are taken for classes 0, 1, …`);
    return names.map((_, index) => index);
  }
  throw new ArgumentError(
    expected(folder, `folders named after the model's ${classes.length} classes (${listed(classes)})`, listed(unknown)),
  );
}

/** Folder names cannot hold every character a label can: `T-shirt/top` and `t-shirt_top` mean the same. */
function plain(label: string): string {
  return label
    .toLowerCase()
    .replace(/[^\p{L}\p{N}]+/gu, " ")
    .trim();
}
