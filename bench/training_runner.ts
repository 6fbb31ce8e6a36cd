import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { createModel, functional, loadWeights, optim, setDefaultDevice, tensor } from "../lib/index.js";

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
}

/** The answer to { steps }. */
export interface Steps {
  /** Milliseconds of each: forward, backward and update, until the loss is there. */
  readonly times: readonly number[];
  readonly losses: readonly number[];
  /** The most memory the process has had so far, in MB. */
  readonly peak: number;
}

async function main(job: TrainingJob): Promise<void> {
  setDefaultDevice("cpu");
  const model = createModel(job.model, job.options);
  model.loadStateDict(await loadWeights(job.weights));
  const sgd = new optim.SGD(model.parameters(), { lr: 1e-3, momentum: 0.9, weightDecay: 5e-4, nesterov: true });
  const { buffer } = new Uint8Array(readFileSync(job.batch));
  const count = job.shape.reduce((product, extent) => product * extent, 1);
  const x = tensor(new Float32Array(buffer, 0, count), job.shape);
  const target = tensor(new Int32Array(buffer, 4 * count), [job.shape[0]]);
  const say = (what: object) => console.log(`@${JSON.stringify(what)}`);
  say({ note: "" });
  for await (const line of createInterface(process.stdin)) {
    const { steps } = JSON.parse(line) as { steps: number };
    const times: number[] = [];
    const losses: number[] = [];
    for (let i = 0; i < steps; i++) {
      const start = performance.now();
      sgd.zeroGrad();
      const loss = functional.crossEntropy(model.forward(x), target);
      loss.backward();
      sgd.step();
      losses.push(await loss.item());
      times.push(performance.now() - start);
    }
    say({ times, losses, peak: process.resourceUsage().maxRSS / 1024 } satisfies Steps);
  }
}

main(JSON.parse(process.argv[2]) as TrainingJob).catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
});
