import { expected, ShapeError, shown } from "../errors.js";
import { defineGradientOf } from "../graph/passes/differentiate.js";
import { op } from "../graph/value.js";
import { formatShape, sameShape, sizeOf } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { checkTensor, record } from "./record.js";

/** The same elements in another shape; one extent may be -1 and is worked out. */
export function reshape(x: Tensor, shape: readonly number[]): Tensor {
  const where = "reshape";
  checkTensor(where, x);
  if (!Array.isArray(shape)) throw new ShapeError(expected(where, "a shape as an array", shown(shape)));
  const size = sizeOf(x.shape);
  const known = sizeOf(shape.filter((extent) => extent !== -1));
  const full = shape.map((extent) => (extent === -1 ? size / known : extent));
  const fits = full.every((extent) => Number.isSafeInteger(extent) && extent >= 1) && sizeOf(full) === size;
  if (!fits || shape.filter((extent) => extent === -1).length > 1)
    throw new ShapeError(expected(where, `a shape of ${size} elements`, formatShape(shape)));
  return sameShape(full, x.shape) ? x : record(where, {}, [x], { shape: full, dtype: x.dtype });
}

/** Dimensions from `startDim` on become one: [N, C, H, W] -> [N, C*H*W] for `startDim` 1. */
export function flatten(x: Tensor, startDim = 0): Tensor {
  checkTensor("flatten", x);
  const rank = x.shape.length;
  const start = startDim < 0 ? startDim + rank : startDim;
  if (!Number.isInteger(start) || start < 0 || start > Math.max(rank - 1, 0))
    throw new ShapeError(expected("flatten", `startDim from 0 to ${rank - 1}`, shown(startDim)));
  return reshape(x, [...x.shape.slice(0, start), sizeOf(x.shape.slice(start))]);
}

defineGradientOf("reshape", ({ inputs: [x] }, dy) => [op("reshape", {}, [dy], x)]);
