import { existsSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { ArgumentError, expected, listed } from "../errors.js";
import { reason } from "../files.js";
import { lockFolder } from "../io/run_lock.js";

/** Files of a run. */
export function filesIn(folder: string) {
  const [checkpoint, resume, metrics, report] = [
    "model.safetensors",
    "resume.safetensors",
    "metrics.jsonl",
    "report.html",
  ];
  return {
    checkpoint: join(folder, checkpoint),
    resume: join(folder, resume),
    metrics: join(folder, metrics),
    report: join(folder, report),
  };
}

export type RunFiles = ReturnType<typeof filesIn>;

/** Makes a folder where there is none, and it this run's own until the function returned is called. Throws ArgumentError. */
export async function takeFolder(out: string): Promise<() => void> {
  await mkdir(out, { recursive: true }).catch((error: unknown) => {
    throw new ArgumentError(expected(out, "a folder to write into", reason(error)), { cause: error });
  });
  return lockFolder(out);
}

/** A run that is there is not lost without a word: refuses, or removes its files where that was asked for. */
export async function makeRoom(out: string, overwrite: boolean): Promise<void> {
  const files = Object.values(filesIn(out));
  const there = files.filter((file) => existsSync(file));
  if (there.length === 0) return;
  if (!overwrite)
    throw new ArgumentError(
      expected(
        out,
        "a folder without a run (--resume goes on with the one there, --overwrite begins anew)",
        listed(there.map((file) => basename(file))),
      ),
    );
  for (const file of there) await rm(file, { force: true });
}
