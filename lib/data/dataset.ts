import { readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { ArgumentError, expected, listed } from "../errors.js";
import { reason } from "../files.js";
import { checkOptions, type OptionNames } from "../options.js";
import { findSplits, readClassFolders } from "./folders.js";
import { fashionMnistClasses, loadIdxDataset } from "./idx.js";
import { permutation, streamOf } from "./random.js";

/** Labelled images, as plain data that worker threads can share. */
export interface Dataset {
  readonly classes: readonly string[];
  /** The class of each image. */
  readonly labels: Int32Array;
  readonly pictures: PixelPictures | FilePictures;
  /** What was passed over when it was opened, a sentence each. */
  readonly remarks?: readonly string[];
}

/** Decoded images in shared memory: `[count, height, width]` bytes, grey. */
export interface PixelPictures {
  readonly kind: "pixels";
  readonly data: Uint8Array;
  readonly height: number;
  readonly width: number;
}

/** Images in files, decoded when they are needed. */
export interface FilePictures {
  readonly kind: "files";
  readonly paths: readonly string[];
}

/**
 * One split of a folder of IDX files (MNIST's layout).
 *
 * @param classes what the labels mean; default Fashion-MNIST's names in a folder called so, else the numbers
 * @throws ArgumentError for missing or damaged files, and labels that no class goes with
 */
export async function openIdx(folder: string, split: "train" | "test", classes?: readonly string[]): Promise<Dataset> {
  const { images, labels, height, width } = await loadIdxDataset(folder, split);
  const count = labels.reduce((most, label) => Math.max(most, label), 0) + 1;
  const isFashion = /fashion/i.test(basename(folder)) && count <= fashionMnistClasses.length;
  const names = classes ?? (isFashion ? fashionMnistClasses : Array.from({ length: count }, (_, i) => `${i}`));
  if (count > names.length) {
    const at = labels.findIndex((label) => label >= names.length);
    throw new ArgumentError(
      expected(folder, `${split} labels under ${names.length}, as there are classes`, `${labels[at]} at image ${at}`),
    );
  }
  const data = new Uint8Array(new SharedArrayBuffer(images.length));
  data.set(images);
  return { classes: names, labels: Int32Array.from(labels), pictures: { kind: "pixels", data, height, width } };
}

/**
 * A folder of class folders: `photos/cat/1.jpg` is an image of class `cat`, and so is `photos/cat/2024/1.jpg`. Classes and
 * files are in the order of their names; links are followed; an image is what its name or its first bytes say is one. What
 * is passed over is in the dataset's `remarks`.
 *
 * @param classes the classes to look for, in this order; default every folder
 * @throws ArgumentError for a folder that is missing, has no class folders, or one without images, or one of no class
 */
export async function openImageFolder(folder: string, classes?: readonly string[]): Promise<Dataset> {
  const { folders, remarks } = await readClassFolders(folder);
  const names = classes ?? folders.map(({ name }) => name);
  if (names.length === 0) throw new ArgumentError(expected(folder, "class folders with images in them", "none"));
  const known = new Set(names);
  const strangers = folders.flatMap(({ name }) => (known.has(name) ? [] : [name]));
  if (strangers.length > 0)
    throw new ArgumentError(expected(folder, `folders named after the classes (${listed(names)})`, listed(strangers)));
  const pathsOf = new Map(folders.map(({ name, paths }) => [name, paths]));
  const paths: string[] = [];
  const labels: number[] = [];
  for (const [label, name] of names.entries()) {
    const own = pathsOf.get(name) ?? [];
    if (own.length === 0) {
      const hint = remarks.length > 0 ? ` (${remarks.join("; ")})` : "";
      throw new ArgumentError(expected(join(folder, name), `images of class ${JSON.stringify(name)}`, `none${hint}`));
    }
    for (const path of own) {
      paths.push(path);
      labels.push(label);
    }
  }
  return { classes: names, labels: Int32Array.from(labels), pictures: { kind: "files", paths }, remarks };
}

export interface OpenOptions {
  /** What IDX labels mean, or which class folders to expect. */
  readonly classes?: readonly string[];
  /** Share of each class kept for validation where the folder brings no images of its own for it, default 0.1. */
  readonly validation?: number;
  /** Chooses that share, default 0. */
  readonly seed?: number;
}

const openNames: OptionNames<OpenOptions> = { classes: true, validation: true, seed: true };

/**
 * What to train on and what to judge by: IDX files (train, and t10k where they are), a folder of parts, each of
 * class folders, told by what their names begin with (`train`; to judge by `val` or `dev`, else `test` or `eval`), or class
 * folders alone, of which a share of every class is set aside. What is passed over is in the `remarks`.
 */
export async function openDataset(
  folder: string,
  options: OpenOptions = {},
): Promise<{ train: Dataset; validation: Dataset | undefined }> {
  const { classes, validation = 0.1, seed = 0 } = checkOptions("openDataset", options, openNames);
  if (!(validation >= 0 && validation < 1))
    throw new ArgumentError(expected("openDataset", "validation in [0, 1)", `${validation}`));
  const names = await readdir(folder).catch((error: unknown) => {
    throw new ArgumentError(expected(folder, "a folder of IDX files or of class folders", reason(error)), {
      cause: error,
    });
  });
  if (names.some((name) => /^train-(images|labels)-idx/.test(name))) {
    const train = await openIdx(folder, "train", classes);
    const hasTest = names.some((name) => /^t10k-images-idx/.test(name));
    return { train, validation: hasTest ? await openIdx(folder, "test", train.classes) : undefined };
  }
  const splits = await findSplits(folder);
  if (splits) {
    if (splits.train === undefined)
      throw new ArgumentError(expected(folder, "a folder train beside the others", "none"));
    const { remarks = [], ...train } = await openImageFolder(splits.train, classes);
    const unused = splits.unused.length > 0 ? [`${folder}: not used: ${listed(splits.unused)}`] : [];
    const all = { ...train, remarks: [...remarks, ...unused] };
    if (splits.validation === undefined) return splitDataset(all, validation, seed);
    return { train: all, validation: await openImageFolder(splits.validation, train.classes) };
  }
  return splitDataset(await openImageFolder(folder, classes), validation, seed);
}

/** Sets a share of every class aside: of each that has two images at least one, and never all. */
export function splitDataset(
  dataset: Dataset,
  share: number,
  seed = 0,
): { train: Dataset; validation: Dataset | undefined } {
  const held = new Set<number>();
  const byClass = dataset.classes.map((): number[] => []);
  for (const [i, label] of dataset.labels.entries()) byClass[label].push(i);
  for (const [label, members] of byClass.entries()) {
    const wanted = Math.max(1, Math.round(members.length * share));
    const count = share > 0 ? Math.min(wanted, members.length - 1) : 0;
    for (const at of permutation(streamOf(seed, label), members.length).subarray(0, count)) held.add(members[at]);
  }
  const all = [...dataset.labels.keys()];
  const validation =
    held.size > 0
      ? subset(
          dataset,
          all.filter((i) => held.has(i)),
        )
      : undefined;
  const rest = all.filter((i) => !held.has(i));
  return {
    train: { ...subset(dataset, rest), remarks: dataset.remarks },
    validation,
  };
}

/** The images at `indices`. */
export function subset({ classes, labels, pictures }: Dataset, indices: readonly number[]): Dataset {
  const chosen = Int32Array.from(indices, (i) => labels[i]);
  if (pictures.kind === "files") {
    const paths = indices.map((i) => pictures.paths[i]);
    return { classes, labels: chosen, pictures: { kind: "files", paths } };
  }
  const size = pictures.height * pictures.width;
  const data = new Uint8Array(new SharedArrayBuffer(indices.length * size));
  for (const [to, from] of indices.entries())
    data.set(pictures.data.subarray(from * size, (from + 1) * size), to * size);
  return { classes, labels: chosen, pictures: { ...pictures, data } };
}

/** Mean and standard deviation of all pixels, of values in 0..1, rounded to four digits. */
export function pixelStatistics({ data }: PixelPictures): { mean: number; std: number } {
  const counts = new Float64Array(256);
  for (const value of data) counts[value]++;
  let sum = 0;
  let squares = 0;
  for (const [value, count] of counts.entries()) {
    sum += (count * value) / 255;
    squares += count * (value / 255) ** 2;
  }
  const mean = sum / data.length;
  const round = (value: number) => Math.round(value * 1e4) / 1e4;
  return { mean: round(mean), std: Math.max(round(Math.sqrt(Math.max(0, squares / data.length - mean ** 2))), 1e-4) };
}
