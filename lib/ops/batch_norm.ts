import { ArgumentError, expected, ShapeError } from "../errors.js";
import type { Attributes } from "../graph/attributes.js";
import { defineGradient, defineGradientOf } from "../graph/passes/differentiate.js";
import { constantValue, Node, type Value, type ValueType } from "../graph/value.js";
import { checkOptions, type OptionNames } from "../options.js";
import { formatShape, sizeOf } from "../shape.js";
import { Tensor, type VariableTensor } from "../tensor.js";
import { checkFloat, checkSameDtype, checkShape, checkTensor, record, recordAll } from "./record.js";

export interface BatchNormOptions {
  readonly weight?: Tensor;
  readonly bias?: Tensor;
  /** Running statistics [C]: normalised with in eval, updated in training. Without them the batch's own are always used. */
  readonly runningMean?: Tensor;
  readonly runningVar?: Tensor;
  /** Normalise with the batch's statistics and track them, default false. */
  readonly training?: boolean;
  /** Weight of the new batch in the running statistics, default 0.1. */
  readonly momentum?: number;
  /** Added to the variance, default 1e-5. */
  readonly eps?: number;
}

const batchNormNames: OptionNames<BatchNormOptions> = {
  weight: true,
  bias: true,
  runningMean: true,
  runningVar: true,
  training: true,
  momentum: true,
  eps: true,
};

/**
 * Batch normalisation over all dimensions but the second (Ioffe & Szegedy 2015, algorithm 1; PyTorch's conventions):
 * normalises with the biased variance; in training records
 * `running = (1 - momentum) * running + momentum * batch` with the unbiased variance.
 *
 * @param x [N, C, ...]
 * @throws ShapeError; in training also when a channel has a single value
 */
export function batchNorm(x: Tensor, options: BatchNormOptions = {}): Tensor {
  const where = "batch_norm";
  const {
    weight,
    bias,
    runningMean,
    runningVar,
    training = false,
    momentum = 0.1,
    eps = 1e-5,
  } = checkOptions(where, options, batchNormNames);
  checkFloat(where, x);
  if (x.shape.length < 2) throw new ShapeError(expected(where, "input [N, C, ...]", formatShape(x.shape)));
  if (!(eps >= 0 && eps < Number.POSITIVE_INFINITY))
    throw new ArgumentError(expected(where, "eps of at least 0", `${eps}`));
  if (!(momentum >= 0 && momentum <= 1)) throw new ArgumentError(expected(where, "momentum in [0, 1]", `${momentum}`));
  const channels = x.shape[1];
  if (!weight !== !bias) throw new ArgumentError(expected(where, "weight and bias together", "one of them"));
  if (!runningMean !== !runningVar)
    throw new ArgumentError(expected(where, "runningMean and runningVar together", "one of them"));
  const affine = weight && bias ? [weight, bias] : [];
  const running = runningMean && runningVar ? [runningMean, runningVar] : [];
  for (const vector of [...affine, ...running]) checkChannels(where, x, vector);
  const [like = x] = [...running, ...affine];
  checkSameDtype(where, like, ...affine, ...running);
  if (like.dtype !== "float32") checkSameDtype(where, x, like); // float32 goes with every x
  if (!training && running.length > 0) return recordBatchNorm([x, ...running, ...affine], eps);

  const count = sizeOf(x.shape) / channels;
  if (count === 1)
    throw new ShapeError(expected(where, "more than one value per channel in training", formatShape(x.shape)));
  const statistics: ValueType = { shape: [channels], dtype: "float32" };
  const [y, mean, variance] = recordAll("batch_norm_train", { eps }, [x, ...affine], [x, statistics, statistics]);
  if (training) track(running.map(buffer), [mean, variance], momentum, count);
  return y;
}

/** Records batch norm with given statistics. Inputs: x, mean, variance and, where affine, gamma and beta. */
export function recordBatchNorm(inputs: readonly Tensor[], eps: number): Tensor {
  return record("batch_norm", { eps }, inputs, inputs[0]);
}

/** A node of its own: who looks at a loss before `backward` has the statistics tracked, and the batch norm still to be run. */
function track(running: readonly VariableTensor[], batch: readonly Tensor[], momentum: number, count: number): void {
  if (running.length === 0) return;
  const share = new Tensor(constantValue(Float32Array.of(momentum), [], "float32"));
  const updated = recordAll("running_statistics", { count }, [...running, ...batch, share], running);
  for (const [i, { variable }] of running.entries()) variable.write(updated[i].value);
}

function buffer(running: Tensor): VariableTensor {
  if (!("variable" in running))
    throw new ArgumentError(expected("batch_norm", "running statistics that are buffers", "plain tensors"));
  return running as VariableTensor;
}

function checkChannels(where: string, x: Tensor, vector: Tensor): void {
  checkTensor(where, vector, "weight, bias and statistics to be tensors");
  if (vector.shape[0] !== x.shape[1]) {
    const pattern = ["N", vector.shape[0], ...x.shape.slice(2).map((_, i) => "HWD"[i] ?? "...")];
    checkShape(where, "input", x, pattern);
  }
  checkShape(where, "weight, bias and statistics", vector, [x.shape[1]]);
}

defineGradientOf("batch_norm", ({ attributes, inputs: [x, mean, variance, gamma, beta] }, dy) => {
  const [dx, dgamma, dbeta] = gradientsOf({ eps: attributes.eps, training: false }, [x, mean, variance, dy], gamma);
  return [dx, undefined, undefined, gamma && dgamma, beta && dbeta];
});
// with a tail (`+ residual` and ReLU, each where the attributes say so); the batch statistics are only tracked, so no
// gradient comes from them
defineGradient("batch_norm_train", ({ attributes, inputs: [x, ...more], outputs: [y, mean, variance] }, [dy]) => {
  if (!dy) return [];
  const { eps, residual = false, relu = false } = attributes;
  const gamma = more.length > 1 ? more[0] : undefined;
  const tail: Attributes = relu ? { residual, relu } : {};
  const rest = gradientsOf({ eps, training: true, ...tail }, [x, mean, variance, dy], gamma, relu ? y : undefined);
  const [dx, dgamma, dbeta, masked = dy] = rest;
  return [dx, ...(gamma ? [dgamma, dbeta] : []), ...(residual ? [masked] : [])];
});

/** dx, dgamma, dbeta and, where a ReLU comes behind a residual, that residual's. */
function gradientsOf(attributes: Attributes, inputs: readonly Value[], gamma?: Value, activated?: Value) {
  const [x, mean] = inputs;
  const all = [...inputs, ...(gamma ? [gamma] : []), ...(activated ? [activated] : [])];
  return new Node("batch_norm_gradient", attributes, all, [x, mean, mean, ...(attributes.residual ? [x] : [])]).outputs;
}
