import { expected, ShapeError } from "../errors.js";
import { defineGradientOf } from "../graph/passes/differentiate.js";
import { op } from "../graph/value.js";
import { checkOptions, type OptionNames } from "../options.js";
import { formatShape, integer, type Pair, pair } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { toAutocastDtype } from "./autocast.js";
import { checkFloat, checkSameDtype, checkShape, record } from "./record.js";

export interface ConvOptions {
  /** Step of the window, default 1. */
  readonly stride?: Pair;
  /** Zeros around the image, default 0. */
  readonly padding?: Pair;
  /** Distance between the window's taps, default 1. */
  readonly dilation?: Pair;
  /** Groups of channels that see only each other, default 1. */
  readonly groups?: number;
}

export const convNames: OptionNames<ConvOptions> = { stride: true, padding: true, dilation: true, groups: true };

/** ConvOptions as a node holds them. */
export type ConvAttributes = {
  readonly stride: readonly [number, number];
  readonly padding: readonly [number, number];
  readonly dilation: readonly [number, number];
  readonly groups: number;
};

/**
 * Two-dimensional cross-correlation (PyTorch's conv2d).
 *
 * @param x [N, C, H, W]
 * @param weight [O, C / groups, kh, kw]
 * @param bias [O], or undefined
 * @returns [N, O, H', W'] with H' = floor((H + 2 padding - dilation (kh - 1) - 1) / stride) + 1
 * @throws ShapeError, DtypeError, ArgumentError
 */
export function conv2d(x: Tensor, weight: Tensor, bias?: Tensor, options: ConvOptions = {}): Tensor {
  const where = "conv2d";
  checkFloat(where, x);
  checkFloat(where, weight);
  const attributes = convAttributes(where, options);
  const { stride, padding, dilation, groups } = attributes;
  checkShape(where, "weight", weight, ["O", "C", "kh", "kw"]);
  const [o, perGroup, kh, kw] = weight.shape;
  checkShape(where, "input", x, ["N", perGroup * groups, "H", "W"]);
  if (o % groups !== 0) throw new ShapeError(expected(where, `output channels divisible by ${groups} groups`, `${o}`));
  if (bias) checkShape(where, "bias", bias, [o]);
  const inputs = toAutocastDtype(bias ? [x, weight, bias] : [x, weight]);
  checkSameDtype(where, ...inputs);
  const [h, w] = [0, 1].map((i) => {
    const extent = x.shape[2 + i] + 2 * padding[i];
    const window = dilation[i] * ([kh, kw][i] - 1) + 1;
    if (window > extent)
      throw new ShapeError(
        expected(where, `an image of at least the window ${window} with padding ${padding[i]}`, formatShape(x.shape)),
      );
    return Math.floor((extent - window) / stride[i]) + 1;
  });
  return record(where, attributes, inputs, { shape: [x.shape[0], o, h, w], dtype: inputs[0].dtype });
}

/** Fills in the defaults and checks the ranges of a convolution's options. */
export function convAttributes(where: string, options: ConvOptions): ConvAttributes {
  checkOptions(where, options, convNames);
  return {
    stride: pair(where, "stride", options.stride ?? 1, 1),
    padding: pair(where, "padding", options.padding ?? 0, 0),
    dilation: pair(where, "dilation", options.dilation ?? 1, 1),
    groups: integer(where, "groups", options.groups ?? 1, 1),
  };
}

defineGradientOf("conv2d", ({ attributes, inputs: [x, weight, bias] }, dy) => {
  // the weight's first: x need not be kept while its own gradient is computed
  const dweight = op("conv2d_weight_gradient", attributes, [x, dy], weight);
  const dbias = bias && op("sum", { dims: [0, 2, 3], keepDims: false }, [dy], bias);
  return [op("conv2d_input_gradient", attributes, [dy, weight], x), dweight, dbias];
});
