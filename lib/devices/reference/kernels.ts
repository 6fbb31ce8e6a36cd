import { avgPool2d } from "./kernels/avg_pool2d.js";
import { batchNorm, batchNormTrain, runningStatistics } from "./kernels/batch_norm.js";
import { batchNormGradient } from "./kernels/batch_norm_gradient.js";
import { add, div, mul, sub } from "./kernels/binary.js";
import { broadcast, fill, reluGradient, sigmoidGradient, sliceGradient, transpose } from "./kernels/broadcast.js";
import { conv2d } from "./kernels/conv2d.js";
import { conv2dInputGradient, conv2dWeightGradient } from "./kernels/conv2d_gradient.js";
import { crossEntropy } from "./kernels/cross_entropy.js";
import { crossEntropyGradient } from "./kernels/cross_entropy_gradient.js";
import { foldBatchNorm } from "./kernels/fold_batch_norm.js";
import { gate, gateGradient } from "./kernels/gate.js";
import type { Kernel } from "./kernels/kernel.js";
import { linear } from "./kernels/linear.js";
import { matmul } from "./kernels/matmul.js";
import { maxPool2d } from "./kernels/max_pool2d.js";
import { pad, slice } from "./kernels/pad.js";
import { avgPool2dGradient, maxPool2dGradient } from "./kernels/pool2d_gradient.js";
import { mean, sum } from "./kernels/reduce.js";
import { logSoftmax, softmax } from "./kernels/softmax.js";
import { cast, exp, log, neg, relu, reshape, sigmoid, sqrt } from "./kernels/unary.js";
import { adamw, foundInf, globalNorm, lerp, scale, sgd } from "./kernels/update.js";

/** Table of contents: the kernel of each op of a plan. */
export const kernels: Readonly<Record<string, Kernel>> = {
  adamw,
  add,
  avg_pool2d: avgPool2d,
  avg_pool2d_gradient: avgPool2dGradient,
  batch_norm: batchNorm,
  batch_norm_gradient: batchNormGradient,
  batch_norm_train: batchNormTrain,
  broadcast,
  cast,
  conv2d,
  conv2d_input_gradient: conv2dInputGradient,
  conv2d_weight_gradient: conv2dWeightGradient,
  cross_entropy: crossEntropy,
  cross_entropy_gradient: crossEntropyGradient,
  div,
  exp,
  fill,
  fold_batch_norm: foldBatchNorm,
  found_inf: foundInf,
  gate,
  gate_gradient: gateGradient,
  global_norm: globalNorm,
  lerp,
  linear,
  log,
  log_softmax: logSoftmax,
  matmul,
  max_pool2d: maxPool2d,
  max_pool2d_gradient: maxPool2dGradient,
  mean,
  mul,
  neg,
  pad,
  relu,
  relu_gradient: reluGradient,
  reshape,
  running_statistics: runningStatistics,
  scale,
  sgd,
  sigmoid,
  sigmoid_gradient: sigmoidGradient,
  slice,
  slice_gradient: sliceGradient,
  softmax,
  sqrt,
  sub,
  sum,
  transpose,
};
