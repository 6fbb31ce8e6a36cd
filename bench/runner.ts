import { readFileSync } from "node:fs";
import { type IntervalHistogram, monitorEventLoopDelay } from "node:perf_hooks";
import { setTimeout as pause } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { compile, createModel, loadWeights, tensor } from "../lib/index.js";
import { loadPeer } from "./peers.js";
import { hostState, tfjsResNet } from "./tfjs.js";
import { noise } from "./weights.js";

/*
 * One runtime in a process of its own, so that neither its threads nor its memory touch another's: it loads a network
 * from a file and then runs it when told to.
 */

/** What a runner is started with: its only argument, as JSON. */
export interface Job {
  readonly runtime: RuntimeName;
  readonly model: string;
  readonly options: object;
  readonly weights: string;
  readonly onnx: string;
  readonly shape: readonly number[];
  readonly threads: number;
  readonly dtype: "float32" | "bfloat16";
}

/** What a runner is asked: so many calls one after the other. */
export interface Turn {
  readonly calls: number;
  /** With a busy JavaScript thread beside them. */
  readonly busy?: boolean;
  /** Watch how long the event loop is held up. */
  readonly watched?: boolean;
}

export interface Answer {
  /** Milliseconds of each call. */
  readonly times: readonly number[];
  readonly logits: Float32Array;
  /** The most memory the process has had so far, in MB. */
  readonly peak: number;
  /** 99 of 100 times the event loop was later by at most so many milliseconds, and the worst; of a watched turn. */
  readonly delay?: { readonly p99: number; readonly worst: number };
}

/** The first message of a runner. */
export interface Started {
  /** Milliseconds from the start of the process until it could be asked. */
  readonly ready: number;
  readonly note: string;
}

type Run = () => Promise<Float32Array>;
export type RuntimeName = keyof typeof runtimes;

/** What we use of onnxruntime-node. Written down here, because it is not installed when this is compiled. */
interface OnnxRuntime {
  Tensor: new (type: "float32", data: Float32Array, dims: readonly number[]) => object;
  InferenceSession: { create(path: string, options: object): Promise<OnnxSession> };
}
interface OnnxSession {
  run(feeds: Record<string, object>): Promise<Record<string, { data: Float32Array }>>;
}

const pixels = ({ shape }: Job) =>
  noise(
    shape.reduce((product, extent) => product * extent, 1),
    -2,
    2,
  );

const runtimes = {
  async seresnet(job: Job): Promise<[Run, string]> {
    const model = createModel(job.model, job.options);
    model.loadStateDict(await loadWeights(job.weights));
    const { threads, dtype, shape } = job;
    const compiled = await compile(model, { device: "cpu", threads, dtype, inputShape: shape });
    const x = tensor(pixels(job), shape);
    return [async () => (await (await compiled.run(x)).data()) as Float32Array, compiled.device.why];
  },

  async "onnxruntime-node"(job: Job): Promise<[Run, string]> {
    const ort = loadPeer<OnnxRuntime>("onnxruntime-node");
    const session = await ort.InferenceSession.create(job.onnx, {
      executionProviders: ["cpu"],
      graphOptimizationLevel: "all",
      executionMode: "sequential",
      intraOpNumThreads: job.threads,
      interOpNumThreads: 1,
    });
    const feeds = { input: new ort.Tensor("float32", pixels(job), job.shape) };
    return [async () => (await session.run(feeds)).output.data, ""];
  },

  async "tfjs wasm"(job: Job): Promise<[Run, string]> {
    const network = await tfjsResNet("wasm", await hostState(await loadWeights(job.weights)));
    const x = { shape: job.shape, data: pixels(job) };
    const { getThreadsCount } = loadPeer<{ getThreadsCount(): number }>("@tensorflow/tfjs-backend-wasm");
    let threads = "1 thread";
    try {
      threads = `${getThreadsCount()} threads`;
    } catch {} // a build without threads cannot tell
    return [() => network(x), threads];
  },
};

/** VmHWM, because the maxRSS that the system reports includes what the parent had when it forked. */
function peakMegabytes(): number {
  try {
    const line = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8"));
    if (line) return Number(line[1]) / 1024;
  } catch {} // no Linux
  return process.resourceUsage().maxRSS / 1024;
}

/** A JavaScript thread that does nothing but compute, until it is ended. */
async function busyThread(): Promise<Worker> {
  const worker = new Worker("for (let i = 0; ; i++) Math.sqrt(i);", { eval: true });
  await new Promise((resolve) => worker.once("online", resolve));
  return worker;
}

/** Milliseconds between two looks at the event loop. The histogram counts from look to look; what is beyond this is delay. */
const resolution = 1;

function delayOf(histogram: IntervalHistogram): Answer["delay"] {
  const beyond = (nanoseconds: number) => Math.max(0, nanoseconds / 1e6 - resolution);
  return { p99: beyond(histogram.percentile(99)), worst: beyond(histogram.max) };
}

async function main(): Promise<void> {
  const job = JSON.parse(process.argv[2]) as Job;
  const [run, note] = await runtimes[job.runtime](job);
  process.on("message", async ({ calls, busy, watched }: Turn) => {
    const worker = busy ? await busyThread() : undefined;
    const histogram = monitorEventLoopDelay({ resolution });
    if (watched) histogram.enable();
    const times: number[] = [];
    let logits = new Float32Array();
    for (let i = 0; i < calls; i++) {
      const start = performance.now();
      logits = Float32Array.from(await run());
      times.push(performance.now() - start);
    }
    if (watched) await pause(5 * resolution); // so that what held the loop up until now is counted
    histogram.disable();
    await worker?.terminate();
    const delay = watched ? delayOf(histogram) : undefined;
    process.send?.({ times, logits, peak: peakMegabytes(), delay } satisfies Answer);
  });
  process.send?.({ ready: performance.now(), note } satisfies Started);
}

if (require.main === module)
  main().catch((error: unknown) => {
    process.send?.({ failed: error instanceof Error ? error.message : String(error) });
    process.disconnect?.();
  });
