import { checkDtype, type DType } from "../dtype.js";
import { ArgumentError, expected, shown } from "../errors.js";
import { filled, Variable } from "../lazy/variable.js";
import { detach } from "../ops/index.js";
import { checkFloat } from "../ops/record.js";
import { checkExtents, sizeOf } from "../shape.js";
import { Tensor, VariableTensor } from "../tensor.js";
import { type Initializer, uniform } from "./random.js";

/** What a parameter or buffer starts with: a number for all elements, or an initialiser. */
export type Init = number | Initializer;

/** A trained tensor of a module. Registers under the property that holds it. */
export class Parameter extends VariableTensor {
  /**
   * From a tensor, as PyTorch has it: `new nn.Parameter(tensor([1, 2]))` starts with its values, of a float dtype. Or from
   * a shape and what it starts with: `new nn.Parameter([64, 3, 7, 7], 0)`, in float32.
   * @throws ShapeError, DtypeError or ArgumentError for anything else
   */
  constructor(data: Tensor);
  constructor(shape: readonly number[], init: Init);
  constructor(data: Tensor | readonly number[], init?: Init) {
    if (data instanceof Tensor) checkFloat("Parameter", data);
    super(variable("Parameter", data, init, "float32", true));
  }

  override toString(): string {
    return `Parameter containing:\n${super.toString()}`;
  }

  /** Overwrites every element. A recorded write, like any other update. */
  fill(value: number): this {
    this.variable.fill((length) => filled(this.dtype, length, value));
    return this;
  }
}

/** State of a module that is saved but not trained, such as running statistics. */
export class Buffer extends VariableTensor {
  /**
   * From a tensor, or from a shape, what it starts with and a dtype (default float32).
   * @throws ShapeError, DtypeError or ArgumentError for anything else
   */
  constructor(data: Tensor);
  constructor(shape: readonly number[], init: Init, dtype?: DType);
  constructor(data: Tensor | readonly number[], init?: Init, dtype: DType = "float32") {
    super(variable("Buffer", data, init, dtype, false));
  }
}

function variable(
  where: string,
  data: Tensor | readonly number[],
  init: Init | undefined,
  dtype: DType,
  requiresGrad: boolean,
): Variable {
  const name = where.toLowerCase();
  if (data instanceof Tensor) {
    const zeros = () => filled(data.dtype, sizeOf(data.shape), 0);
    const copy = new Variable(data.shape, data.dtype, data.value.kept ?? zeros, name, requiresGrad);
    if (!data.value.kept) copy.write(detach(data).value); // not computed yet
    return copy;
  }
  checkExtents(where, "a tensor, or a shape", data);
  checkDtype(where, dtype);
  if (typeof init !== "number" && typeof init !== "function")
    throw new ArgumentError(expected(where, "a number or an initialiser to start with", shown(init)));
  const size = sizeOf(data);
  const contents = typeof init === "number" ? () => filled(dtype, size, init) : init(size);
  return new Variable(Object.freeze([...data]), dtype, contents, name, requiresGrad);
}

/** Uniform in ±1/sqrt(fanIn): how PyTorch starts biases and linear weights. */
export function fanInUniform(fanIn: number): Initializer {
  return uniform(1 / Math.sqrt(fanIn));
}
