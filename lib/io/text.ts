import { appendFileSync } from "node:fs";
import { ArgumentError, expected } from "../errors.js";
import { readRegularFile, reason, writeFileAtomic } from "../files.js";

/** Far more than labels, settings and references have. */
const smallText = 2 ** 24;

const byteOrderMarks: readonly (readonly [mark: readonly number[], encoding: string])[] = [
  [[0xff, 0xfe], "utf-16le"],
  [[0xfe, 0xff], "utf-16be"],
];

/**
 * The text of a small regular file, in UTF-8, or in UTF-16 where its byte order mark says so, without the mark.
 * Throws plain errors whose message completes "got …": what `readRegularFile` throws, and bytes that are no text.
 */
export async function readTextFile(path: string, mostBytes = smallText): Promise<string> {
  const bytes = await readRegularFile(path, mostBytes);
  const [, encoding] = byteOrderMarks.find(([mark]) => mark.every((byte, i) => bytes[i] === byte)) ?? [[], "utf-8"];
  try {
    return new TextDecoder(encoding, { fatal: true }).decode(bytes);
  } catch (error) {
    throw new Error(`bytes that are not ${encoding.toUpperCase()}`, { cause: error });
  }
}

/** The lines of such a file, without empty ones at its end. */
export async function readLines(path: string): Promise<string[]> {
  return (await readTextFile(path)).trimEnd().split(/\r\n?|\n/);
}

/** Writes a file atomically. Throws ArgumentError where it cannot be written. */
export async function writeTextFile(path: string, text: string): Promise<void> {
  await writeFileAtomic(path, [Buffer.from(text)]).catch((error: unknown) => refuse(path, error));
}

/** Adds to the end of a file, at once. Throws ArgumentError where it cannot be written. */
export function appendText(path: string, text: string): void {
  try {
    appendFileSync(path, text);
  } catch (error) {
    refuse(path, error);
  }
}

function refuse(path: string, error: unknown): never {
  throw new ArgumentError(expected(path, "a file that can be written", reason(error)), { cause: error });
}
