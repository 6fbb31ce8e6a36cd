import { avgPool2d } from "./avg_pool2d.js";
import { batchNorm, batchNormTrain } from "./batch_norm.js";
import { add, div, mul, sub } from "./binary.js";
import { conv2d } from "./conv2d.js";
import { crossEntropy } from "./cross_entropy.js";
import { foldBatchNorm } from "./fold_batch_norm.js";
import type { Kernel } from "./kernel.js";
import { linear } from "./linear.js";
import { matmul } from "./matmul.js";
import { maxPool2d } from "./max_pool2d.js";
import { pad, slice } from "./pad.js";
import { mean, sum } from "./reduce.js";
import { logSoftmax, softmax } from "./softmax.js";
import { cast, exp, log, neg, relu, reshape, sigmoid, sqrt } from "./unary.js";

/** Table of contents: the kernel of each op of a plan. */
export const kernels: Readonly<Record<string, Kernel>> = {
  add,
  avg_pool2d: avgPool2d,
  batch_norm: batchNorm,
  batch_norm_train: batchNormTrain,
  cast,
  conv2d,
  cross_entropy: crossEntropy,
  div,
  exp,
  fold_batch_norm: foldBatchNorm,
  linear,
  log,
  log_softmax: logSoftmax,
  matmul,
  max_pool2d: maxPool2d,
  mean,
  mul,
  neg,
  pad,
  relu,
  reshape,
  sigmoid,
  slice,
  softmax,
  sqrt,
  sub,
  sum,
};
