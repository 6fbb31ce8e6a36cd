import { mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { parseArgs } from "node:util";
import Table from "cli-table3";
import { nativeVersions } from "../lib/devices/native/addon.js";
import { createModel, exportOnnx, loadWeights, saveSafetensors } from "../lib/index.js";
import { defaultWeights } from "../lib/paths.js";
import { Child } from "./child.js";
import { peerVersion } from "./peers.js";
import { type Bench, digits, median } from "./report.js";
import type { Answer, Job, RuntimeName } from "./runner.js";
import { largestDifference, trainedLooking } from "./weights.js";

interface Case {
  readonly model: string;
  readonly options?: { readonly numClasses: number; readonly inChannels: number };
  readonly image: readonly [number, number, number];
  /** Weights to load; drawn anew, with batch norms as after a training, where there are none. */
  readonly weights?: string;
}

const cases: readonly Case[] = [
  { model: "seresnet50", image: [3, 224, 224] },
  { model: "resnet50", image: [3, 224, 224] },
  { model: "resnet18", image: [3, 224, 224] },
  {
    model: "seresnet14_cifar",
    options: { numClasses: 10, inChannels: 1 },
    image: [1, 28, 28],
    weights: defaultWeights,
  },
];
const batches = [1, 8];

interface Options {
  /** A short run: fewer rounds, for a first look. */
  readonly quick: boolean;
  /** Measure beside a busy JavaScript thread too. */
  readonly busy: boolean;
  /** Measure this network alone. */
  readonly model?: string;
  /** Our arithmetic; the others compute in float32. */
  readonly dtype: "float32" | "bfloat16";
}

function parse(args: readonly string[]): Options {
  const flag = { type: "boolean", default: false } as const;
  const options = {
    quick: flag,
    busy: flag,
    model: { type: "string" },
    dtype: { type: "string", default: "float32" },
  } as const;
  const { values } = parseArgs({ args: [...args], options });
  const { dtype } = values;
  if (dtype !== "float32" && dtype !== "bfloat16")
    throw new Error(`bench: expected --dtype float32 or bfloat16, got ${dtype}`);
  const names = cases.map(({ model }) => model);
  if (values.model !== undefined && !names.includes(values.model))
    throw new Error(`bench: expected --model ${names.join(", ")}, got ${values.model}`);
  return { ...values, dtype };
}

/** Ours first: the others are compared with it. */
const runtimes: readonly RuntimeName[] = ["seresnet", "onnxruntime-node", "tfjs wasm"];

/** Of the largest logit. Answers further apart than this are not answers to the same question. */
const tolerance = { float32: 1e-4, bfloat16: 5e-2 };

/** Rounds that tfjs takes part in: it is so much slower that more would say nothing new. */
const tfjsRounds = 3;

/** Milliseconds of work in a turn, and of rest before it: spinning threads of the last process sleep by then. */
const turn = 300;
const rest = 50;

/** Milliseconds of work while the event loop is watched: some thousand looks, of which the 99th percentile means something. */
const watch = 4000;

interface Measured {
  readonly runtime: RuntimeName;
  /** Median of the turns' medians, and the fastest call. */
  readonly milliseconds: number;
  readonly fastest: number;
  /** Ours / this one's, below 1 where ours is faster: the median over the rounds, and the extremes. */
  readonly ratio: number;
  readonly ratios: readonly [least: number, most: number];
  /** By how many milliseconds the event loop was late at most in 99 of 100 looks while it computed, and the worst. */
  readonly loopDelay: Answer["delay"];
  /** The median beside a busy JavaScript thread / the median without. */
  readonly slowdown?: number;
  /** Milliseconds from the start of the process until the network was loaded. */
  readonly ready: number;
  /** The first call after it / the tenth. */
  readonly firstToTenth: number;
  /** Megabytes, of a process that loads and runs once. */
  readonly peak: number;
  /** Largest difference of the logits from ours / the largest logit. */
  readonly difference: number;
  readonly note: string;
}

/** A runtime at work on a case, and what is known of it so far. */
interface Contender {
  readonly child: Child;
  readonly first: Answer;
  /** The tenth call, or the second of who is very slow. */
  readonly later: number;
  /** Calls in a turn, and before them calls that are not counted, because the others' turns have emptied the caches. */
  readonly calls: number;
  readonly uncounted: number;
  readonly times: number[];
  readonly busyTimes: number[];
  fastest: number;
}

/** Ours, onnxruntime-node and tfjs in alternating processes. */
export const cpu: Bench = {
  title:
    "the cpu device, onnxruntime-node and tfjs wasm, on four networks [--model NAME] [--quick] [--busy] [--dtype bfloat16]",
  async run(args = []) {
    const options = parse(args);
    const chosen = cases.filter(({ model }) => model === (options.model ?? model));
    const folder = mkdtempSync(join(tmpdir(), "seresnet-bench-"));
    const threads = availableParallelism();
    const results: { model: string; batch: number; rows: Measured[] }[] = [];
    try {
      for (const item of chosen) {
        const files = await prepare(item, folder);
        for (const batch of batches) {
          const { model, options: modelOptions = {}, image } = item;
          const shape = [batch, ...image];
          const job = { model, options: modelOptions, ...files, shape, threads, dtype: options.dtype };
          process.stderr.write(`${model}, batch ${batch}\n`);
          results.push({ model, batch, rows: await compare(job, options) });
        }
      }
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
    const versions = Object.fromEntries(
      ["onnxruntime-node", "@tensorflow/tfjs-backend-wasm"].map((name) => [name, versionOf(name)]),
    );
    const rounds = roundsOf(options);
    const note = `${threads} threads, ${rounds} rounds in alternating processes; ratio: ours / theirs, below 1 where ours is faster; MB and ms to ready: a process of its own`;
    return {
      name: options.dtype === "float32" ? "cpu" : `cpu_${options.dtype}`,
      table: `${tableOf(results)}\n${note}`,
      figures: {
        threads,
        rounds,
        quick: options.quick,
        dtype: options.dtype,
        versions: { ...nativeVersions(), ...versions },
        results,
      },
    };
  },
};

const roundsOf = ({ quick }: Options) => (quick ? 3 : 15);

function versionOf(name: string): string {
  try {
    return peerVersion(name);
  } catch {
    return "missing";
  }
}

/** The same weights as a checkpoint and as an ONNX file. */
async function prepare({ model, options, image, weights }: Case, folder: string) {
  const network = createModel(model, options);
  if (weights) network.loadStateDict(await loadWeights(weights), { strict: false });
  else trainedLooking(network);
  const files = { weights: join(folder, `${model}.safetensors`), onnx: join(folder, `${model}.onnx`) };
  await saveSafetensors(files.weights, network.stateDict());
  await exportOnnx(network, files.onnx, { inputShape: [1, ...image] });
  return files;
}

async function compare(job: Omit<Job, "runtime">, options: Options): Promise<Measured[]> {
  const contenders: Contender[] = [];
  try {
    for (const runtime of runtimes) {
      try {
        contenders.push(await enter({ ...job, runtime }));
      } catch (error) {
        if (runtime === runtimes[0]) throw error;
        console.error(`bench: LEFT OUT ${runtime}: ${(error as Error).message}`);
      }
    }
    const [ours] = contenders;
    const largest = ours.first.logits.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const differences = contenders.map(({ first }) => largestDifference(first.logits, ours.first.logits) / largest);
    for (const [i, { child }] of contenders.entries())
      if (!(differences[i] <= tolerance[job.dtype]))
        throw new Error(
          `bench: ${child.job.runtime} and seresnet disagree on ${job.model} by ${differences[i]} of the largest logit`,
        );

    for (let round = 0; round < roundsOf(options); round++) {
      const here = contenders.filter(({ child }) => child.job.runtime !== "tfjs wasm" || round < tfjsRounds);
      const order = round % 2 === 0 ? here : here.reverse();
      for (const contender of order) contender.times.push(await takeTurn(contender, false));
      if (options.busy) for (const contender of order) contender.busyTimes.push(await takeTurn(contender, true));
    }
    const delays: Answer["delay"][] = [];
    for (const { child, calls } of contenders) {
      await pause(rest);
      const { delay } = await child.ask({ calls: Math.round((calls * watch) / turn), watched: true });
      delays.push(delay && { p99: digits(delay.p99, 3), worst: digits(delay.worst, 3) });
    }
    return contenders.map((contender, i) => ({
      ...measured(contender, ours, differences[i]),
      loopDelay: delays[i],
    }));
  } finally {
    await Promise.all(contenders.map(({ child }) => child.stop()));
  }
}

/** Starts a runtime: its first calls, while the others rest, and how many make a turn. */
async function enter(job: Job): Promise<Contender> {
  if (job.runtime !== "seresnet") peerVersion(job.runtime === "tfjs wasm" ? "@tensorflow/tfjs" : job.runtime);
  const child = await Child.start(job);
  try {
    const first = await child.ask({ calls: 1 });
    const { times } = await child.ask({ calls: first.times[0] < 500 ? 9 : 1 });
    const usual = median(times);
    const calls = Math.min(200, Math.max(1, Math.round(turn / usual)));
    const uncounted = usual < turn ? 1 : 0; // a slow call fills the caches itself
    return {
      child,
      first,
      later: times[times.length - 1],
      calls,
      uncounted,
      times: [],
      busyTimes: [],
      fastest: Number.POSITIVE_INFINITY,
    };
  } catch (error) {
    await child.stop();
    throw error;
  }
}

/** The median of a turn's calls. */
async function takeTurn(contender: Contender, busy: boolean): Promise<number> {
  const { child, calls, uncounted } = contender;
  await pause(rest);
  const { times } = await child.ask({ calls: calls + uncounted, busy });
  const counted = times.slice(uncounted);
  if (!busy) contender.fastest = Math.min(contender.fastest, ...counted);
  return median(counted);
}

function measured(
  { child, first, later, times, busyTimes, fastest }: Contender,
  ours: Contender,
  difference: number,
): Omit<Measured, "loopDelay"> {
  const ratios = times.map((time, round) => ours.times[round] / time);
  const slowdown =
    busyTimes.length > 0 ? { slowdown: digits(median(busyTimes.map((time, i) => time / times[i])), 3) } : {};
  return {
    runtime: child.job.runtime,
    milliseconds: digits(median(times)),
    fastest: digits(fastest),
    ratio: digits(median(ratios), 3),
    ratios: [digits(Math.min(...ratios), 3), digits(Math.max(...ratios), 3)],
    ...slowdown,
    ready: digits(child.started.ready, 3),
    firstToTenth: digits(first.times[0] / later, 3),
    peak: digits(first.peak, 3),
    difference: digits(difference, 2),
    note: child.started.note,
  };
}

function tableOf(results: readonly { model: string; batch: number; rows: readonly Measured[] }[]): string {
  const table = new Table({
    head: [
      "",
      "batch",
      "",
      "ms",
      "fastest",
      "ratio",
      "of the rounds",
      "loop p99 ms",
      "beside a busy thread",
      "ms to ready",
      "1st / 10th",
      "MB",
      "differs",
    ],
    style: { head: [], border: [], compact: true },
  });
  for (const { model, batch, rows } of results)
    for (const [i, row] of rows.entries()) {
      const isOurs = i === 0;
      table.push([
        isOurs ? model : "",
        isOurs ? batch : "",
        row.runtime,
        row.milliseconds,
        row.fastest,
        isOurs ? "" : row.ratio,
        isOurs ? "" : `${row.ratios[0]} … ${row.ratios[1]}`,
        row.loopDelay?.p99 ?? "",
        row.slowdown === undefined ? "" : `x ${row.slowdown}`,
        row.ready,
        row.firstToTenth,
        row.peak,
        isOurs ? "" : row.difference,
      ]);
    }
  return table.toString();
}
