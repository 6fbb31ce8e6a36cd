import { isFloat } from "../dtype.js";
import { DtypeError, expected } from "../errors.js";
import { defineGradientOf } from "../graph/passes/differentiate.js";
import { op, type Value } from "../graph/value.js";
import { broadcastShapes } from "../shape.js";
import type { Operand, Tensor } from "../tensor.js";
import { toCommonDtype } from "./autocast.js";
import { checkSameDtype, checkTensor, operand, record } from "./record.js";

function binaryOp(op: string): (a: Tensor, b: Operand) => Tensor {
  return (left, right) => {
    checkTensor(op, left);
    const [a, other] = toCommonDtype(left, operand(op, right, left));
    checkSameDtype(op, a, other);
    if (op === "div" && !isFloat(a.dtype)) throw new DtypeError(expected(op, "a float dtype", a.dtype));
    return record(op, {}, [a, other], { shape: broadcastShapes(op, a.shape, other.shape), dtype: a.dtype });
  };
}

/** a + b with numpy's broadcasting; both of one dtype, or `b` a number. */
export const add = binaryOp("add");
/** a - b with numpy's broadcasting; both of one dtype, or `b` a number. */
export const sub = binaryOp("sub");
/** a * b with numpy's broadcasting; both of one dtype, or `b` a number. */
export const mul = binaryOp("mul");
/** a / b with numpy's broadcasting; both of one float dtype, or `b` a number. */
export const div = binaryOp("div");

defineGradientOf("add", ({ inputs: [a, b] }, dy) => [sumTo(a, dy), sumTo(b, dy)]);
defineGradientOf("sub", ({ inputs: [a, b] }, dy) => [sumTo(a, dy), sumTo(b, op("neg", {}, [dy], dy))]);
defineGradientOf("mul", ({ inputs: [a, b] }, dy) => [
  sumTo(a, op("mul", {}, [dy, b], dy)),
  sumTo(b, op("mul", {}, [dy, a], dy)),
]);
defineGradientOf("div", ({ inputs: [a, b] }, dy, y) => {
  const quotient = op("div", {}, [dy, b], dy);
  return [sumTo(a, quotient), sumTo(b, op("neg", {}, [op("mul", {}, [quotient, y], dy)], dy))];
});

/** The way back of broadcasting: the sum over the dimensions `x` was repeated along, in `x`'s shape. */
export function sumTo(x: Value, gradient: Value): Value {
  const missing = gradient.shape.length - x.shape.length;
  const dims = gradient.shape.flatMap((extent, dim) =>
    dim < missing || x.shape[dim - missing] !== extent ? [dim] : [],
  );
  if (dims.length === 0) return gradient;
  const shape = gradient.shape.map((extent, dim) => (dims.includes(dim) ? 1 : extent));
  const sum = op("sum", { dims, keepDims: true }, [gradient], { shape, dtype: gradient.dtype });
  return missing > 0 ? op("reshape", {}, [sum], x) : sum;
}
