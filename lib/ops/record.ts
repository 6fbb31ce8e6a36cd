import { isFloat } from "../dtype.js";
import { DtypeError, expected, ShapeError } from "../errors.js";
import type { Attributes } from "../graph/attributes.js";
import { constantValue, Node, type ValueType } from "../graph/value.js";
import { filled } from "../lazy/variable.js";
import { formatShape } from "../shape.js";
import { type Operand, Tensor } from "../tensor.js";

/** Records a node with one output. */
export function record(op: string, attributes: Attributes, inputs: readonly Tensor[], output: ValueType): Tensor {
  return recordAll(op, attributes, inputs, [output])[0];
}

/** Records a node with several outputs. */
export function recordAll(
  op: string,
  attributes: Attributes,
  inputs: readonly Tensor[],
  outputs: readonly ValueType[],
): Tensor[] {
  const values = inputs.map((input) => input.value);
  return new Node(op, attributes, values, outputs).outputs.map((value) => new Tensor(value));
}

/** The operand as a tensor; a number becomes a scalar of `like`'s dtype, which is an input of the plan, not part of its key. */
export function operand(where: string, other: Operand, like: Tensor): Tensor {
  if (typeof other === "number") return new Tensor(constantValue(filled(like.dtype, 1, other), [], like.dtype));
  checkTensor(where, other);
  return other;
}

/** Throws DtypeError when an argument that must be a tensor is something else (for untyped callers). */
export function checkTensor(where: string, value: unknown, name = "a tensor"): asserts value is Tensor {
  if (!(value instanceof Tensor)) throw new DtypeError(expected(where, name, value === null ? "null" : typeof value));
}

/** Throws DtypeError unless every tensor has the first one's dtype. */
export function checkSameDtype(where: string, ...tensors: readonly Tensor[]): void {
  for (const { dtype } of tensors)
    if (dtype !== tensors[0].dtype)
      throw new DtypeError(expected(where, `${tensors[0].dtype} everywhere`, `${tensors[0].dtype} and ${dtype}`));
}

/** Throws DtypeError unless the tensor is of a float dtype. */
export function checkFloat(where: string, x: Tensor): void {
  checkTensor(where, x);
  if (!isFloat(x.dtype)) throw new DtypeError(expected(where, "a float dtype", x.dtype));
}

/** Throws ShapeError unless `x` fits a pattern such as `["N", 64, "H", "W"]`, in which words fit any extent. */
export function checkShape(where: string, name: string, x: Tensor, pattern: readonly (number | string)[]): void {
  checkTensor(where, x, `${name} to be a tensor`);
  const fits = x.shape.length === pattern.length && pattern.every((p, i) => typeof p === "string" || p === x.shape[i]);
  if (!fits) throw new ShapeError(expected(where, `${name} ${formatShape(pattern)}`, formatShape(x.shape)));
}
