import { SingleBar } from "cli-progress";
import { ArgumentError, expected } from "../errors.js";
import { reason } from "../files.js";
import { isObject } from "../io/json.js";
import { appendText, readTextFile, writeTextFile } from "../io/text.js";
import type { EpochReport, StepReport } from "../train/fit_options.js";
import { percent, warn } from "./output.js";

const stepsPerLine = 20;
/** Some two million lines. */
const mostMetrics = 2 ** 28;

/** `metrics.jsonl`: one line for every epoch and every twentieth step, each with its `step`. */
export class Metrics {
  readonly #path: string;

  private constructor(path: string) {
    this.#path = path;
  }

  /**
   * Starts a file, keeping the lines of an earlier run up to `step`; what a kill cut off is dropped. An epoch of that run
   * whose line a kill has kept from being written gets it now.
   */
  static async open(path: string, step = 0, history: readonly EpochReport[] = []): Promise<Metrics> {
    const text = step > 0 ? await readMetrics(path) : "";
    const written = new Set<unknown>();
    const lines = text.split("\n").filter((line) => {
      try {
        const entry: unknown = JSON.parse(line);
        if (!isObject(entry) || !(Number(entry.step) <= step)) return false;
        if (entry.kind === "epoch") written.add(entry.epoch);
        return true;
      } catch {
        return false;
      }
    });
    for (const report of history)
      if (!written.has(report.epoch)) lines.push(JSON.stringify({ kind: "epoch", ...report }));
    await writeTextFile(path, lines.map((line) => `${line}\n`).join(""));
    return new Metrics(path);
  }

  step(step: StepReport): void {
    if (step.step % stepsPerLine === 0) this.#append({ kind: "step", ...step });
  }

  epoch(epoch: EpochReport): void {
    this.#append({ kind: "epoch", ...epoch });
  }

  #append(entry: object): void {
    appendText(this.#path, `${JSON.stringify(entry)}\n`);
  }
}

/** What an earlier run has written; it may have been removed. */
async function readMetrics(path: string): Promise<string> {
  return readTextFile(path, mostMetrics).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return "";
    throw new ArgumentError(expected(path, "a file of metrics", reason(error)), { cause: error });
  });
}

/** Progress on stderr: a bar where a person watches, a line for every epoch elsewhere. */
export class TrainingBar {
  readonly #epochs: number;
  readonly #images: number;
  #bar: SingleBar | undefined;
  #epoch = 0;
  #seen = 0;
  /** When the epoch began, its first step included. */
  #began = performance.now();
  #loss = 0;
  #accuracy = 0;

  constructor(epochs: number, imagesPerEpoch: number) {
    this.#epochs = epochs;
    this.#images = imagesPerEpoch;
  }

  step({ epoch, loss, accuracy, images, lr }: StepReport): void {
    if (epoch !== this.#epoch) {
      this.#epoch = epoch;
      this.#seen = 0;
      [this.#loss, this.#accuracy] = [loss, accuracy];
      this.#start();
    }
    this.#seen += images;
    // what people read: smooth over the last twenty steps or so
    this.#loss += (loss - this.#loss) * 0.05;
    this.#accuracy += (accuracy - this.#accuracy) * 0.05;
    const seconds = (performance.now() - this.#began) / 1000;
    this.#bar?.update(this.#seen, {
      loss: this.#loss.toFixed(3),
      accuracy: percent(this.#accuracy),
      speed: Math.round(this.#seen / Math.max(seconds, 1e-3)),
      lr: lr.toPrecision(3),
    });
  }

  epoch({
    epoch,
    loss,
    accuracy,
    validationLoss,
    validationAccuracy,
    imagesPerSecond,
    skipped,
    idle,
  }: EpochReport): void {
    const parts = [
      `epoch ${epoch}/${this.#epochs}`,
      `loss ${loss.toFixed(4)}`,
      `accuracy ${percent(accuracy, 2)}`,
      ...(validationLoss === undefined ? [] : [`validation loss ${validationLoss.toFixed(4)}`]),
      ...(validationAccuracy === undefined ? [] : [`accuracy ${percent(validationAccuracy, 2)}`]),
      `${Math.round(imagesPerSecond)} images a second`,
      `device idle ${percent(idle)}`,
      ...(skipped > 0 ? [`${skipped} skipped`] : []),
    ];
    this.#line(parts.join(" | "));
    this.#began = performance.now();
  }

  /** A complaint between the bars. */
  say(message: string): void {
    this.stop();
    warn(message);
  }

  stop(): void {
    this.#bar?.stop();
    this.#bar = undefined;
  }

  #line(text: string): void {
    this.stop();
    process.stderr.write(`${text}\n`);
  }

  #start(): void {
    this.stop();
    if (!process.stderr.isTTY) return;
    this.#bar = new SingleBar({
      format: `epoch ${this.#epoch}/${this.#epochs} {bar} loss {loss} | {accuracy} | lr {lr} | {speed}/s | {eta_formatted} left`,
      stream: process.stderr,
      clearOnComplete: true,
      hideCursor: true,
      etaBuffer: 20_000,
    });
    this.#bar.start(this.#images, 0, { loss: "", accuracy: "", speed: "", lr: "" });
  }
}
