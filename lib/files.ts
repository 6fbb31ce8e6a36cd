import { randomBytes } from "node:crypto";
import { type FileHandle, open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";

/** What the system said, as a few words for people: `no such file`, `a folder`, … */
export function reason(error: unknown): string {
  const known: Record<string, string> = {
    ENOENT: "no such file",
    ENOTDIR: "no such file",
    EISDIR: "a folder",
    EACCES: "no permission",
    EPERM: "no permission",
    ENOSPC: "a full disk",
    EROFS: "a read-only file system",
    ENAMETOOLONG: "a name that is too long",
  };
  const code = (error as NodeJS.ErrnoException | undefined)?.code;
  return (code && known[code]) || (error instanceof Error ? error.message : String(error));
}

/**
 * The whole of a regular file of at most `mostBytes`. Throws plain errors whose message completes "got …":
 * missing, a folder, a device or pipe, too large, unreadable.
 */
export async function readRegularFile(path: string, mostBytes: number): Promise<Uint8Array> {
  const size = await regularFileSize(path);
  if (size > mostBytes) throw new Error(`a file of ${size} bytes`);
  if (size < 2 ** 31 - 1) return readFile(path); // which stops there
  const bytes = Buffer.allocUnsafeSlow(size);
  await withRegularFile(path, (file) => file.read([bytes], 0));
  return bytes;
}

/** What a clone without Git LFS has in place of a large file. For messages: it completes "got …". */
export const lfsPointer = "a Git LFS pointer (git lfs pull brings the file itself)";

export function isLfsPointer(bytes: Uint8Array): boolean {
  return Buffer.from(bytes.subarray(0, 8)).toString("latin1") === "version ";
}

/** An open file that is read piece by piece. */
export interface RegularFile {
  readonly size: number;
  /** Fills `pieces`, one after the other, with what the file holds from byte `position` on. Throws where it is too short. */
  read(pieces: readonly Uint8Array[], position: number): Promise<void>;
}

/** What `work` makes of the file at `path`, which is open as long as that takes. Throws as `readRegularFile` does. */
export async function withRegularFile<T>(path: string, work: (file: RegularFile) => Promise<T>): Promise<T> {
  const size = await regularFileSize(path);
  const file = await open(path, "r");
  try {
    return await work({ size, read: (pieces, position) => fill(file, pieces, position) });
  } finally {
    await file.close();
  }
}

/** Looked at before it is opened: opening a pipe would wait for a writer. */
async function regularFileSize(path: string): Promise<number> {
  const info = await stat(path);
  if (info.isDirectory()) throw new Error("a folder");
  if (!info.isFile()) throw new Error("something that is not a regular file");
  return info.size;
}

/** One call reads at most 1,024 pieces and 2 GiB, and may read less. */
async function fill(file: FileHandle, pieces: readonly Uint8Array[], position: number): Promise<void> {
  let missing = pieces.filter(({ length }) => length > 0);
  for (let at = position; missing.length > 0; ) {
    let { bytesRead } = await file.readv(missing.slice(0, 1024), at);
    if (bytesRead === 0) throw new Error(`a file that shrank to ${at} bytes while it was read`);
    at += bytesRead;
    const firstOpen = missing.findIndex(({ length }) => {
      if (length > bytesRead) return true;
      bytesRead -= length;
      return false;
    });
    missing = firstOpen < 0 ? [] : missing.slice(firstOpen);
    if (missing.length > 0) missing[0] = missing[0].subarray(bytesRead);
  }
}

/**
 * Writes `chunks` to `path` so that a reader sees the old file or the whole new one, never a part: a temporary file in
 * the same folder, fsync, rename. When anything fails the temporary file is removed and the old file is as it was.
 */
export async function writeFileAtomic(path: string, chunks: Iterable<Uint8Array>): Promise<void> {
  const folder = dirname(path);
  await removeAbandoned(folder);
  const temporary = join(folder, `.seresnet-${randomBytes(8).toString("hex")}.tmp`);
  const file = await open(temporary, "wx");
  try {
    try {
      for (const chunk of chunks) await writeAll(file, chunk);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await syncFolder(folder);
}

/** Temporary files of processes that were killed: nobody has written to them for an hour. */
async function removeAbandoned(folder: string): Promise<void> {
  const names = await readdir(folder).catch(() => []);
  for (const name of names.filter((one) => /^\.seresnet-[0-9a-f]{16}\.tmp$/.test(one))) {
    const left = join(folder, name);
    const touched = (await stat(left).catch(() => undefined))?.mtimeMs ?? Number.POSITIVE_INFINITY;
    if (Date.now() - touched > 3_600_000) await rm(left, { force: true });
  }
}

async function writeAll(file: FileHandle, chunk: Uint8Array): Promise<void> {
  let at = 0;
  while (at < chunk.length) at += (await file.write(chunk, at, Math.min(chunk.length - at, 2 ** 30))).bytesWritten;
}

/** Makes the rename itself durable. Not every file system can; the file is complete either way. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r").catch(() => undefined);
  await handle?.sync().catch(() => undefined);
  await handle?.close();
}
