import { ArgumentError, expected, shown } from "../errors.js";
import {
  type AvgPoolOptions,
  avgPool2d,
  avgPoolNames,
  type MaxPoolOptions,
  maxPool2d,
  maxPoolNames,
  type PoolOptions,
} from "../ops/pool2d.js";
import { mean } from "../ops/reduce.js";
import { checkOptions } from "../options.js";
import { pythonPair } from "../print.js";
import { type Pair, pair } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { checkImages, Module } from "./module.js";

/** The largest value of each window: [N, C, H, W] -> [N, C, H', W']. */
export class MaxPool2d extends Module {
  constructor(readonly options: MaxPoolOptions) {
    super();
    pair("MaxPool2d", "kernelSize", checkOptions("MaxPool2d", options, maxPoolNames).kernelSize, 1);
  }

  protected override extraRepr(): string {
    const { dilation = 1 } = this.options;
    return `${windowText(this.options)}, dilation=${pairText(dilation)}, ceil_mode=${this.options.ceilMode ? "True" : "False"}`;
  }

  forward(x: Tensor): Tensor {
    return maxPool2d(x, this.options);
  }
}

/** The average of each window: [N, C, H, W] -> [N, C, H', W']. */
export class AvgPool2d extends Module {
  constructor(readonly options: AvgPoolOptions) {
    super();
    pair("AvgPool2d", "kernelSize", checkOptions("AvgPool2d", options, avgPoolNames).kernelSize, 1);
  }

  protected override extraRepr(): string {
    return windowText(this.options);
  }

  forward(x: Tensor): Tensor {
    return avgPool2d(x, this.options);
  }
}

/** Average over the whole image, whatever its size: [N, C, H, W] -> [N, C, 1, 1]. Output size 1 is the only one there is. */
export class AdaptiveAvgPool2d extends Module {
  constructor(outputSize: Pair = 1) {
    super();
    if (pair("AdaptiveAvgPool2d", "outputSize", outputSize, 1).some((extent) => extent !== 1))
      throw new ArgumentError(expected("AdaptiveAvgPool2d", "output size 1", shown(outputSize)));
  }

  protected override extraRepr(): string {
    return "output_size=1";
  }

  forward(x: Tensor): Tensor {
    checkImages("AdaptiveAvgPool2d", x);
    return mean(x, [2, 3], { keepDims: true });
  }
}

function windowText({ kernelSize, stride = kernelSize, padding = 0 }: PoolOptions): string {
  return `kernel_size=${pairText(kernelSize)}, stride=${pairText(stride)}, padding=${pairText(padding)}`;
}

function pairText(pair: Pair): string {
  return typeof pair === "number" ? `${pair}` : pythonPair(pair);
}
