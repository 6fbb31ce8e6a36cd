import type { DType } from "../dtype.js";
import { checkDtype } from "../dtype.js";
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
  return record("detach", {}, [x], x);
}
