import { randomBytes } from "node:crypto";
import { open, rename, rm, stat, utimes } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

const pollMs = 100;
const refreshMs = 2_000;
/** A lock that nobody has touched for so long belonged to a process that is gone. */
const staleMs = 15_000;

/**
 * Does `work` while the file `path` is held, which one process, and one call within it, holds at a time; the others wait.
 * Whoever holds it touches it now and then, so a process that was killed stops nobody for long.
 */
export async function withFileLock<T>(path: string, work: () => Promise<T>): Promise<T> {
  while (!(await take(path))) {
    await removeStale(path);
    await sleep(pollMs);
  }
  const touch = () => utimes(path, new Date(), new Date()).catch(() => {});
  const timer = setInterval(touch, refreshMs);
  timer.unref();
  try {
    return await work();
  } finally {
    clearInterval(timer);
    await rm(path, { force: true });
  }
}

async function take(path: string): Promise<boolean> {
  try {
    await (await open(path, "wx")).close();
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

/** Renamed before it is removed: of several that find the same stale lock, one moves it away. */
async function removeStale(path: string): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (found === undefined || Date.now() - found.mtimeMs < staleMs) return;
  const aside = `${path}.${randomBytes(4).toString("hex")}`;
  await rename(path, aside).catch(() => {});
  await rm(aside, { force: true });
}
