import { compile } from "../compile/compile.js";
import type { Batch } from "../data/loader.js";
import { defaultExecutor } from "../devices/resolve.js";
import type { Normalization } from "../image/normalize.js";
import type { Module } from "../nn/module.js";
import { checkOptions, type OptionNames } from "../options.js";

/** What a model says about labelled images. */
export interface Evaluation {
  readonly images: number;
  readonly correct: number;
  readonly accuracy: number;
  /** Mean cross-entropy, without smoothing. */
  readonly loss: number;
  /** Images that could not be read. */
  readonly skipped: number;
  readonly answers: readonly Answer[];
}

/** What a model says about one image. */
export interface Answer {
  /** The image's place in the dataset. */
  readonly index: number;
  readonly truth: number;
  readonly predicted: number;
  /** Probability of what was predicted. */
  readonly confidence: number;
  /** Cross-entropy. */
  readonly loss: number;
}

export interface EvaluateOptions {
  /** How bytes become inputs. */
  readonly normalize: Normalization;
  /** Ends the evaluation; it rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

const evaluateNames: OptionNames<EvaluateOptions> = { normalize: true, signal: true };

/** Runs a model, in eval behaviour and as it is now, over batches, on the default device. */
export async function evaluate(
  model: Module,
  batches: AsyncIterable<Batch>,
  options: EvaluateOptions,
): Promise<Evaluation> {
  const { normalize, signal } = checkOptions("evaluate", options, evaluateNames);
  await using compiled = await compile(model, { device: defaultExecutor().device, normalize, benchmark: false });
  const answers: Answer[] = [];
  let skipped = 0;
  let before: Promise<void> = Promise.resolve();
  for await (const batch of batches) {
    signal?.throwIfAborted();
    skipped += batch.skipped.length;
    if (batch.count === 0) continue;
    // one batch runs while the next one is made and handed over
    const run = compiled.run(batch.images).then(async (logits) => {
      const values = (await logits.data()) as Float32Array;
      for (const answer of judge(values, batch)) answers.push(answer);
    });
    run.catch(() => {}); // it is waited for below
    await before;
    before = run;
  }
  await before;
  const correct = answers.filter(({ truth, predicted }) => truth === predicted).length;
  const total = answers.reduce((sum, { loss }) => sum + loss, 0);
  const images = answers.length;
  return { images, correct, accuracy: correct / images, loss: total / images, skipped, answers };
}

/** Reads the answers off logits `[count, classes]`. */
function judge(logits: Float32Array, { classes, indices, count }: Batch): Answer[] {
  const width = logits.length / count;
  return Array.from(classes, (truth, i) => {
    const row = logits.subarray(i * width, (i + 1) * width);
    const predicted = largest(row);
    let sum = 0;
    for (const value of row) sum += Math.exp(value - row[predicted]);
    const logSum = Math.log(sum) + row[predicted];
    return { index: indices[i], truth, predicted, confidence: 1 / sum, loss: logSum - row[truth] };
  });
}

/** The place of the largest value, the first of equals. */
export function largest(row: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < row.length; i++) if (row[i] > row[best]) best = i;
  return best;
}
