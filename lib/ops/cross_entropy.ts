import { ArgumentError, DtypeError, expected } from "../errors.js";
import { defineGradientOf } from "../graph/passes/differentiate.js";
import { op } from "../graph/value.js";
import { checkOptions, type OptionNames } from "../options.js";
import type { Tensor } from "../tensor.js";
import { toFloat32 } from "./autocast.js";
import { checkFloat, checkShape, checkTensor, record } from "./record.js";

export interface CrossEntropyOptions {
  /** Weight of the uniform distribution in the target, in [0, 1), default 0 (Szegedy et al. 2016, section 7). */
  readonly labelSmoothing?: number;
  /** How the images' losses are put together, default "mean". */
  readonly reduction?: "mean" | "sum" | "none";
}

const crossEntropyNames: OptionNames<CrossEntropyOptions> = { labelSmoothing: true, reduction: true };

/**
 * -log softmax(logits)[target], PyTorch's cross_entropy.
 *
 * @param logits [N, C]
 * @param targets class indices, int32 or int64 [N]
 * @returns a scalar, or [N] for reduction "none"
 */
export function crossEntropy(logits: Tensor, targets: Tensor, options: CrossEntropyOptions = {}): Tensor {
  const where = "cross_entropy";
  const { labelSmoothing = 0, reduction = "mean" } = checkOptions(where, options, crossEntropyNames);
  checkFloat(where, logits);
  checkTensor(where, targets);
  checkShape(where, "logits", logits, ["N", "C"]);
  const [n] = logits.shape;
  checkShape(where, "targets", targets, [n]);
  if (targets.dtype !== "int32" && targets.dtype !== "int64")
    throw new DtypeError(expected(where, "int32 or int64 targets", targets.dtype));
  if (!(labelSmoothing >= 0 && labelSmoothing < 1))
    throw new ArgumentError(expected(where, "labelSmoothing in [0, 1)", String(labelSmoothing)));
  if (!["mean", "sum", "none"].includes(reduction))
    throw new ArgumentError(expected(where, 'reduction "mean", "sum" or "none"', String(reduction)));
  const shape = reduction === "none" ? [n] : [];
  const precise = toFloat32(logits);
  return record(where, { labelSmoothing, reduction }, [precise, targets], { shape, dtype: precise.dtype });
}

defineGradientOf("cross_entropy", ({ attributes, inputs: [logits, targets] }, dy) => [
  op("cross_entropy_gradient", attributes, [logits, targets, dy], logits),
]);
