import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { setTimeout as pause } from "node:timers/promises";
import { parseArgs } from "node:util";
import Table from "cli-table3";
import { nativeVersions } from "../lib/executors/native.js";
import { createModel, saveSafetensors } from "../lib/index.js";
import { type Bench, digits, median, root } from "./report.js";
import type { Steps, TrainingJob } from "./training_runner.js";
import { noise, trainedLooking } from "./weights.js";

interface Case {
  readonly model: string;
  readonly options: object;
  readonly shape: readonly number[];
  readonly classes: number;
}

const cases: readonly Case[] = [
  { model: "seresnet14_cifar", options: { numClasses: 10, inChannels: 1 }, shape: [128, 1, 28, 28], classes: 10 },
  { model: "seresnet50", options: {}, shape: [8, 3, 224, 224], classes: 1000 },
];

/**
 * Of the first losses, relatively: further apart, the two do not compute the same steps. Rounding grows from step to step:
 * in the third of SE-ResNet-50 PyTorch is 1 % off itself in another memory format.
 */
const tolerances = [1e-4, 5e-3];

/** Milliseconds of work in a turn, and of rest before it: spinning threads of the last process sleep by then. */
const turn = 1000;
const rest = 100;

interface Measured {
  readonly runtime: string;
  readonly milliseconds: number;
  readonly imagesPerSecond: number;
  /** PyTorch's time / ours: the median of the rounds, the least and the most. */
  readonly speedup?: readonly [number, number, number];
  readonly peak: number;
}

/** A process that makes steps when it is told to, by lines of JSON. */
class Trainer {
  readonly times: number[] = [];
  peak = 0;
  steps = 1;
  note = "";
  readonly #process: ChildProcessByStdio<Writable, Readable, Readable>;
  #answer?: (line: string) => void;
  #fail?: (error: Error) => void;
  #words = "";

  private constructor(
    readonly name: string,
    command: string,
    args: readonly string[],
  ) {
    this.#process = spawn(command, args, { stdio: ["pipe", "pipe", "pipe"] });
    this.#process.stdin.on("error", () => {}); // its end is told by its exit
    this.#process.stderr.on("data", (chunk: Buffer) => {
      this.#words = (this.#words + chunk.toString()).slice(-2000);
    });
    createInterface(this.#process.stdout).on("line", (line) => {
      if (line.startsWith("@")) this.#answer?.(line.slice(1));
    });
    const ended = (why: string) => {
      const last = this.#words.trim().split("\n").at(-1);
      this.#fail?.(new Error(`${name}: ${why}${last ? `: ${last}` : ""}`));
    };
    this.#process.on("error", ({ message }) => ended(`it could not be started: ${message}`));
    this.#process.on("close", (code, signal) => ended(`the process ended with ${signal ?? `code ${code}`}`));
  }

  /** Throws what the process says when it cannot start. */
  static async start(name: string, command: string, ...args: string[]): Promise<Trainer> {
    const trainer = new Trainer(name, command, args);
    try {
      const { note } = JSON.parse(await trainer.#reply()) as { note: string };
      trainer.note = note;
      return trainer;
    } catch (error) {
      await trainer.stop();
      throw error;
    }
  }

  async ask(steps: number): Promise<Steps> {
    const reply = this.#reply();
    this.#process.stdin.write(`${JSON.stringify({ steps })}\n`);
    return JSON.parse(await reply) as Steps;
  }

  /** Some steps after a rest, of which the median counts. */
  async takeTurn(): Promise<void> {
    await pause(rest);
    const { times, peak } = await this.ask(this.steps + 1);
    this.times.push(median(times.slice(1)));
    this.peak = peak;
  }

  async stop(): Promise<void> {
    const { exitCode, signalCode, pid } = this.#process;
    if (exitCode !== null || signalCode !== null || pid === undefined) return;
    this.#process.kill("SIGKILL");
    await once(this.#process, "exit");
  }

  #reply(): Promise<string> {
    return new Promise((resolve, reject) => {
      this.#answer = resolve;
      this.#fail = reject;
    });
  }
}

/** The network's weights and a batch, as files that both read. */
async function prepare({ model, options, shape, classes }: Case, folder: string): Promise<TrainingJob> {
  const weights = join(folder, `${model}.safetensors`);
  await saveSafetensors(weights, trainedLooking(createModel(model, options)).stateDict());
  const pixels = noise(
    shape.reduce((product, extent) => product * extent, 1),
    -2,
    2,
  );
  const labels = Int32Array.from(noise(shape[0], 0, classes));
  const batch = join(folder, `${model}.batch`);
  writeFileSync(batch, Buffer.concat([new Uint8Array(pixels.buffer), new Uint8Array(labels.buffer)]));
  return { model, options, weights, batch, shape, threads: availableParallelism() };
}

async function compare(job: TrainingJob, python: string, rounds: number): Promise<Measured[]> {
  const trainers = [
    await Trainer.start("seresnet", process.execPath, join(__dirname, "training_runner.js"), JSON.stringify(job)),
  ];
  try {
    try {
      const script = join(root, "bench/peers/torch_training.py");
      trainers.push(await Trainer.start("PyTorch eager", python, script, JSON.stringify(job)));
    } catch (error) {
      console.error(`bench: LEFT OUT ${(error as Error).message}`);
    }
    const first: Steps[] = [];
    for (const trainer of trainers) {
      first.push(await trainer.ask(tolerances.length));
      const { times } = await trainer.ask(2);
      trainer.steps = Math.max(1, Math.round(turn / times[1]));
    }
    for (const [i, tolerance] of tolerances.entries())
      for (const { losses } of first) {
        const loss = first[0].losses[i];
        if (!(Math.abs(losses[i] - loss) <= tolerance * Math.abs(loss)))
          throw new Error(`bench: the losses of step ${i + 1} of ${job.model} disagree: ${loss} and ${losses[i]}`);
      }
    for (let round = 0; round < rounds; round++)
      for (const trainer of round % 2 === 0 ? trainers : [...trainers].reverse()) await trainer.takeTurn();
    const [ours] = trainers;
    return trainers.map((trainer) => {
      const milliseconds = median(trainer.times);
      const ratios = trainer.times.map((time, round) => time / ours.times[round]);
      const speedup = [median(ratios), Math.min(...ratios), Math.max(...ratios)].map((ratio) => digits(ratio, 3));
      return {
        runtime: trainer.note || trainer.name,
        milliseconds: digits(milliseconds),
        imagesPerSecond: digits((job.shape[0] * 1000) / milliseconds),
        ...(trainer !== ours && { speedup: speedup as [number, number, number] }),
        peak: digits(trainer.peak, 3),
      };
    });
  } finally {
    await Promise.all(trainers.map((trainer) => trainer.stop()));
  }
}

/** Steps of SGD on the CPU: forward, backward and update, ours and PyTorch's in alternating processes. */
export const training: Bench = {
  title:
    "SGD steps of SE-ResNet-14 (28x28, batch 128) and SE-ResNet-50 (224x224, batch 8), beside PyTorch's [--python PATH] [--quick]",
  async run(args = []) {
    const options = {
      python: { type: "string", default: process.env.SERESNET_PYTHON || "python3" },
      quick: { type: "boolean", default: false },
    } as const;
    const { values } = parseArgs({ args: [...args], options });
    const rounds = values.quick ? 3 : 9;
    const folder = mkdtempSync(join(tmpdir(), "seresnet-bench-"));
    const results: { model: string; batch: number; rows: Measured[] }[] = [];
    try {
      for (const item of cases) {
        process.stderr.write(`${item.model}, batch ${item.shape[0]}\n`);
        const rows = await compare(await prepare(item, folder), values.python, rounds);
        results.push({ model: item.model, batch: item.shape[0], rows });
      }
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
    const threads = availableParallelism();
    return {
      table: `${tableOf(results)}\n${threads} threads, ${rounds} rounds in alternating processes; speed-up: above 1 where ours is faster`,
      figures: { threads, rounds, versions: nativeVersions(), results },
    };
  },
};

function tableOf(results: readonly { model: string; batch: number; rows: readonly Measured[] }[]): string {
  const table = new Table({
    head: ["", "batch", "", "ms a step", "pictures a second", "speed-up", "of the rounds", "MB"],
    style: { head: [], border: [] },
  });
  for (const { model, batch, rows } of results)
    for (const [i, { runtime, milliseconds, imagesPerSecond, speedup, peak }] of rows.entries()) {
      const [middle, least, most] = speedup ?? ["", "", ""];
      const range = speedup ? `${least} … ${most}` : "";
      table.push([
        ...(i === 0 ? [model, batch] : ["", ""]),
        runtime,
        milliseconds,
        imagesPerSecond,
        middle,
        range,
        peak,
      ]);
    }
  return table.toString();
}
