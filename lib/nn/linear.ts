import { linear } from "../ops/linear.js";
import { checkOptions, type OptionNames } from "../options.js";
import { integer } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { Module } from "./module.js";
import { fanInUniform, Parameter } from "./parameter.js";

export interface LinearOptions {
  /** Add a learned bias, default true. */
  readonly bias?: boolean;
}

const linearNames: OptionNames<LinearOptions> = { bias: true };

/** x W^T + b: [..., inFeatures] -> [..., outFeatures]. Weight and bias start uniform in ±1/sqrt(inFeatures). */
export class Linear extends Module {
  readonly weight: Parameter;
  readonly bias?: Parameter;

  constructor(inFeatures: number, outFeatures: number, options: LinearOptions = {}) {
    super();
    const { bias = true } = checkOptions("Linear", options, linearNames);
    integer("Linear", "inFeatures", inFeatures, 1);
    integer("Linear", "outFeatures", outFeatures, 1);
    this.weight = new Parameter([outFeatures, inFeatures], fanInUniform(inFeatures));
    if (bias) this.bias = new Parameter([outFeatures], fanInUniform(inFeatures));
  }

  protected override extraRepr(): string {
    const [outFeatures, inFeatures] = this.weight.shape;
    return `in_features=${inFeatures}, out_features=${outFeatures}, bias=${this.bias ? "True" : "False"}`;
  }

  forward(x: Tensor): Tensor {
    return linear(x, this.weight, this.bias);
  }
}
