import { checkDtype, type DType, isFloat } from "../dtype.js";
import { defineGradientOf } from "../graph/passes/differentiate.js";
import { op } from "../graph/value.js";
import type { Tensor } from "../tensor.js";
import { checkFloat, checkTensor, record } from "./record.js";

function floatOp(op: string): (x: Tensor) => Tensor {
  return (x) => {
    checkFloat(op, x);
    return record(op, {}, [x], x);
  };
}

/** max(x, 0), element by element. */
export const relu = floatOp("relu");
/** 1 / (1 + e^-x), element by element. */
export const sigmoid = floatOp("sigmoid");
/** Square root, element by element. */
export const sqrt = floatOp("sqrt");
/** e^x, element by element. */
export const exp = floatOp("exp");
/** Natural logarithm, element by element. */
export const log = floatOp("log");
/** -x, element by element. */
export const neg = floatOp("neg");

/** The same values in another dtype. Floats to integers truncate. */
export function cast(x: Tensor, dtype: DType): Tensor {
  checkTensor("cast", x);
  checkDtype("cast", dtype);
  return dtype === x.dtype ? x : record("cast", {}, [x], { shape: x.shape, dtype });
}

/** The same values, cut off from what they were computed from. */
export function detach(x: Tensor): Tensor {
  checkTensor("detach", x);
  return record("detach", {}, [x], x);
}

defineGradientOf("relu", (_, dy, y) => [op("relu_gradient", {}, [y, dy], y)]);
defineGradientOf("sigmoid", (_, dy, y) => [op("sigmoid_gradient", {}, [y, dy], y)]);
defineGradientOf("sqrt", (_, dy, y) => [op("broadcast", { scale: 0.5 }, [op("div", {}, [dy, y], y)], y)]);
defineGradientOf("exp", (_, dy, y) => [op("mul", {}, [dy, y], y)]);
defineGradientOf("log", ({ inputs: [x] }, dy, y) => [op("div", {}, [dy, x], y)]);
defineGradientOf("neg", (_, dy, y) => [op("neg", {}, [dy], y)]);
defineGradientOf("cast", ({ inputs: [x] }, dy) => [isFloat(x.dtype) ? op("cast", {}, [dy], x) : undefined]);
defineGradientOf("variable", (_, dy) => [dy]);
