import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus } from "node:os";
import { join, relative } from "node:path";
import { type DeviceInfo, listDevices } from "../lib/index.js";

/** One benchmark: what it measures, in one line, and how. */
export interface Bench {
  readonly title: string;
  /** `args` are the words after its name on the command line. */
  run(args?: readonly string[]): Promise<Report>;
}

export interface Report {
  /** Of the results file, where it is not the benchmark's. */
  readonly name?: string;
  /** Of the results file, where it is not bench/results. */
  readonly folder?: string;
  /** For people. */
  readonly table: string;
  /** The same with images, as an HTML file of its own. */
  readonly page?: string;
  /** What went wrong, one sentence each: exit code 1. */
  readonly failures?: readonly string[];
  /** For programs: what goes into the results file. */
  readonly figures: Readonly<Record<string, unknown>>;
}

/** Why a benchmark cannot be run here, and what to install: exit code 3. */
export class NotHere extends Error {}

/** A device that works here. Throws NotHere, with what to install, where it does not. */
export function usableDevice(name: string): DeviceInfo {
  const devices = listDevices().filter((candidate) => candidate.name === name);
  const usable = devices.find((device) => device.usable);
  if (usable) return usable;
  const fix = devices[0]?.fix ? ` (try: ${devices[0].fix})` : "";
  throw new NotHere(
    `The benchmark on ${name} was not run: ${devices[0]?.reason ?? "this build has no such device"}${fix}`,
  );
}

/** A word of the command line that must be one of those known. */
export function oneOf(name: string, word: string, known: readonly string[]): string {
  if (!known.includes(word)) throw new Error(`bench: expected ${name} ${known.join(", ")}, got ${word}`);
  return word;
}

/** The checkout, seen from the compiled file. */
export const root = join(__dirname, "../..");

/** Writes NAME.json into bench/results: the figures, and where, when and of what they were taken; and NAME.html beside it. Returns their paths in the checkout. */
export function save(
  name: string,
  { figures, page, folder = join(root, "bench/results") }: Omit<Report, "table">,
): string[] {
  mkdirSync(folder, { recursive: true });
  const file = join(folder, `${name}.json`);
  const cpu = cpus()[0]?.model.trim() ?? "unknown";
  const machine = { cpu, cores: availableParallelism(), vectors: vectorExtensions(), node: process.version };
  const result = { bench: name, date: new Date().toISOString(), commit: commit(), machine, ...figures };
  writeFileSync(file, `${JSON.stringify(result, undefined, 2)}\n`);
  if (page === undefined) return [relative(root, file)];
  const report = join(folder, `${name}.html`);
  writeFileSync(report, page);
  return [relative(root, file), relative(root, report)];
}

/** The vector instructions of this CPU, where the system lists them. */
function vectorExtensions(): string[] {
  try {
    const flags = /^flags\s*:(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1].split(" ") ?? [];
    return flags.filter((flag) => /^(avx|fma|amx)/.test(flag));
  } catch {
    return []; // no Linux
  }
}

/** SERESNET_COMMIT, where there is no git. */
function commit(): string {
  if (process.env.SERESNET_COMMIT) return process.env.SERESNET_COMMIT;
  const git = (...args: string[]) => execFileSync("git", args, { cwd: root, encoding: "utf8", stdio: "pipe" }).trim();
  try {
    const changed = git("status", "--porcelain", "--untracked-files=no", "--", "lib", "models", "native", "bench/*.ts");
    return git("rev-parse", "--short", "HEAD") + (changed ? " with changes" : "");
  } catch {
    return "unknown";
  }
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Milliseconds until `work` is done. */
export async function milliseconds(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

/** To so many significant digits, as a number: results files are read by people too. */
export function digits(value: number, count = 4): number {
  return Number(value.toPrecision(count));
}
