import type { Dirent, Stats } from "node:fs";
import { open, readdir, realpath, stat } from "node:fs/promises";
import { extname, join } from "node:path";
import { ArgumentError, expected, listed } from "../errors.js";
import { reason } from "../files.js";

/** A folder of images of one class. */
export interface ClassFolder {
  readonly name: string;
  /** Its images, those of the folders in it too, in the order of their paths. */
  readonly paths: readonly string[];
}

export interface ClassFolders {
  readonly folders: readonly ClassFolder[];
  /** What was passed over, a sentence each. */
  readonly remarks: readonly string[];
}

/** A folder whose own folders are parts of a dataset, each of class folders. */
export interface Splits {
  readonly train: string | undefined;
  /** What to judge by. */
  readonly validation: string | undefined;
  /** What is used for neither, by name. */
  readonly unused: readonly string[];
}

const imageExtensions = [".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".avif"];

/**
 * The class folders in a folder: `photos/cat/1.jpg` is an image of class `cat`, and so is `photos/cat/2024/1.jpg`. Links
 * to files and folders are followed, names that begin with a dot left alone. Classes are in the order of their names.
 * An image is what its name or its first bytes say is one; what is passed over is counted and said.
 *
 * @throws ArgumentError for a folder that cannot be read
 */
export async function readClassFolders(folder: string): Promise<ClassFolders> {
  const { folders, files, broken } = await list(folder);
  const passedOver = new Map<string, number>();
  const found: ClassFolder[] = [];
  for (const name of folders) found.push({ name, paths: await imagesUnder(join(folder, name), passedOver, broken) });
  const remarks: string[] = [];
  const loose = await imagesAmong(files, folder, new Map());
  if (loose.length > 0 && folders.length > 0)
    remarks.push(`${folder}: ${count(loose.length, "image")} beside the class folders left out, being of no class`);
  remarks.push(...remarksOn(folder, passedOver, broken));
  return { folders: found, remarks };
}

/** What was passed over in a folder, a sentence each. */
function remarksOn(folder: string, passedOver: ReadonlyMap<string, number>, broken: readonly string[]): string[] {
  const remarks: string[] = [];
  if (passedOver.size > 0) {
    const kinds = [...passedOver].sort((a, b) => b[1] - a[1]).map(([kind, number]) => `${number} ${kind}`);
    const total = [...passedOver.values()].reduce((sum, number) => sum + number, 0);
    remarks.push(`${folder}: ${count(total, "file")} left out that cannot be read as images: ${listed(kinds)}`);
  }
  if (broken.length > 0)
    remarks.push(`${folder}: ${count(broken.length, "link")} left out that lead nowhere: ${listed(broken)}`);
  return remarks;
}

/**
 * Every image in a folder and below, in the order of their paths, and what was passed over, a sentence each.
 *
 * @throws ArgumentError for a folder that cannot be read
 */
export async function findImages(folder: string): Promise<{ paths: readonly string[]; remarks: readonly string[] }> {
  const passedOver = new Map<string, number>();
  const broken: string[] = [];
  const paths = await imagesUnder(folder, passedOver, broken);
  return { paths, remarks: remarksOn(folder, passedOver, broken) };
}

/**
 * The parts of a dataset, by what their names begin with (train; val, dev; test, eval), or undefined for a folder that is
 * none: one where not a single folder is called so and holds folders in its turn.
 *
 * @throws ArgumentError for two folders of one part, or a folder that cannot be read
 */
export async function findSplits(folder: string): Promise<Splits | undefined> {
  const { folders } = await list(folder);
  const parts = { train: /^train/i, validation: /^(val|dev)/i, test: /^(test|eval)/i };
  const holding: string[] = [];
  for (const name of folders) {
    if (!Object.values(parts).some((part) => part.test(name))) continue;
    const inside = await list(join(folder, name));
    if (inside.folders.length > 0 && (await imagesAmong(inside.files, join(folder, name), new Map())).length === 0)
      holding.push(name);
  }
  if (holding.length === 0) return undefined;
  const one = (part: RegExp): string | undefined => {
    const names = holding.filter((name) => part.test(name));
    if (names.length > 1) throw new ArgumentError(expected(folder, "one folder of each part", listed(names)));
    return names[0];
  };
  const [train, validation, test] = [one(parts.train), one(parts.validation), one(parts.test)];
  const used = [train, validation ?? test];
  const path = (name: string | undefined) => (name === undefined ? undefined : join(folder, name));
  return {
    train: path(train),
    validation: path(validation ?? test),
    unused: folders.filter((name) => !used.includes(name)),
  };
}

interface Listing {
  readonly folders: string[];
  readonly files: string[];
  /** Links that lead nowhere, as paths. */
  readonly broken: string[];
}

/** What is in a folder, sorted, behind links too; names that begin with a dot are not. */
async function list(folder: string): Promise<Listing> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((error: unknown) => {
    throw new ArgumentError(expected(folder, "a folder of class folders", reason(error)), { cause: error });
  });
  const listing: Listing = { folders: [], files: [], broken: [] };
  for (const entry of entries.filter(({ name }) => !name.startsWith(".")).sort((a, b) => order(a.name, b.name))) {
    const kind = await kindOf(entry, join(folder, entry.name));
    if (kind === undefined) listing.broken.push(join(folder, entry.name));
    else if (kind.isDirectory()) listing.folders.push(entry.name);
    else if (kind.isFile()) listing.files.push(entry.name);
  }
  return listing;
}

async function kindOf(entry: Dirent, path: string): Promise<Dirent | Stats | undefined> {
  if (!entry.isSymbolicLink()) return entry;
  return stat(path).catch(() => undefined); // said by whoever lists the folder
}

async function imagesUnder(
  folder: string,
  passedOver: Map<string, number>,
  broken: string[],
  outer: readonly string[] = [],
): Promise<string[]> {
  const real = await realpath(folder);
  if (outer.includes(real)) throw new ArgumentError(expected(folder, "folders", "a link that leads back to itself"));
  const listing = await list(folder);
  for (const path of listing.broken) broken.push(path);
  const images = await imagesAmong(listing.files, folder, passedOver);
  for (const name of listing.folders)
    for (const path of await imagesUnder(join(folder, name), passedOver, broken, [...outer, real])) images.push(path);
  return images;
}

/** The paths of the images among files; of the others, how many there are of a kind goes into `passedOver`. */
async function imagesAmong(
  files: readonly string[],
  folder: string,
  passedOver: Map<string, number>,
): Promise<string[]> {
  const images: string[] = [];
  for (const file of files) {
    const path = join(folder, file);
    const extension = extname(file).toLowerCase();
    if (imageExtensions.includes(extension) || (await beginsAsImage(path))) images.push(path);
    else passedOver.set(extension || "without extension", (passedOver.get(extension || "without extension") ?? 0) + 1);
  }
  return images;
}

/** Whether a file begins as JPEG, PNG, GIF, WebP, TIFF or AVIF files do. */
async function beginsAsImage(path: string): Promise<boolean> {
  const start = Buffer.alloc(12);
  const file = await open(path, "r").catch(() => undefined);
  if (!file) return true; // whoever reads it says why that cannot be
  try {
    await file.read(start, 0, 12, 0);
  } finally {
    await file.close();
  }
  const text = start.toString("latin1");
  return /^(\xff\xd8\xff|\x89PNG|GIF8|RIFF....WEBP|II\*\0|MM\0\*|....ftypavi)/s.test(text);
}

function order(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}
