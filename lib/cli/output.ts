import { SingleBar } from "cli-progress";
import pc from "picocolors";
import { SeresnetError } from "../errors.js";
import type { DownloadProgress } from "../io/hub/options.js";

/** Colours where a person reads stdout: no pipe, file or CI log gets colour codes unless FORCE_COLOR asks; NO_COLOR rules them out. */
export const colours = pc.createColors(pc.isColorSupported && Boolean(process.stdout.isTTY || process.env.FORCE_COLOR));

/** Writes a part of the answer: stdout carries nothing else. */
export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** Writes the whole answer of a `--json` run. */
export function printJson(value: unknown): void {
  print(JSON.stringify(value, null, 2).replace(/(?!\n)\p{Cc}/gu, escaped));
}

/**
 * Text from a file or a caller as a terminal may be shown it: control characters, which could move its cursor, change its
 * colours or its title, are written as JSON writes them.
 */
export function harmless(text: string): string {
  return text.replace(/\p{Cc}/gu, escaped);
}

function escaped(control: string): string {
  return `\\u${control.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

/** One line on stderr, whatever line breaks and control characters the message has; `colour` is put on all of it. */
export function warn(message: string, colour: (text: string) => string = String): void {
  process.stderr.write(`seresnet: ${colour(harmless(message.replace(/\s*\n\s*/g, " ")))}\n`);
}

const loud = pc.createColors(pc.isColorSupported && Boolean(process.stderr.isTTY || process.env.FORCE_COLOR));

/** One line on stderr that is hard to miss on a terminal. */
export function shout(message: string): void {
  warn(message, (text) => loud.bold(loud.yellow(text)));
}

/** Warnings of the process look like ours: one line each, without Node's advice on how to trace them. */
export function tellOfWarnings(): void {
  process.removeAllListeners("warning");
  process.on("warning", ({ name, message }) => shout(name === "SeresnetWarning" ? message : `${name}: ${message}`));
}

/** Tells of a failure in one line, with the stack when SERESNET_DEBUG=1 asks for it or the error is not one of ours. */
export function reportError(error: unknown): void {
  const { message, stack } = error instanceof Error ? error : new Error(String(error));
  const isOurs = error instanceof SeresnetError;
  warn(isOurs ? message : `unexpected error: ${message} (SERESNET_DEBUG=1 shows where)`);
  if (process.env.SERESNET_DEBUG === "1") process.stderr.write(`${stack}\n`);
}

/** A reader that left, such as `| head`, is no error: the program ends quietly. */
export function endQuietlyWithoutReader(): void {
  for (const stream of [process.stdout, process.stderr])
    stream.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code !== "EPIPE" && stream === process.stdout) {
        warn(`stdout: ${error.message}`);
        process.exit(1);
      }
      process.exit();
    });
}

/**
 * Runs `work` with a progress bar on stderr where a person watches it. `work` calls `advance` with the total done so far.
 *
 * @param prints whether `work` writes to stdout as it goes
 */
export async function withProgress<T>(
  label: string,
  total: number,
  work: (advance: (done: number) => void) => Promise<T>,
  prints = false,
): Promise<T> {
  // a bar and what goes to stdout would write over each other on one terminal
  if (!process.stderr.isTTY || (prints && process.stdout.isTTY) || total < 2) return work(() => {});
  const bar = new SingleBar({
    format: `${label} {bar} {value}/{total} | {eta_formatted} left`,
    stream: process.stderr,
    clearOnComplete: true,
    hideCursor: true,
  });
  bar.start(total, 0);
  try {
    return await work((done) => bar.update(done));
  } finally {
    bar.stop();
  }
}

/** Runs `work` with a bar on stderr for each file it downloads, where a person watches. */
export async function withDownloadBar<T>(
  work: (onProgress: (progress: DownloadProgress) => void) => Promise<T>,
): Promise<T> {
  if (!process.stderr.isTTY) return work(() => {});
  const mib = (bytes: number) => Math.round(bytes / 2 ** 20);
  let bar: SingleBar | undefined;
  let current: string | undefined;
  try {
    return await work(({ file, received, total }) => {
      if (file !== current) {
        bar?.stop();
        current = file;
        bar = new SingleBar({
          format: `${file} {bar} {value}/{total} MiB | {eta_formatted} left`,
          stream: process.stderr,
          clearOnComplete: true,
          hideCursor: true,
        });
        bar.start(mib(total), mib(received));
      }
      bar?.update(mib(received));
    });
  } finally {
    bar?.stop();
  }
}

/** A share as people read it: `93.2 %`. */
export function percent(share: number, digits = 1): string {
  return `${(share * 100).toFixed(digits)} %`;
}
