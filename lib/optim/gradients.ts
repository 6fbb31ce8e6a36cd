import type { DType } from "../dtype.js";
import { Node, op, type Value } from "../graph/value.js";
import type { Variable } from "../lazy/variable.js";
import { Tensor } from "../tensor.js";

/** A float32 scalar made of all gradients at once: `global_norm`, their Euclidean norm, or `found_inf`. */
export function overGradients(name: "global_norm" | "found_inf", gradients: readonly Variable[]): Value {
  const all = gradients.map((gradient) => new Tensor(gradient.read()).cast("float32").value);
  return op(name, {}, all, { shape: [], dtype: "float32" });
}

/** Records gradients times a float32 scalar, those of one dtype at once. */
export function scaleGradients(gradients: readonly Variable[], factor: Tensor): void {
  for (const same of byDtype(gradients, ({ dtype }) => dtype)) {
    const { outputs } = new Node("scale", {}, [...same.map((gradient) => gradient.read()), factor.value], same);
    for (const [i, gradient] of same.entries()) gradient.write(outputs[i]);
  }
}

/** Items in groups of one dtype, for ops over many tensors. */
export function byDtype<T>(items: readonly T[], dtypeOf: (item: T) => DType): T[][] {
  const dtypes = new Set(items.map(dtypeOf));
  return [...dtypes].map((dtype) => items.filter((item) => dtypeOf(item) === dtype));
}
