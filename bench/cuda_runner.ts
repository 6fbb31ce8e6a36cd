import { readFileSync } from "node:fs";
import { type KernelTime, nativeVersions } from "../lib/devices/native/addon.js";
import { NativePlan } from "../lib/devices/native/executor.js";
import { setDefaultDevice } from "../lib/devices/resolve.js";
import { type CompiledModel, compile, createModel, loadWeights, nn, type Tensor, tensor } from "../lib/index.js";
import { type Bound, boundOf, leastTime } from "./roofline.js";
import { noise } from "./weights.js";

/*
 * One network on a GPU, in a process of its own, so that neither its memory nor its streams touch another's. It waits when
 * it is not asked.
 */

export type Dtype = "float32" | "tf32" | "float16" | "bfloat16";
/** What is fed: floats that are on the device already, floats of the host's, or pixels of the host's. */
export type Feed = "resident" | "float32" | "uint8";

/** What a runner is started with. PyTorch's, bench/peers/torch_peer.py, is started with the same. */
export interface GpuJob {
  readonly device: "cuda" | "cuda-sim";
  /** Undefined for the largest product of matrices alone. */
  readonly model?: { readonly name: string; readonly weights: string; readonly numClasses: number };
  /** Some images [C, H, W] of uint8, one after the other, which a batch repeats. */
  readonly pixels: string;
  readonly shape: readonly number[];
  readonly mean: readonly number[];
  readonly std: readonly number[];
  readonly dtype: Dtype;
}

/** What a runner is asked. */
export type GpuTurn =
  | { readonly ask: "logits"; readonly feed: "float32" | "uint8" }
  | { readonly ask: "times"; readonly feed: Feed; readonly calls: number }
  | { readonly ask: "kernels"; readonly rounds: number; readonly scratch: number; readonly flops?: number };

export interface Times {
  /** Milliseconds of one run by itself until its results are there (`resident`: until it is done). */
  readonly latency: number;
  /** Milliseconds of one run where `calls` follow each other. */
  readonly milliseconds: number;
  /** The most bytes of device memory taken so far. */
  readonly most?: number;
}

export interface Kernels {
  /** Each with its bound, where the ceiling of computing was given. */
  readonly kernels: readonly (KernelTime & { readonly layer: string; readonly bound?: Bound })[];
  /** Bytes a second that a copy reads and writes together. */
  readonly copied: number;
  readonly most: number;
  /** What the kernels need at least, where the ceiling of computing was given. */
  readonly leastMilliseconds?: number;
  /** Why the device is given kernel after kernel where it could be given all at once; empty where it is. */
  readonly notReplayed: string;
}

export interface GpuAnswers {
  readonly logits: Float32Array;
  readonly times: Times;
  readonly kernels: Kernels;
}

export interface GpuStarted {
  /** Milliseconds from the start of the process until it could be asked. */
  readonly ready: number;
  readonly versions: Readonly<Record<string, unknown>>;
}

/** Runs under way at a time where they follow each other: one is copied in, one computed, one copied out. */
const inFlight = 3;

class Runner {
  private constructor(
    readonly compiled: CompiledModel,
    readonly inputs: { readonly float32: Tensor; readonly uint8?: Tensor },
  ) {}

  static async start(job: GpuJob): Promise<Runner> {
    const { device, model, shape, dtype, mean, std } = job;
    setDefaultDevice(device, { autotune: true });
    if (!model) {
      const floats = tensor(noise(product(shape), -1, 1), shape);
      const square = new nn.Conv2d(shape[1], shape[1], { kernelSize: 1, bias: false });
      return new Runner(await compile(square, { device, dtype }), { float32: floats });
    }
    const network = createModel(model.name, { numClasses: model.numClasses });
    network.loadStateDict(await loadWeights(model.weights));
    const inputs = inputsOf(readFileSync(job.pixels), job);
    return new Runner(await compile(network, { device, dtype, normalize: { mean, std } }), inputs);
  }

  async logits({ feed }: { feed: "float32" | "uint8" }): Promise<Float32Array> {
    const input = this.inputs[feed];
    if (!input) throw new Error(`bench: this job has no ${feed} input`);
    return (await (await this.compiled.run(input)).data()) as Float32Array;
  }

  async times({ feed, calls }: { feed: Feed; calls: number }): Promise<Times> {
    if (feed === "resident") {
      const { latencies, milliseconds, most } = await (await this.#plan()).time(await this.#request(), {
        rounds: 1,
        calls,
      });
      return { latency: latencies[0], milliseconds: milliseconds[0], most };
    }
    const start = performance.now();
    await this.logits({ feed });
    const latency = performance.now() - start;
    const again = performance.now();
    const waiting: Promise<unknown>[] = [];
    for (let call = 0; call < calls; call++) {
      waiting.push(this.logits({ feed }));
      if (waiting.length === inFlight) await waiting.shift();
    }
    await Promise.all(waiting);
    return { latency, milliseconds: (performance.now() - again) / calls };
  }

  async kernels({ rounds, scratch, flops }: { rounds: number; scratch: number; flops?: number }): Promise<Kernels> {
    const plan = await this.#plan();
    const { kernels, copied, most, notReplayed } = await plan.time(await this.#request(), { rounds, scratch });
    const ceilings = flops === undefined ? undefined : { bytes: copied, flops };
    return {
      kernels: kernels.map((kernel) => ({
        ...kernel,
        layer: plan.plan.steps[kernel.step]?.layer ?? "",
        ...(ceilings && { bound: boundOf(kernel, ceilings) }),
      })),
      copied,
      most,
      notReplayed,
      ...(ceilings && { leastMilliseconds: leastTime(kernels, ceilings) }),
    };
  }

  async #plan(): Promise<NativePlan> {
    const { plan } = await this.compiled.prepare(this.inputs.float32.shape, "float32");
    if (!(plan instanceof NativePlan)) throw new Error("bench: expected a plan of the addon's");
    return plan;
  }

  async #request() {
    return { inputs: [await this.inputs.float32.data()], variables: [] };
  }
}

const product = (shape: readonly number[]) => shape.reduce((all, extent) => all * extent, 1);

/** A batch of the images, as pixels and as the floats that they are normalised to. */
export function inputsOf(images: Uint8Array, { shape, mean, std }: Pick<GpuJob, "shape" | "mean" | "std">) {
  const [, channels, height, width] = shape;
  const area = height * width;
  const pixels = Uint8Array.from({ length: product(shape) }, (_, i) => images[i % images.length]);
  const floats = Float32Array.from(pixels, (pixel, i) => {
    const channel = Math.floor(i / area) % channels;
    return (pixel / 255 - mean[channel]) / std[channel];
  });
  return { float32: tensor(floats, shape), uint8: tensor(pixels, shape) };
}

async function main(): Promise<void> {
  const runner = await Runner.start(JSON.parse(process.argv[2]) as GpuJob);
  process.on("message", async (turn: GpuTurn) => {
    try {
      const answer =
        turn.ask === "logits"
          ? await runner.logits(turn)
          : turn.ask === "times"
            ? await runner.times(turn)
            : await runner.kernels(turn);
      process.send?.({ answer });
    } catch (error) {
      process.send?.({ failed: (error as Error).message });
    }
  });
  process.send?.({
    answer: { ready: performance.now(), versions: { ...nativeVersions() } } satisfies GpuStarted,
  });
}

if (require.main === module)
  main().catch((error: unknown) => {
    process.send?.({ failed: error instanceof Error ? error.message : String(error) });
    process.disconnect?.();
  });
