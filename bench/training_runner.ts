import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import {
  amp,
  createModel,
  functional,
  loadWeights,
  nn,
  optim,
  setDefaultDevice,
  type Tensor,
  tensor,
} from "../lib/index.js";

/*
 * Our side of the training benchmark, in a process of its own: SGD steps of one network on one batch. Lines of JSON come
 * on stdin and go to stdout, as those of bench/peers/torch_training.py do.
 */

/** What both sides are started with: their only argument, as JSON. */
export interface TrainingJob {
  readonly model: string;
  readonly options: object;
  readonly weights: string;
  /** A file of float32 pixels in the order of `shape`, and after them int32 labels. */
  readonly batch: string;
  readonly shape: readonly number[];
  readonly threads: number;
  readonly device: "cpu" | "cuda" | "cuda-sim";
  /** Mixed precision, as torch.autocast has it, float16 with a loss scale. */
  readonly dtype: "float32" | "bfloat16" | "float16";
}

/** The answer to { steps }. */
export interface Steps {
  /** Milliseconds of each: forward, backward and update, until the loss is there. On a GPU their mean, one step being ahead as in `fit`. */
  readonly times: readonly number[];
  readonly losses: readonly number[];
  /** The most memory the process, or PyTorch on the GPU, has had so far, in MB. */
  readonly peak?: number;
}

async function main({ device, dtype, ...job }: TrainingJob): Promise<void> {
  if (device === "cpu") setDefaultDevice(device);
  else setDefaultDevice(device, { autotune: true, deterministic: false });
  const model = createModel(job.model, job.options);
  model.loadStateDict(await loadWeights(job.weights));
  const sgd = new optim.SGD(model.parameters(), { lr: 1e-3, momentum: 0.9, weightDecay: 5e-4, nesterov: true });
  const scaler = dtype === "float16" ? new amp.GradScaler() : undefined;
  const { buffer } = new Uint8Array(readFileSync(job.batch));
  const count = job.shape.reduce((product, extent) => product * extent, 1);
  // on the device, as PyTorch's are
  const x = new nn.Buffer(tensor(new Float32Array(buffer, 0, count), job.shape));
  const target = new nn.Buffer(tensor(new Int32Array(buffer, 4 * count), [job.shape[0]]));
  const forward = () => functional.crossEntropy(model.forward(x), target);
  const step = (): Tensor => {
    sgd.zeroGrad();
    const loss = dtype === "float32" ? forward() : amp.autocast(dtype, forward);
    (scaler?.scale(loss) ?? loss).backward();
    if (scaler) scaler.step(sgd);
    else sgd.step();
    scaler?.update();
    return loss;
  };
  const say = (what: object) => console.log(`@${JSON.stringify(what)}`);
  say({ note: "" });
  for await (const line of createInterface(process.stdin)) {
    const { steps } = JSON.parse(line) as { steps: number };
    const times: number[] = [];
    const losses: number[] = [];
    if (device === "cpu")
      for (let i = 0; i < steps; i++) {
        const start = performance.now();
        losses.push(await step().item());
        times.push(performance.now() - start);
      }
    else {
      const start = performance.now();
      let ahead: Promise<number> | undefined;
      for (let i = 0; i < steps; i++) {
        const loss = step().item();
        if (ahead) losses.push(await ahead);
        ahead = loss;
      }
      if (ahead) losses.push(await ahead);
      times.push(...Array<number>(steps).fill((performance.now() - start) / steps));
    }
    const peak = device === "cpu" ? { peak: process.resourceUsage().maxRSS / 1024 } : {};
    say({ times, losses, ...peak } satisfies Steps);
  }
}

main(JSON.parse(process.argv[2]) as TrainingJob).catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
});
