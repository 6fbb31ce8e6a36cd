import { ArgumentError, expected, ShapeError } from "../errors.js";
import { defineGradientOf } from "../graph/passes/differentiate.js";
import { op } from "../graph/value.js";
import { checkOptions, type OptionNames } from "../options.js";
import { formatShape, type Pair, pair } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { checkFloat, checkShape, record } from "./record.js";

export interface PoolOptions {
  readonly kernelSize: Pair;
  /** Step of the window, default the kernel size. */
  readonly stride?: Pair;
  /** Border around the image, at most half the kernel size, default 0. */
  readonly padding?: Pair;
  /** Keep a last window that runs over the edge, default false. */
  readonly ceilMode?: boolean;
}

export interface MaxPoolOptions extends PoolOptions {
  /** Distance between the window's taps, default 1. */
  readonly dilation?: Pair;
}

export interface AvgPoolOptions extends PoolOptions {
  /** Count the padding's zeros in the average, default true. */
  readonly countIncludePad?: boolean;
}

const poolNames: OptionNames<PoolOptions> = { kernelSize: true, stride: true, padding: true, ceilMode: true };
export const maxPoolNames: OptionNames<MaxPoolOptions> = { ...poolNames, dilation: true };
export const avgPoolNames: OptionNames<AvgPoolOptions> = { ...poolNames, countIncludePad: true };

/** The largest value of each window. [N, C, H, W] -> [N, C, H', W']; the border counts as minus infinity. */
export function maxPool2d(x: Tensor, options: MaxPoolOptions): Tensor {
  const where = "max_pool2d";
  const dilation = pair(where, "dilation", checkOptions(where, options, maxPoolNames).dilation ?? 1, 1);
  return pool(where, x, options, dilation, { dilation });
}

/** The average of each window. [N, C, H, W] -> [N, C, H', W']. */
export function avgPool2d(x: Tensor, options: AvgPoolOptions): Tensor {
  return pool("avg_pool2d", x, options, [1, 1], {
    countIncludePad: Boolean(checkOptions("avg_pool2d", options, avgPoolNames).countIncludePad ?? true),
  });
}

function pool(
  where: string,
  x: Tensor,
  options: PoolOptions,
  dilation: readonly [number, number],
  extra: { dilation: readonly [number, number] } | { countIncludePad: boolean },
): Tensor {
  checkFloat(where, x);
  checkShape(where, "input", x, ["N", "C", "H", "W"]);
  const kernelSize = pair(where, "kernelSize", options.kernelSize, 1);
  const stride = pair(where, "stride", options.stride ?? kernelSize, 1);
  const padding = pair(where, "padding", options.padding ?? 0, 0);
  const ceilMode = Boolean(options.ceilMode ?? false);
  const [h, w] = [0, 1].map((i) => {
    if (2 * padding[i] > kernelSize[i])
      throw new ArgumentError(expected(where, `padding of at most half the kernel ${kernelSize[i]}`, `${padding[i]}`));
    const free = x.shape[2 + i] + 2 * padding[i] - dilation[i] * (kernelSize[i] - 1) - 1;
    const whole = (ceilMode ? Math.ceil : Math.floor)(free / stride[i]) + 1;
    // PyTorch: the last window must start inside the image or its left border
    const extent = ceilMode && (whole - 1) * stride[i] >= x.shape[2 + i] + padding[i] ? whole - 1 : whole;
    if (extent < 1)
      throw new ShapeError(expected(where, `an image of at least the window ${kernelSize}`, formatShape(x.shape)));
    return extent;
  });
  const shape = [x.shape[0], x.shape[1], h, w];
  return record(where, { kernelSize, stride, padding, ceilMode, ...extra }, [x], { shape, dtype: x.dtype });
}

defineGradientOf("max_pool2d", ({ attributes, inputs: [x] }, dy) => [
  op("max_pool2d_gradient", attributes, [x, dy], x),
]);
defineGradientOf("avg_pool2d", ({ attributes, inputs: [x] }, dy) => [op("avg_pool2d_gradient", attributes, [dy], x)]);
