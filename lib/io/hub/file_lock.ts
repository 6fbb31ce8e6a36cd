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
  const seen: Seen = { touched: undefined, since: 0 };
  while (!(await take(path))) {
    await removeStale(path, seen);
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

/** When whoever holds the lock touched it last, by its clock, and since when that is known, by ours. */
interface Seen {
  touched: number | undefined;
  since: number;
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
async function removeStale(path: string, seen: Seen): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (found === undefined) return;
  if (found.mtimeMs !== seen.touched) Object.assign(seen, { touched: found.mtimeMs, since: performance.now() });
  // a date may lie in the future, or be another machine's: then it tells nothing but whether it changes
  const age = Math.max(Date.now() - found.mtimeMs, performance.now() - seen.since);
  if (age < staleMs) return;
  const aside = `${path}.${randomBytes(4).toString("hex")}`;
  await rename(path, aside).catch(() => {});
  await rm(aside, { force: true });
}
