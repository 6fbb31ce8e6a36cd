import { type Prediction, rank, runBatch } from "../classifier/prediction.js";
import type { CompiledModel } from "../compile.js";
import type { Pictures } from "./pictures.js";

/** The likeliest class of every picture, and how long it all took. */
export async function predictAll(
  compiled: CompiledModel,
  pictures: Pictures,
  classes: readonly string[],
  batch: number,
  advance: (done: number) => void = () => {},
): Promise<{ predictions: Prediction[]; seconds: number }> {
  const predictions: Prediction[] = [];
  const start = performance.now();
  const count = pictures.labels.length;
  for (let at = 0; at < count; at += batch) {
    const logits = await runBatch(compiled, await pictures.batch(at, Math.min(at + batch, count)));
    for (const row of logits) predictions.push(rank(row, classes, 1)[0]);
    advance(predictions.length);
  }
  return { predictions, seconds: (performance.now() - start) / 1000 };
}
