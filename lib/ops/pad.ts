import { expected, ShapeError, shown } from "../errors.js";
import { defineGradientOf } from "../graph/passes/differentiate.js";
import { op } from "../graph/value.js";
import { checkOptions, type OptionNames } from "../options.js";
import { formatShape } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { checkTensor, record } from "./record.js";

/** Zeros before and after each dimension: extent becomes before + extent + after. */
export function pad(x: Tensor, before: readonly number[], after: readonly number[]): Tensor {
  checkTensor("pad", x);
  for (const widths of [before, after])
    if (
      !Array.isArray(widths) ||
      widths.length !== x.shape.length ||
      !widths.every((n) => Number.isSafeInteger(n) && n >= 0)
    )
      throw new ShapeError(
        expected("pad", `${x.shape.length} widths of at least 0 for ${formatShape(x.shape)}`, shown(widths)),
      );
  const shape = x.shape.map((extent, i) => before[i] + extent + after[i]);
  return record("pad", { before: [...before], after: [...after] }, [x], { shape, dtype: x.dtype });
}

export interface SliceOptions {
  /** First index of each dimension, default 0. */
  readonly starts?: readonly number[];
  /** Index behind the last one of each dimension, default the extent. */
  readonly ends?: readonly number[];
  /** Step of each dimension, default 1. */
  readonly steps?: readonly number[];
}

const sliceNames: OptionNames<SliceOptions> = { starts: true, ends: true, steps: true };

/** Every `step`-th index from `start` up to, not including, `end`, in each dimension. */
export function slice(x: Tensor, options: SliceOptions): Tensor {
  checkTensor("slice", x);
  const starts = checkOptions("slice", options, sliceNames).starts ?? x.shape.map(() => 0);
  const ends = options.ends ?? x.shape;
  const steps = options.steps ?? x.shape.map(() => 1);
  const shape = x.shape.map((extent, i) => {
    const [start, end, step] = [starts[i], ends[i], steps[i]];
    const fits = [start, end, step].every(Number.isSafeInteger) && start >= 0 && start < end && end <= extent;
    if (!fits || step < 1)
      throw new ShapeError(expected("slice", `0 <= start < end <= ${extent}, step >= 1`, `${start}:${end}:${step}`));
    return Math.ceil((end - start) / step);
  });
  return record("slice", { starts: [...starts], steps: [...steps] }, [x], { shape, dtype: x.dtype });
}

defineGradientOf("pad", ({ attributes, inputs: [x] }, dy) => [
  op("slice", { starts: attributes.before, steps: x.shape.map(() => 1) }, [dy], x),
]);
defineGradientOf("slice", ({ attributes, inputs: [x] }, dy) => [op("slice_gradient", attributes, [dy], x)]);
