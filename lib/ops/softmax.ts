import { expected, ShapeError, shown } from "../errors.js";
import { defineGradientOf } from "../graph/passes/differentiate.js";
import { op, type Value } from "../graph/value.js";
import { normalizeDims } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { toFloat32 } from "./autocast.js";
import { checkFloat, record } from "./record.js";

/** e^x / sum(e^x) along `dim`. */
export function softmax(x: Tensor, dim: number): Tensor {
  return along("softmax", x, dim);
}

/** log(softmax(x)) along `dim`, computed without overflow. */
export function logSoftmax(x: Tensor, dim: number): Tensor {
  return along("log_softmax", x, dim);
}

function along(op: string, x: Tensor, dim: number): Tensor {
  checkFloat(op, x);
  if (typeof dim !== "number") throw new ShapeError(expected(op, "one dimension, a number", shown(dim)));
  const precise = toFloat32(x);
  return record(op, { dim: normalizeDims(op, dim, x.shape.length)[0] }, [precise], precise);
}

defineGradientOf("softmax", ({ attributes }, dy, y) => {
  const total = sumAlong(attributes.dim as number, op("mul", {}, [dy, y], y));
  return [op("mul", {}, [y, op("sub", {}, [dy, total], y)], y)];
});
defineGradientOf("log_softmax", ({ attributes }, dy, y) => {
  const share = op("mul", {}, [op("exp", {}, [y], y), sumAlong(attributes.dim as number, dy)], y);
  return [op("sub", {}, [dy, share], y)];
});

function sumAlong(dim: number, x: Value): Value {
  const shape = x.shape.map((extent, i) => (i === dim ? 1 : extent));
  return op("sum", { dims: [dim], keepDims: true }, [x], { shape, dtype: x.dtype });
}
