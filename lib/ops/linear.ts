import { expected, ShapeError } from "../errors.js";
import { defineGradientOf } from "../graph/passes/differentiate.js";
import { op, type Value } from "../graph/value.js";
import { broadcastShapes, formatShape, sizeOf } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { toAutocastDtype } from "./autocast.js";
import { sumTo } from "./binary.js";
import { checkFloat, checkSameDtype, checkShape, record } from "./record.js";

/**
 * x W^T + b.
 *
 * @param x [..., I]
 * @param weight [O, I]
 * @param bias [O], or undefined
 * @returns [..., O]
 */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor): Tensor {
  const where = "linear";
  checkFloat(where, x);
  checkFloat(where, weight);
  checkShape(where, "weight", weight, ["O", "I"]);
  const [o, i] = weight.shape;
  const lead = x.shape.slice(0, -1);
  if (x.shape[x.shape.length - 1] !== i)
    throw new ShapeError(expected(where, `input [..., ${i}]`, formatShape(x.shape)));
  if (bias) checkShape(where, "bias", bias, [o]);
  const inputs = toAutocastDtype(bias ? [x, weight, bias] : [x, weight]);
  checkSameDtype(where, ...inputs);
  return record(where, {}, inputs, { shape: [...lead, o], dtype: inputs[0].dtype });
}

/** [..., M, K] x [..., K, N] -> [..., M, N]; leading extents broadcast. */
export function matmul(a: Tensor, b: Tensor): Tensor {
  const where = "matmul";
  checkFloat(where, a);
  checkFloat(where, b);
  const fits =
    a.shape.length >= 2 && b.shape.length >= 2 && a.shape[a.shape.length - 1] === b.shape[b.shape.length - 2];
  if (!fits)
    throw new ShapeError(
      expected(where, "[..., M, K] and [..., K, N]", `${formatShape(a.shape)} and ${formatShape(b.shape)}`),
    );
  const lead = broadcastShapes(where, a.shape.slice(0, -2), b.shape.slice(0, -2));
  const shape = [...lead, a.shape[a.shape.length - 2], b.shape[b.shape.length - 1]];
  const inputs = toAutocastDtype([a, b]);
  checkSameDtype(where, ...inputs);
  return record(where, {}, inputs, { shape, dtype: inputs[0].dtype });
}

defineGradientOf("linear", ({ inputs: [x, weight, bias] }, dy) => {
  const [o, i] = weight.shape;
  const rows = sizeOf(x.shape) / i;
  const flat = (value: Value, columns: number) =>
    op("reshape", {}, [value], { shape: [rows, columns], dtype: value.dtype });
  const gradient = flat(dy, o);
  const product = op("matmul", {}, [gradient, weight], { shape: [rows, i], dtype: x.dtype });
  return [
    op("reshape", {}, [product], x),
    op("matmul", {}, [transposed(gradient), flat(x, i)], weight),
    bias && op("sum", { dims: [0], keepDims: false }, [gradient], bias),
  ];
});

defineGradientOf("matmul", ({ inputs: [a, b] }, dy) => {
  const lead = dy.shape.slice(0, -2);
  const product = (left: Value, right: Value, like: Value) =>
    sumTo(like, op("matmul", {}, [left, right], { shape: [...lead, ...like.shape.slice(-2)], dtype: like.dtype }));
  return [product(dy, transposed(b), a), product(transposed(a), dy, b)];
});

function transposed(x: Value): Value {
  const [rows, columns] = x.shape.slice(-2);
  return op("transpose", {}, [x], { shape: [...x.shape.slice(0, -2), columns, rows], dtype: x.dtype });
}
