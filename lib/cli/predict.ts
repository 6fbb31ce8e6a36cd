import { type Prediction, rank, runBatch } from "../classifier/prediction.js";
import type { CompiledModel } from "../compile/compile.js";
import type { LabelledImages } from "./labelled_images.js";

/** What a model says of images. */
export interface Predictions {
  /** The likeliest class of each that could be read. */
  readonly predictions: readonly Prediction[];
  /** The place of each of those among all images. */
  readonly places: readonly number[];
  /** Of each that could not be read, why. */
  readonly skipped: readonly string[];
  readonly seconds: number;
}

/** The likeliest class of every image, and how long it all took. */
export async function predictAll(
  compiled: CompiledModel,
  labelled: LabelledImages,
  classes: readonly string[],
  batch: number,
  advance: (done: number) => void = () => {},
): Promise<Predictions> {
  const predictions: Prediction[] = [];
  const places: number[] = [];
  const skipped: string[] = [];
  const start = performance.now();
  const count = labelled.labels.length;
  for (let at = 0; at < count; at += batch) {
    const to = Math.min(at + batch, count);
    const made = await labelled.batch(at, to);
    for (const why of made.skipped) skipped.push(why);
    const logits = made.images ? await runBatch(compiled, made.images) : [];
    for (const row of logits) predictions.push(rank(row, classes, 1)[0]);
    for (const place of made.places) places.push(place);
    advance(to);
  }
  return { predictions, places, skipped, seconds: (performance.now() - start) / 1000 };
}
