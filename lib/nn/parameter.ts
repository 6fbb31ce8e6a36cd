import type { DType } from "../dtype.js";
import { filled, Variable } from "../graph/variable.js";
import { sizeOf } from "../plan/plan.js";
import { VariableTensor } from "../tensor.js";
import { type Initializer, uniform } from "./random.js";

/** A trained tensor of a module. Registers under the property that holds it. */
export class Parameter extends VariableTensor {
  /** @param init the first contents: a number for all elements, or an initialiser */
  constructor(shape: readonly number[], init: number | Initializer) {
    super(variable(shape, "float32", init, "parameter", true));
  }

  /** Overwrites every element. A recorded write, like any other update. */
  fill(value: number): this {
    this.variable.fill((length) => filled(this.dtype, length, value));
    return this;
  }
}

/** State of a module that is saved but not trained, such as running statistics. */
export class Buffer extends VariableTensor {
  constructor(shape: readonly number[], init: number | Initializer, dtype: DType = "float32") {
    super(variable(shape, dtype, init, "buffer", false));
  }
}

function variable(
  shape: readonly number[],
  dtype: DType,
  init: number | Initializer,
  name: string,
  requiresGrad: boolean,
): Variable {
  const size = sizeOf(shape);
  const contents = typeof init === "number" ? () => filled(dtype, size, init) : init(size);
  return new Variable(Object.freeze([...shape]), dtype, contents, name, requiresGrad);
}

/** Uniform in ±1/sqrt(fanIn): how PyTorch starts biases and linear weights. */
export function fanInUniform(fanIn: number): Initializer {
  return uniform(1 / Math.sqrt(fanIn));
}
