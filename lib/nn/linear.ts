import { linear } from "../ops/linear.js";
import { integer } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { Module } from "./module.js";
import { fanInUniform, Parameter } from "./parameter.js";

/** x W^T + b: [..., inFeatures] -> [..., outFeatures]. Weight and bias start uniform in ±1/sqrt(inFeatures). */
export class Linear extends Module {
  readonly weight: Parameter;
  readonly bias?: Parameter;

  constructor(inFeatures: number, outFeatures: number, { bias = true }: { readonly bias?: boolean } = {}) {
    super();
    integer("Linear", "inFeatures", inFeatures, 1);
    integer("Linear", "outFeatures", outFeatures, 1);
    this.weight = new Parameter([outFeatures, inFeatures], fanInUniform(inFeatures));
    if (bias) this.bias = new Parameter([outFeatures], fanInUniform(inFeatures));
  }

  forward(x: Tensor): Tensor {
    return linear(x, this.weight, this.bias);
  }
}
