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
import { nativeVersions } from "../lib/devices/native/addon.js";
import { createModel, saveSafetensors } from "../lib/index.js";
import { type Bench, digits, median, oneOf, root, save, usableDevice } from "./report.js";
import type { Steps, TrainingJob } from "./training_runner.js";
import { noise, trainedLooking } from "./weights.js";

interface Case {
  readonly model: string;
  readonly options: object;
  readonly shape: readonly number[];
  readonly classes: number;
}

/** What is measured where: on the host, kernels and all, to see that the benchmark of a GPU works. */
const settings = {
  cpu: {
    cases: [
      { model: "seresnet14_cifar", options: { numClasses: 10, inChannels: 1 }, shape: [128, 1, 28, 28], classes: 10 },
      { model: "seresnet50", options: {}, shape: [8, 3, 224, 224], classes: 1000 },
    ],
    dtypes: ["float32"],
    peers: ["eager"],
    turn: 1000,
  },
  cuda: {
    cases: [
      { model: "seresnet50", options: {}, shape: [128, 3, 224, 224], classes: 1000 },
      { model: "resnet50", options: {}, shape: [128, 3, 224, 224], classes: 1000 },
      { model: "seresnet14_cifar", options: { numClasses: 10, inChannels: 1 }, shape: [512, 1, 28, 28], classes: 10 },
    ],
    dtypes: ["float16", "bfloat16", "float32"],
    peers: ["eager", "compile"],
    turn: 1000,
  },
  "cuda-sim": {
    cases: [{ model: "seresnet14_cifar", options: { numClasses: 10 }, shape: [4, 3, 9, 8], classes: 10 }],
    dtypes: ["float16", "float32"],
    peers: ["eager"],
    turn: 0,
  },
} as const satisfies Record<TrainingJob["device"], object>;

/**
 * Of the first losses, relatively: further apart, the two do not compute the same steps. Rounding grows from step to step:
 * in the third of SE-ResNet-50 PyTorch is 1 % off itself in another memory format.
 */
const tolerances: Readonly<Record<TrainingJob["dtype"], readonly number[]>> = {
  float32: [1e-4, 5e-3],
  float16: [5e-3, 2e-2],
  bfloat16: [2e-2, 5e-2],
};

/** Milliseconds of rest before a turn: spinning threads of the last process sleep by then. */
const rest = 100;

interface Measured {
  readonly runtime: string;
  readonly milliseconds: number;
  readonly imagesPerSecond: number;
  /** PyTorch's time / ours: the median of the rounds, the least and the most. */
  readonly speedup?: readonly [number, number, number];
  readonly peak?: number;
}

interface Result {
  readonly model: string;
  readonly dtype: string;
  readonly batch: number;
  readonly rows: readonly Measured[];
}

/** A process that makes steps when it is told to, by lines of JSON. */
class Trainer {
  readonly times: number[] = [];
  peak?: number;
  steps = 1;
  note = "";
  readonly #process: ChildProcessByStdio<Writable, Readable, Readable>;
  #answer?: (line: string) => void;
  #fail?: (error: Error) => void;
  #words = "";

  private constructor(
    readonly name: string,
    /** Seconds that an answer may take. */
    readonly patience: number,
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
  static async start(name: string, patience: number, command: string, ...args: string[]): Promise<Trainer> {
    const trainer = new Trainer(name, patience, command, args);
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
    for (const stream of [this.#process.stdin, this.#process.stdout, this.#process.stderr]) stream.destroy();
  }

  async #reply(): Promise<string> {
    let timer: NodeJS.Timeout | undefined;
    try {
      return await new Promise((resolve, reject) => {
        this.#answer = resolve;
        this.#fail = reject;
        const silent = new Error(`${this.name}: no answer in ${this.patience} s`);
        timer = setTimeout(() => reject(silent), 1e3 * this.patience);
      });
    } finally {
      clearTimeout(timer);
    }
  }
}

/** The network's weights and a batch, as files that both read. */
async function prepare({ model, options, shape, classes }: Case, folder: string) {
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

class Disagreement extends Error {}

/** The first losses; and how many steps a turn takes is settled. */
async function begin(trainer: Trainer, job: TrainingJob, turn: number): Promise<readonly number[]> {
  const { losses } = await trainer.ask(tolerances[job.dtype].length);
  const { times } = await trainer.ask(2);
  trainer.steps = Math.max(1, Math.round(turn / times[1]));
  return losses;
}

function agree({ model, dtype }: TrainingJob, ours: readonly number[], theirs: readonly number[]): void {
  for (const [i, tolerance] of tolerances[dtype].entries())
    if (!(Math.abs(theirs[i] - ours[i]) <= tolerance * Math.abs(ours[i])))
      throw new Disagreement(
        `the losses of step ${i + 1} of ${model} in ${dtype} disagree: ${ours[i]} and ${theirs[i]}`,
      );
}

interface Turns {
  readonly python: string;
  readonly peers: readonly string[];
  readonly rounds: number;
  /** Milliseconds of work in each. */
  readonly turn: number;
  /** Seconds that every answer may take. */
  readonly patience: number;
}

async function compare(job: TrainingJob, { python, peers, rounds, turn, patience }: Turns): Promise<Measured[]> {
  const trainers = [
    await Trainer.start(
      "seresnet",
      patience,
      process.execPath,
      join(__dirname, "training_runner.js"),
      JSON.stringify(job),
    ),
  ];
  try {
    const script = join(root, "bench/peers/torch_training.py");
    for (const peer of peers)
      try {
        trainers.push(await Trainer.start(`PyTorch ${peer}`, patience, python, script, peer, JSON.stringify(job)));
      } catch (error) {
        console.error(`bench: LEFT OUT ${(error as Error).message}`);
      }
    const ours = await begin(trainers[0], job, turn);
    for (const peer of trainers.slice(1))
      try {
        agree(job, ours, await begin(peer, job, turn));
      } catch (error) {
        if (error instanceof Disagreement) throw error;
        console.error(`bench: LEFT OUT ${(error as Error).message}`);
        trainers.splice(trainers.indexOf(peer), 1);
        await peer.stop();
      }
    for (let round = 0; round < rounds; round++)
      for (const trainer of round % 2 === 0 ? trainers : [...trainers].reverse()) await trainer.takeTurn();
    return trainers.map((trainer) => {
      const milliseconds = median(trainer.times);
      const ratios = trainer.times.map((time, round) => time / trainers[0].times[round]);
      const speedup = [median(ratios), Math.min(...ratios), Math.max(...ratios)].map((ratio) => digits(ratio, 3));
      return {
        runtime: trainer.note || trainer.name,
        milliseconds: digits(milliseconds),
        imagesPerSecond: digits((job.shape[0] * 1000) / milliseconds),
        ...(trainer !== trainers[0] && { speedup: speedup as [number, number, number] }),
        ...(trainer.peak !== undefined && { peak: digits(trainer.peak, 3) }),
      };
    });
  } finally {
    await Promise.all(trainers.map((trainer) => trainer.stop()));
  }
}

/** Steps of SGD: forward, backward and update, ours and PyTorch's in alternating processes. */
export const training: Bench = {
  title:
    "SGD steps beside PyTorch's [--device cpu|cuda] [--model …] [--dtype …] [--peers eager,compile|none] [--python PATH] [--quick]",
  async run(args = []) {
    const text = { type: "string" } as const;
    const options = {
      device: { ...text, default: "cpu" },
      dtype: text,
      peers: text,
      results: text,
      python: { ...text, default: process.env.SERESNET_PYTHON || "python3" },
      model: text,
      patience: { ...text, default: "600" },
      quick: { type: "boolean", default: false },
    } as const;
    const { values } = parseArgs({ args: [...args], options });
    const device = oneOf("--device", values.device, Object.keys(settings)) as TrainingJob["device"];
    const { cases, dtypes, turn, ...setting } = settings[device];
    const list = (name: "dtype" | "peers" | "model", known: readonly string[]) =>
      values[name]?.split(",").map((word) => oneOf(`--${name}`, word, known)) ?? known;
    const peers = values.peers === "none" ? [] : list("peers", setting.peers);
    const models = list("model", [...new Set(cases.map(({ model }) => model))]);
    const patience = Number(values.patience);
    if (!(patience > 0))
      throw new Error(`bench: expected --patience to be a number of seconds, got ${values.patience}`);
    const turns = { python: values.python, peers, rounds: values.quick ? 3 : 9, turn, patience };
    const { rounds } = turns;
    const found = usableDevice(device);
    const folder = mkdtempSync(join(tmpdir(), "seresnet-bench-"));
    const results: Result[] = [];
    const failures: string[] = [];
    const threads = availableParallelism();
    const report = () => ({
      name: device === "cpu" ? "training" : `training-${device}`,
      folder: values.results,
      table: `${tableOf(results)}\n${threads} threads, ${rounds} rounds in alternating processes; speed-up: above 1 where ours is faster`,
      figures: { device: found, threads, rounds, versions: nativeVersions(), results, failures },
      failures,
    });
    try {
      for (const dtype of list("dtype", dtypes) as TrainingJob["dtype"][])
        for (const item of cases.filter(({ model }) => models.includes(model))) {
          process.stderr.write(`${item.model}, ${dtype}, batch ${item.shape[0]}\n`);
          const job = { ...(await prepare(item, folder)), device, dtype };
          const rows = await compare(job, turns).catch((error: Error) => void failures.push(error.message));
          if (rows) results.push({ model: item.model, dtype, batch: item.shape[0], rows });
          save(report().name, report()); // what is there already, should there be no time for the rest
        }
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
    return report();
  },
};

function tableOf(results: readonly Result[]): string {
  const table = new Table({
    head: ["", "", "batch", "", "ms a step", "images a second", "speed-up", "of the rounds", "MB"],
    style: { head: [], border: [] },
  });
  for (const { model, dtype, batch, rows } of results)
    for (const [i, { runtime, milliseconds, imagesPerSecond, speedup, peak }] of rows.entries()) {
      const [middle, least, most] = speedup ?? ["", "", ""];
      const range = speedup ? `${least} … ${most}` : "";
      table.push([
        ...(i === 0 ? [model, dtype, batch] : ["", "", ""]),
        runtime,
        milliseconds,
        imagesPerSecond,
        middle,
        range,
        peak ?? "",
      ]);
    }
  return table.toString();
}
