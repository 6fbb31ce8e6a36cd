import type { DType } from "../dtype.js";
import { type Operand, Tensor } from "../tensor.js";
import { add, div, mul, sub } from "./binary.js";
import { matmul } from "./linear.js";
import { mean, type ReduceOptions, sum } from "./reduce.js";
import { flatten, reshape } from "./reshape.js";
import { logSoftmax, softmax } from "./softmax.js";
import { cast, detach, exp, log, neg, relu, sigmoid, sqrt } from "./unary.js";

/** The ops as methods of tensors, whose first argument is the tensor itself. */
declare module "../tensor.js" {
  interface Tensor {
    /** The same values, cut off from what they were computed from: `backward` stops here. */
    detach(): Tensor;
    add(other: Operand): Tensor;
    sub(other: Operand): Tensor;
    mul(other: Operand): Tensor;
    div(other: Operand): Tensor;
    relu(): Tensor;
    sigmoid(): Tensor;
    sqrt(): Tensor;
    exp(): Tensor;
    log(): Tensor;
    neg(): Tensor;
    /** `[..., M, K] x [..., K, N] -> [..., M, N]`. */
    matmul(other: Tensor): Tensor;
    /** Sum over `dims` (all when left out). */
    sum(dims?: number | readonly number[], options?: ReduceOptions): Tensor;
    /** Mean over `dims` (all when left out). */
    mean(dims?: number | readonly number[], options?: ReduceOptions): Tensor;
    /** The same elements in another shape; one extent may be -1. */
    reshape(shape: readonly number[]): Tensor;
    /** Dimensions from `startDim` on become one: `[N, C, H, W].flatten(1) -> [N, C*H*W]`. */
    flatten(startDim?: number): Tensor;
    softmax(dim: number): Tensor;
    logSoftmax(dim: number): Tensor;
    /** The same values in another dtype. Floats to integers truncate. */
    cast(dtype: DType): Tensor;
  }
}

const methods = {
  detach(this: Tensor): Tensor {
    return detach(this);
  },
  add(this: Tensor, other: Operand): Tensor {
    return add(this, other);
  },
  sub(this: Tensor, other: Operand): Tensor {
    return sub(this, other);
  },
  mul(this: Tensor, other: Operand): Tensor {
    return mul(this, other);
  },
  div(this: Tensor, other: Operand): Tensor {
    return div(this, other);
  },
  relu(this: Tensor): Tensor {
    return relu(this);
  },
  sigmoid(this: Tensor): Tensor {
    return sigmoid(this);
  },
  sqrt(this: Tensor): Tensor {
    return sqrt(this);
  },
  exp(this: Tensor): Tensor {
    return exp(this);
  },
  log(this: Tensor): Tensor {
    return log(this);
  },
  neg(this: Tensor): Tensor {
    return neg(this);
  },
  matmul(this: Tensor, other: Tensor): Tensor {
    return matmul(this, other);
  },
  sum(this: Tensor, dims?: number | readonly number[], options?: ReduceOptions): Tensor {
    return sum(this, dims, options);
  },
  mean(this: Tensor, dims?: number | readonly number[], options?: ReduceOptions): Tensor {
    return mean(this, dims, options);
  },
  reshape(this: Tensor, shape: readonly number[]): Tensor {
    return reshape(this, shape);
  },
  flatten(this: Tensor, startDim = 0): Tensor {
    return flatten(this, startDim);
  },
  softmax(this: Tensor, dim: number): Tensor {
    return softmax(this, dim);
  },
  logSoftmax(this: Tensor, dim: number): Tensor {
    return logSoftmax(this, dim);
  },
  cast(this: Tensor, dtype: DType): Tensor {
    return cast(this, dtype);
  },
};

for (const [name, value] of Object.entries(methods))
  Object.defineProperty(Tensor.prototype, name, { value, writable: true, configurable: true });
