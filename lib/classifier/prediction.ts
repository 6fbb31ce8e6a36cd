import type { CompiledModel } from "../compile/compile.js";
import { expected, WeightsError } from "../errors.js";
import type { Tensor } from "../tensor.js";

export interface Prediction {
  index: number;
  label: string;
  probability: number;
}

/** The `top` likeliest classes, likeliest first. Throws WeightsError when the logits are not numbers. */
export function rank(logits: ArrayLike<number>, classes: readonly string[], top: number): Prediction[] {
  const values = Array.from(logits);
  const wrong = values.find((logit) => !Number.isFinite(logit));
  if (wrong !== undefined)
    throw new WeightsError(
      expected("classify", "finite logits", `${wrong}: the weights overflow or hold NaN (--strict names the tensor)`),
    );
  const largest = values.reduce((most, value) => Math.max(most, value), Number.NEGATIVE_INFINITY);
  const weights = values.map((logit) => Math.exp(logit - largest));
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return weights
    .map((weight, index) => ({ index, label: classes[index], probability: weight / sum }))
    .sort((a, b) => b.probability - a.probability)
    .slice(0, top);
}

/** Runs a batch [N, C, H, W] and resolves to the logits, row by row. */
export async function runBatch(compiled: CompiledModel, batch: Tensor): Promise<ArrayLike<number>[]> {
  const output = await compiled.run(batch);
  const [count, classes] = output.shape;
  const logits = (await output.data()) as Float32Array;
  return Array.from({ length: count }, (_, i) => logits.subarray(i * classes, (i + 1) * classes));
}
