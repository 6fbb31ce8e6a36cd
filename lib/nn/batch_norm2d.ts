import { batchNorm } from "../ops/batch_norm.js";
import { checkOptions, type OptionNames } from "../options.js";
import { pythonNumber } from "../print.js";
import { integer } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { checkImages, Module } from "./module.js";
import { Buffer, Parameter } from "./parameter.js";

export interface BatchNorm2dOptions {
  /** Added to the variance, default 1e-5. */
  readonly eps?: number;
  /** Weight of the new batch in the running statistics, default 0.1. */
  readonly momentum?: number;
  /** Learn gamma (starts at 1) and beta (starts at 0), default true. */
  readonly affine?: boolean;
  /** Keep running statistics and use them in eval, default true. */
  readonly trackRunningStats?: boolean;
}

const batchNorm2dNames: OptionNames<BatchNorm2dOptions> = {
  eps: true,
  momentum: true,
  affine: true,
  trackRunningStats: true,
};

/** Batch normalisation of [N, features, H, W] (Ioffe & Szegedy 2015), with PyTorch's conventions and names. */
export class BatchNorm2d extends Module {
  readonly weight?: Parameter;
  readonly bias?: Parameter;
  readonly running_mean?: Buffer;
  readonly running_var?: Buffer;
  readonly num_batches_tracked?: Buffer;
  readonly features: number;
  readonly eps: number;
  readonly momentum: number;

  constructor(features: number, options: BatchNorm2dOptions = {}) {
    super();
    integer("BatchNorm2d", "features", features, 1);
    checkOptions("BatchNorm2d", options, batchNorm2dNames);
    this.features = features;
    this.eps = options.eps ?? 1e-5;
    this.momentum = options.momentum ?? 0.1;
    if (options.affine ?? true) {
      this.weight = new Parameter([features], 1);
      this.bias = new Parameter([features], 0);
    }
    if (options.trackRunningStats ?? true) {
      this.running_mean = new Buffer([features], 0);
      this.running_var = new Buffer([features], 1);
      this.num_batches_tracked = new Buffer([], 0, "int64");
    }
  }

  protected override extraRepr(): string {
    const numbers = `${this.features}, eps=${pythonNumber(this.eps)}, momentum=${pythonNumber(this.momentum)}`;
    const flag = (value: unknown) => (value ? "True" : "False");
    return `${numbers}, affine=${flag(this.weight)}, bias=${flag(this.bias)}, track_running_stats=${flag(this.running_mean)}`;
  }

  forward(x: Tensor): Tensor {
    checkImages("BatchNorm2d", x);
    const { training, weight, bias, eps, momentum, num_batches_tracked: tracked } = this;
    const y = batchNorm(x, {
      weight,
      bias,
      runningMean: this.running_mean,
      runningVar: this.running_var,
      training,
      eps,
      momentum,
    });
    if (training && tracked) tracked.variable.write(tracked.add(1).value);
    return y;
  }
}
