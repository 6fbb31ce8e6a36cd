import { readFileSync, rmSync } from "node:fs";
import { realpath, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { ArgumentError, expected } from "../errors.js";
import { readRegularFile, reason } from "../files.js";
import { withFileLock } from "./hub/file_lock.js";
import { isObject } from "./json.js";

/** Whose a lock is. Process ids are used again, so it is also said when the process began, where the system tells. */
interface Holder {
  readonly pid: number;
  readonly host: string;
  readonly began: string | undefined;
}

const name = ".seresnet.lock";
const mostBytes = 10_000;
const held = new Set<string>();

/**
 * Makes a folder this call's own until the function returned is called, or the process ends. A lock of a process that is
 * gone is taken over.
 * @throws ArgumentError where another process, or another call in this one, has the folder, naming its process id, and where
 *   nothing can be written there
 */
export async function lockFolder(folder: string): Promise<() => void> {
  const path = join(await realpath(folder).catch(() => folder), name);
  const mine: Holder = { pid: process.pid, host: hostname(), began: beginningOf(process.pid) };
  try {
    // one at a time looks whose lock it is and writes its own
    await withFileLock(`${path}.taking`, async () => {
      const other = await readHolder(path);
      if (other !== undefined && isAlive(other, path)) {
        const where = other.host === mine.host ? "" : ` on ${other.host} (if it is gone, remove ${path})`;
        throw new ArgumentError(
          expected(folder, "a folder that no other run writes into", `one that process ${other.pid}${where} does`),
        );
      }
      await writeFile(path, JSON.stringify(mine));
      held.add(path);
    });
  } catch (error) {
    if (error instanceof ArgumentError) throw error;
    throw new ArgumentError(expected(folder, "a folder to write into", reason(error)), { cause: error });
  }
  let released = false;
  const release = () => {
    if (released) return;
    released = true;
    process.off("exit", release);
    held.delete(path);
    rmSync(path, { force: true });
  };
  process.on("exit", release);
  return release;
}

/** What is no lock of ours, such as a file that a full disk has cut, is nobody's. */
async function readHolder(path: string): Promise<Holder | undefined> {
  const bytes = await readRegularFile(path, mostBytes).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return new Uint8Array();
    throw error;
  });
  try {
    const holder: unknown = JSON.parse(Buffer.from(bytes).toString());
    return isObject(holder) && Number.isSafeInteger(holder.pid) ? (holder as unknown as Holder) : undefined;
  } catch {
    return undefined;
  }
}

function isAlive({ pid, host, began }: Holder, path: string): boolean {
  if (host !== hostname()) return true; // nobody here can tell
  if (pid === process.pid) return held.has(path);
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false; // others mean that it is another user's
  }
  return began === undefined || beginningOf(pid) === began;
}

/** When a process began, in the system's own ticks; undefined where /proc does not tell. */
function beginningOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
  } catch {
    return undefined;
  }
}
