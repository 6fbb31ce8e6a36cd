import { defineGradientOf } from "../graph/passes/differentiate.js";
import { type Node, op, type Value } from "../graph/value.js";
import { checkOptions, type OptionNames } from "../options.js";
import { normalizeDims, sizeOf } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { toFloat32 } from "./autocast.js";
import { checkFloat, checkTensor, record } from "./record.js";

export interface ReduceOptions {
  /** Keep the reduced dimensions with extent 1, default false. */
  readonly keepDims?: boolean;
}

const reduceNames: OptionNames<ReduceOptions> = { keepDims: true };

function reduceOp(op: string) {
  return (x: Tensor, dims?: number | readonly number[], options: ReduceOptions = {}): Tensor => {
    const { keepDims = false } = checkOptions(op, options, reduceNames);
    if (op === "mean") checkFloat(op, x);
    else checkTensor(op, x);
    const over = normalizeDims(op, dims, x.shape.length);
    const shape = x.shape.flatMap((extent, dim) => (over.includes(dim) ? (keepDims ? [1] : []) : [extent]));
    const summands = op === "sum" ? toFloat32(x) : x; // what is summed up may leave the range of the summands
    return record(op, { dims: over, keepDims }, [summands], { shape, dtype: summands.dtype });
  };
}

/** Sum over `dims` (all when left out; negative ones count from the back). */
export const sum = reduceOp("sum");
/** Mean over `dims` (all when left out; negative ones count from the back). Float dtypes only. */
export const mean = reduceOp("mean");

defineGradientOf("sum", (node, dy) => [spread(node, dy, 1)]);
defineGradientOf("mean", (node, dy) => [spread(node, dy, sizeOf(dy.shape) / sizeOf(node.inputs[0].shape))]);

/** Every summand gets the sum's gradient, times `scale`. */
function spread({ inputs: [x], attributes }: Node, dy: Value, scale: number): Value {
  const dims = attributes.dims as readonly number[];
  const shape = x.shape.map((extent, dim) => (dims.includes(dim) ? 1 : extent));
  return op("broadcast", { scale }, [op("reshape", {}, [dy], { shape, dtype: dy.dtype })], x);
}
