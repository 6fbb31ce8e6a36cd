import { expected, ShapeError } from "../errors.js";
import { broadcastShapes, formatShape } from "../shape.js";
import type { Tensor } from "../tensor.js";
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
  const inputs = bias ? [x, weight, bias] : [x, weight];
  if (bias) checkShape(where, "bias", bias, [o]);
  checkSameDtype(where, ...inputs);
  return record(where, {}, inputs, { shape: [...lead, o], dtype: x.dtype });
}

/** [..., M, K] x [..., K, N] -> [..., M, N]; leading extents broadcast. */
export function matmul(a: Tensor, b: Tensor): Tensor {
  const where = "matmul";
  checkFloat(where, a);
  checkFloat(where, b);
  checkSameDtype(where, a, b);
  const fits =
    a.shape.length >= 2 && b.shape.length >= 2 && a.shape[a.shape.length - 1] === b.shape[b.shape.length - 2];
  if (!fits)
    throw new ShapeError(
      expected(where, "[..., M, K] and [..., K, N]", `${formatShape(a.shape)} and ${formatShape(b.shape)}`),
    );
  const lead = broadcastShapes(where, a.shape.slice(0, -2), b.shape.slice(0, -2));
  const shape = [...lead, a.shape[a.shape.length - 2], b.shape[b.shape.length - 1]];
  return record(where, {}, [a, b], { shape, dtype: a.dtype });
}
