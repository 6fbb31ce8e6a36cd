import { normalizeDims } from "../shape.js";
import type { Tensor } from "../tensor.js";
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
  return record(op, { dim: normalizeDims(op, dim, x.shape.length)[0] }, [x], x);
}
