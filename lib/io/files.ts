import { randomBytes } from "node:crypto";
import { type FileHandle, open, readFile, rename, rm, stat } from "node:fs/promises";
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
  // looked at before it is opened: opening a pipe would wait for a writer
  const info = await stat(path);
  if (info.isDirectory()) throw new Error("a folder");
  if (!info.isFile()) throw new Error("something that is not a regular file");
  if (info.size > mostBytes) throw new Error(`a file of ${info.size} bytes`);
  if (info.size < 2 ** 31 - 1) return readFile(path);
  return readInPieces(path, info.size);
}

/** `readFile` stops at 2 GiB, and so does one read. */
async function readInPieces(path: string, size: number): Promise<Uint8Array> {
  const bytes = Buffer.allocUnsafeSlow(size);
  const file = await open(path, "r");
  try {
    let at = 0;
    while (at < size) {
      const { bytesRead } = await file.read(bytes, at, Math.min(size - at, 2 ** 30), at);
      if (bytesRead === 0) throw new Error(`a file that shrank to ${at} bytes while it was read`);
      at += bytesRead;
    }
  } finally {
    await file.close();
  }
  return bytes;
}

/**
 * Writes `chunks` to `path` so that a reader sees the old file or the whole new one, never a part: a temporary file in
 * the same folder, fsync, rename. When anything fails the temporary file is removed and the old file is as it was.
 */
export async function writeFileAtomic(path: string, chunks: Iterable<Uint8Array>): Promise<void> {
  const folder = dirname(path);
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
