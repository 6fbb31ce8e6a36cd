import { readdir } from "node:fs/promises";
import { type Classifier, preprocessingOf } from "../classifier/source.js";
import { type ClassFolder, findSplits, readClassFolders } from "../data/folders.js";
import { loadIdxDataset } from "../data/idx.js";
import { ArgumentError, expected, ImageError, ShapeError } from "../errors.js";
import { reason } from "../files.js";
import { loadImage, type PreprocessOptions } from "../image/preprocess.js";
import { stack } from "../image/stack.js";
import { Tensor, tensor } from "../tensor.js";
import { matchClasses } from "./class_names.js";
import { warn } from "./output.js";

/** Images with the truth about them. */
export interface LabelledImages {
  /** The class of each image, as an index. */
  labels: readonly number[];
  /** Images `from` to `to` (exclusive). */
  batch(from: number, to: number): Promise<ImageBatch>;
}

export interface ImageBatch {
  /** The network's input: uint8 still to be normalised, or float32; undefined where no image could be read. */
  images: Tensor | undefined;
  /** The place of each of them among all images. */
  places: readonly number[];
  /** Of each image that could not be read, why. */
  skipped: readonly string[];
}

/**
 * Opens a folder of IDX test files, or one of class folders, for a classifier. Of IDX files `limit` takes the first
 * images; of class folders it takes them evenly spread, so that no class is left out.
 * Throws ArgumentError for a folder that is neither, and whose classes the classifier does not have.
 */
export async function openLabelledImages(
  folder: string,
  classifier: Classifier,
  limit: number,
): Promise<LabelledImages> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((error: unknown) => {
    throw new ArgumentError(expected(folder, "a folder of images", reason(error)), { cause: error });
  });
  if (entries.some(({ name }) => /^t10k-(images|labels)-idx/.test(name))) return openIdx(folder, classifier, limit);
  const splits = await findSplits(folder);
  if (splits) {
    if (splits.validation === undefined)
      throw new ArgumentError(expected(folder, "a folder val or test beside train, or class folders", "none"));
    warn(`${splits.validation}: these images are judged`);
  }
  const root = splits?.validation ?? folder;
  const { folders, remarks } = await readClassFolders(root);
  for (const remark of remarks) warn(remark);
  if (folders.length > 0) return openClassFolders(root, folders, classifier, limit);
  throw new ArgumentError(
    expected(folder, "IDX test files (t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte) or class folders", "neither"),
  );
}

async function openIdx(folder: string, { info }: Classifier, limit: number): Promise<LabelledImages> {
  const { images, labels, count, height, width } = await loadIdxDataset(folder, "test");
  const size = [1, height, width];
  if (String(size) !== String(info.inputSize))
    throw new ShapeError(
      expected(folder, `images of the network's input [${info.inputSize.join(", ")}]`, `[${size.join(", ")}]`),
    );
  const known = Array.from(labels.subarray(0, Math.min(limit, count)));
  const wrong = known.find((label) => label >= info.classes.length);
  if (wrong !== undefined)
    throw new ArgumentError(
      expected(folder, `labels under ${info.classes.length}, as the model has classes`, `${wrong}`),
    );
  const pixels = height * width;
  const batch = async (from: number, to: number) => ({
    images: tensor(images.subarray(from * pixels, to * pixels), [to - from, ...size]),
    places: Array.from({ length: to - from }, (_, i) => from + i),
    skipped: [],
  });
  return { labels: known, batch };
}

async function openClassFolders(
  folder: string,
  folders: readonly ClassFolder[],
  classifier: Classifier,
  limit: number,
): Promise<LabelledImages> {
  const names = folders.map(({ name }) => name);
  const indices = await matchClasses(folder, names, classifier.info.classes);
  const all = folders.flatMap(({ paths }, i) => paths.map((path) => ({ path, label: indices[i] })));
  if (all.length === 0) throw new ArgumentError(expected(folder, "class folders with images in them", "none"));
  const count = Math.min(limit, all.length);
  const chosen = Array.from({ length: count }, (_, i) => all[Math.floor((i * all.length) / count)]);
  const preprocessing = preprocessingOf(classifier);
  const batch = async (from: number, to: number) => {
    const places = Array.from({ length: to - from }, (_, i) => from + i);
    const read = await Promise.all(places.map((place) => readOne(chosen[place].path, preprocessing)));
    const readable = places.filter((_, i) => read[i] instanceof Tensor);
    const images = read.filter((image) => image instanceof Tensor);
    return {
      images: images.length > 0 ? await stack(images) : undefined,
      places: readable,
      skipped: read.flatMap((image) => (image instanceof Tensor ? [] : [image.message])),
    };
  };
  return { labels: chosen.map(({ label }) => label), batch };
}

/** An image as the network wants it, or why it cannot be read. */
async function readOne(path: string, preprocessing: PreprocessOptions): Promise<Tensor | ImageError> {
  try {
    return await loadImage(path, preprocessing);
  } catch (error) {
    if (error instanceof ImageError) return error;
    throw error;
  }
}
