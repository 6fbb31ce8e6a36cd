import { flatten } from "../ops/reshape.js";
import { relu, sigmoid } from "../ops/unary.js";
import type { Tensor } from "../tensor.js";
import { Module } from "./module.js";

/** max(x, 0). */
export class ReLU extends Module {
  forward(x: Tensor): Tensor {
    return relu(x);
  }
}

/** 1 / (1 + e^-x). */
export class Sigmoid extends Module {
  forward(x: Tensor): Tensor {
    return sigmoid(x);
  }
}

/** x itself. */
export class Identity extends Module {
  forward(x: Tensor): Tensor {
    return x;
  }
}

/** Dimensions from `startDim` (default 1) on become one: [N, C, H, W] -> [N, C*H*W]. */
export class Flatten extends Module {
  constructor(readonly startDim = 1) {
    super();
  }

  protected override extraRepr(): string {
    return `start_dim=${this.startDim}, end_dim=-1`;
  }

  forward(x: Tensor): Tensor {
    return flatten(x, this.startDim);
  }
}
