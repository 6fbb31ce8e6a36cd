import { expected, ShapeError } from "../errors.js";
import { type ConvAttributes, type ConvOptions, conv2d, convAttributes, convNames } from "../ops/conv2d.js";
import { checkOptions, type OptionNames } from "../options.js";
import { pythonPair } from "../print.js";
import { integer, type Pair, pair } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { Module } from "./module.js";
import { fanInUniform, Parameter } from "./parameter.js";
import { normal } from "./random.js";

export interface Conv2dOptions extends ConvOptions {
  /** Height and width of the window. */
  readonly kernelSize: Pair;
  /** Add a learned bias, default true. */
  readonly bias?: boolean;
}

const conv2dNames: OptionNames<Conv2dOptions> = { ...convNames, kernelSize: true, bias: true };

/**
 * Two-dimensional convolution: [N, inChannels, H, W] -> [N, outChannels, H', W'].
 * The weight [outChannels, inChannels / groups, kh, kw] starts Kaiming normal over the fan-out.
 */
export class Conv2d extends Module {
  readonly inChannels: number;
  readonly outChannels: number;
  readonly kernelSize: readonly [number, number];
  readonly weight: Parameter;
  readonly bias?: Parameter;
  /** Stride, padding, dilation and groups together. */
  readonly options: ConvAttributes;

  constructor(inChannels: number, outChannels: number, options: Conv2dOptions) {
    super();
    const where = "Conv2d";
    integer(where, "inChannels", inChannels, 1);
    integer(where, "outChannels", outChannels, 1);
    const { kernelSize, bias = true, ...geometry } = checkOptions(where, options, conv2dNames);
    this.inChannels = inChannels;
    this.outChannels = outChannels;
    this.kernelSize = pair(where, "kernelSize", kernelSize, 1);
    const [kh, kw] = this.kernelSize;
    this.options = convAttributes(where, geometry);
    const { groups } = this.options;
    if (inChannels % groups !== 0 || outChannels % groups !== 0)
      throw new ShapeError(
        expected(where, `channels divisible by ${groups} groups`, `${inChannels} and ${outChannels}`),
      );
    const fanOut = (outChannels / groups) * kh * kw;
    this.weight = new Parameter([outChannels, inChannels / groups, kh, kw], normal(Math.sqrt(2 / fanOut)));
    if (bias) this.bias = new Parameter([outChannels], fanInUniform((inChannels / groups) * kh * kw));
  }

  get stride(): readonly [number, number] {
    return this.options.stride;
  }

  get padding(): readonly [number, number] {
    return this.options.padding;
  }

  get dilation(): readonly [number, number] {
    return this.options.dilation;
  }

  get groups(): number {
    return this.options.groups;
  }

  protected override extraRepr(): string {
    const { stride, padding, dilation, groups } = this;
    const parts = [`${this.inChannels}`, `${this.outChannels}`, `kernel_size=${pythonPair(this.kernelSize)}`];
    parts.push(`stride=${pythonPair(stride)}`);
    if (padding.some((width) => width !== 0)) parts.push(`padding=${pythonPair(padding)}`);
    if (dilation.some((step) => step !== 1)) parts.push(`dilation=${pythonPair(dilation)}`);
    if (groups !== 1) parts.push(`groups=${groups}`);
    if (!this.bias) parts.push("bias=False");
    return parts.join(", ");
  }

  forward(x: Tensor): Tensor {
    return conv2d(x, this.weight, this.bias, this.options);
  }
}
