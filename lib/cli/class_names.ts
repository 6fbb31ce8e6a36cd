import { ArgumentError, expected, listed } from "../errors.js";
import { readLines } from "../io/text.js";
import { imagenetWnidsFile } from "../paths.js";
import { warn } from "./output.js";

/**
 * What of a name counts, stricter first. Folders cannot hold every character a label can (`T-shirt/top` becomes
 * `t-shirt_top`), so where the names themselves do not agree, what a file system or a habit changes does not count; and then
 * only letters, marks and digits do. Never what would make one of two classes: see `byName`.
 */
const readings: readonly ((name: string) => string)[] = [
  (name) => name.normalize("NFC"),
  (name) =>
    name
      .normalize("NFC")
      .toLowerCase()
      .replace(/[\s_/\\:*?"<>|.-]+/gu, " ")
      .trim(),
  (name) =>
    name
      .normalize("NFC")
      .toLowerCase()
      .replace(/[^\p{L}\p{M}\p{N}]+/gu, " ")
      .trim(),
];

/**
 * The class that each folder means: by its name, by ImageNet's name of the class (n01440764), by its number, or, where no
 * folder is called after a class, by its place in the alphabet.
 * Throws ArgumentError for folders that mean no class, or one class together.
 */
export async function matchClasses(
  folder: string,
  names: readonly string[],
  classes: readonly string[],
): Promise<number[]> {
  const named = byName(names, classes);
  const unknown = names.filter((_, i) => named[i] === undefined);
  if (unknown.length === names.length) {
    const other = (await byWnid(names, classes)) ?? byNumber(names, classes);
    if (other) return other;
    if (names.length === classes.length) {
      warn(`${folder}: no folder is named after a class, so the sorted folders are taken for classes 0, 1, …`);
      return names.map((_, index) => index);
    }
  }
  if (unknown.length > 0)
    throw new ArgumentError(
      expected(
        folder,
        `folders named after the model's ${classes.length} classes (${listed(classes)}), each after one`,
        listed(unknown),
      ),
    );
  const indices = named as number[];
  const last = new Map(indices.map((index, i) => [index, i]));
  const taken = new Set(indices.filter((index, i) => last.get(index) !== i));
  const shared = names.filter((_, i) => taken.has(indices[i]));
  if (shared.length > 0)
    throw new ArgumentError(expected(folder, "one folder for each class", `${listed(shared)} for the same`));
  return indices;
}

/** By the strictest reading in which a folder's name is that of exactly one class. */
function byName(names: readonly string[], classes: readonly string[]): (number | undefined)[] {
  const found = new Array<number | undefined>(names.length).fill(undefined);
  for (const read of readings) {
    const meaning = new Map<string, number | undefined>();
    for (const [index, label] of classes.entries()) {
      const key = read(label);
      meaning.set(key, meaning.has(key) ? undefined : index);
    }
    for (const [i, name] of names.entries()) found[i] ??= meaning.get(read(name));
  }
  return found;
}

async function byWnid(names: readonly string[], classes: readonly string[]): Promise<number[] | undefined> {
  if (classes.length !== 1000 || !names.every((name) => /^n\d{8}$/.test(name))) return undefined;
  const wnids = await readLines(imagenetWnidsFile);
  const places = new Map(wnids.map((wnid, index) => [wnid, index]));
  const indices = names.map((name) => places.get(name));
  return indices.every((index) => index !== undefined) ? indices : undefined;
}

function byNumber(names: readonly string[], classes: readonly string[]): number[] | undefined {
  const isIndex = (name: string) => /^\d+$/.test(name) && Number(name) < classes.length;
  const numbers = names.map(Number);
  return names.every(isIndex) && new Set(numbers).size === names.length ? numbers : undefined;
}
