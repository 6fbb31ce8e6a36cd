import { type DType, isFloat } from "../dtype.js";
import { ArgumentError, DtypeError, expected, shown } from "../errors.js";
import type { Tensor } from "../tensor.js";
import { cast } from "./unary.js";

const dtypes = ["float32", "bfloat16", "float16"] as const;

/** What networks are trained in: float32, or a half precision beside float32 weights. */
export type TrainingDType = (typeof dtypes)[number];

let active: DType | undefined;

/**
 * Records what `record` records in mixed precision (Micikevicius et al. 2018; PyTorch's torch.autocast): `conv2d`, `linear`
 * and `matmul` take their operands rounded to `dtype` and sum in float32; `crossEntropy`, `softmax`, `logSoftmax` and
 * `sum` take theirs in float32; arithmetic on two dtypes gives the more precise one; everything else keeps the
 * dtype it is given. Parameters stay float32, and so do their gradients and the statistics of batch norm.
 *
 * @param dtype "bfloat16", which has float32's range, or "float16", whose gradients want a `GradScaler`; "float32" turns an
 *   outer autocast off
 * @param record records, and returns before anything is awaited
 * @throws DtypeError for another dtype; ArgumentError when `record` returns a promise
 */
export function autocast<T>(dtype: TrainingDType, record: () => T): T {
  checkTrainingDtype("autocast", dtype);
  const outer = active;
  active = dtype === "float32" ? undefined : dtype;
  try {
    const result = record();
    if (typeof (result as { then?: unknown } | undefined)?.then === "function")
      throw new ArgumentError(expected("autocast", "a function that only records", "one that returns a promise"));
    return result;
  } finally {
    active = outer;
  }
}

/** Throws DtypeError for what networks are not trained in. */
export function checkTrainingDtype(where: string, dtype: unknown): asserts dtype is TrainingDType {
  if (!dtypes.some((known) => known === dtype))
    throw new DtypeError(expected(where, `dtype ${dtypes.join(", ")}`, shown(dtype)));
}

/** Under autocast, the operands of an op that is worth rounding them. */
export function toAutocastDtype(operands: readonly Tensor[]): readonly Tensor[] {
  const to = active;
  return to ? operands.map((operand) => (isFloat(operand.dtype) ? cast(operand, to) : operand)) : operands;
}

/** Under autocast, the operand of an op that needs float32's precision or range. */
export function toFloat32(operand: Tensor): Tensor {
  return active && isFloat(operand.dtype) ? cast(operand, "float32") : operand;
}

/** Under autocast, operands in the more precise of their dtypes. */
export function toCommonDtype(a: Tensor, b: Tensor): [Tensor, Tensor] {
  const differ = active && a.dtype !== b.dtype && isFloat(a.dtype) && isFloat(b.dtype);
  return differ ? [cast(a, "float32"), cast(b, "float32")] : [a, b];
}
