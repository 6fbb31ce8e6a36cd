import { isFloat } from "../dtype.js";
import { DtypeError, expected } from "../errors.js";
import { broadcastShapes } from "../shape.js";
import type { Operand, Tensor } from "../tensor.js";
import { checkSameDtype, checkTensor, operand, record } from "./record.js";

function binaryOp(op: string): (a: Tensor, b: Operand) => Tensor {
  return (a, b) => {
    checkTensor(op, a);
    const other = operand(op, b, a);
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
