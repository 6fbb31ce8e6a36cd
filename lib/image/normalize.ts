import { ArgumentError, expected } from "../errors.js";
import { checkOptions, type OptionNames } from "../options.js";
import { formatShape } from "../shape.js";
import { type Tensor, tensor } from "../tensor.js";

/** How pixels become a network's input: `(pixel / 255 - mean) / std`, one number per channel. */
export interface Normalization {
  readonly mean: readonly number[];
  readonly std: readonly number[];
}

const normalizationNames: OptionNames<Normalization> = { mean: true, std: true };

/** Throws ArgumentError unless there are as many means as non-zero standard deviations. */
export function checkNormalization(where: string, normalize: Normalization): void {
  const { mean, std } = checkOptions(where, normalize, normalizationNames, "normalize");
  const numbers = Array.isArray(mean) && Array.isArray(std) && [...mean, ...std].every(Number.isFinite);
  if (!numbers || mean.length === 0 || mean.length !== std.length || std.some((s) => s === 0))
    throw new ArgumentError(
      expected(where, "normalize to hold as many means as non-zero standard deviations", JSON.stringify({ mean, std })),
    );
}

/** Records what makes floats of uint8 pixels [N, C, H, W]. Throws ArgumentError for another number of channels. */
export function normalized(where: string, pixels: Tensor, { mean, std }: Normalization): Tensor {
  if (pixels.shape[1] !== mean.length)
    throw new ArgumentError(expected(where, `${mean.length} channels, as in normalize`, formatShape(pixels.shape)));
  const channel = (values: readonly number[]) => tensor([...values], [1, values.length, 1, 1]);
  return pixels.cast("float32").div(255).sub(channel(mean)).div(channel(std));
}
