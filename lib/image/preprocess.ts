import { ArgumentError, expected, ImageError, shown } from "../errors.js";
import { checkOptions, type OptionNames } from "../options.js";
import { type Tensor, tensor } from "../tensor.js";
import { decodeImage, toGrey } from "./decode.js";
import { type Interpolation, interpolations, type Raster, resize } from "./resize.js";

/** How a picture becomes a network's input. Undefined means the default. */
export interface PreprocessOptions {
  /** Height and width of the result in pixels, default 224. */
  size?: number;
  /** The short side is first resized to floor(size / cropPct), then the centre is cut out; in (0, 1], default 0.875. */
  cropPct?: number;
  /** Default "bilinear". */
  interpolation?: Interpolation;
  /** For each channel, of values in 0..1; default ImageNet's (one channel: the mean of its three). */
  mean?: readonly number[];
  std?: readonly number[];
  /** 3 for RGB (default), 1 for grey. */
  channels?: 1 | 3;
}

const preprocessNames: OptionNames<PreprocessOptions> = {
  size: true,
  cropPct: true,
  interpolation: true,
  mean: true,
  std: true,
  channels: true,
};

export const imagenetMean: readonly number[] = [0.485, 0.456, 0.406];
export const imagenetStd: readonly number[] = [0.229, 0.224, 0.225];
const largestSize = 8192;

/**
 * Loads a picture as a network wants it: [1, channels, size, size], float32, resized, cropped and normalised exactly as
 * torchvision's `Resize`, `CenterCrop`, `ToTensor`, `Normalize` on a Pillow image.
 * Throws ImageError for a missing, damaged, too large or non-image file, ArgumentError for an option out of range.
 */
export async function loadImage(pathOrBuffer: string | Uint8Array, options: PreprocessOptions = {}): Promise<Tensor> {
  const checked = checkPreprocessing(options);
  return preprocess(await decodeImage(pathOrBuffer), checked);
}

function preprocess(image: Raster, options: Required<PreprocessOptions>): Tensor {
  const { size, channels, mean, std } = options;
  const cropped = resizeAndCrop(channels === 1 ? toGrey(image) : image, options);
  return tensor(normalize(cropped, mean, std), [1, channels, size, size]);
}

function checkPreprocessing(options: PreprocessOptions): Required<PreprocessOptions> {
  const checked = checkOptions("loadImage", options, preprocessNames);
  const { size = 224, cropPct = 0.875, interpolation = "bilinear", channels = 3 } = checked;
  const picture = checkPicture("loadImage", { size, cropPct, interpolation, channels });
  const must = (holds: boolean, what: string, got: unknown): void => {
    if (!holds) throw new ArgumentError(expected("loadImage", what, shown(got)));
  };
  const { mean = defaultFor(imagenetMean, channels), std = defaultFor(imagenetStd, channels) } = options;
  must(isStatistic(mean, channels), `mean to be ${channels} finite numbers`, mean);
  must(isStatistic(std, channels) && std.every((value) => value > 0), `std to be ${channels} positive numbers`, std);
  return { ...picture, mean, std };
}

type PictureOptions = Pick<Required<PreprocessOptions>, "size" | "cropPct" | "interpolation" | "channels">;

/** What decides which pixels there are. Throws ArgumentError for a value out of its range. */
export function checkPicture(where: string, options: PictureOptions): PictureOptions {
  const { size, cropPct, interpolation, channels } = options;
  const must = (holds: boolean, what: string, got: unknown): void => {
    if (!holds) throw new ArgumentError(expected(where, what, shown(got)));
  };
  must(
    Number.isInteger(size) && size > 0 && size <= largestSize,
    `size to be a whole number in 1..${largestSize}`,
    size,
  );
  must(typeof cropPct === "number" && cropPct > 0 && cropPct <= 1, "cropPct in (0, 1]", cropPct);
  must(
    interpolations.includes(interpolation),
    `interpolation to be one of ${interpolations.join(", ")}`,
    interpolation,
  );
  must(channels === 1 || channels === 3, "channels to be 1 or 3", channels);
  return options;
}

function defaultFor(statistic: readonly number[], channels: number): readonly number[] {
  return channels === 1 ? [statistic.reduce((sum, value) => sum + value, 0) / statistic.length] : statistic;
}

function isStatistic(values: unknown, channels: number): boolean {
  return Array.isArray(values) && values.length === channels && values.every(Number.isFinite);
}

/** torchvision's Resize(floor(size / cropPct)) and CenterCrop(size), as one window of the resized picture. */
export function resizeAndCrop(
  image: Raster,
  { size, cropPct, interpolation }: Pick<Required<PreprocessOptions>, "size" | "cropPct" | "interpolation">,
): Raster {
  const short = Math.floor(size / cropPct);
  const [width, height] =
    image.width <= image.height
      ? [short, Math.trunc((short * image.height) / image.width)]
      : [Math.trunc((short * image.width) / image.height), short];
  if (Math.max(width, height) >= 2 ** 31)
    throw new ImageError(
      expected(
        "loadImage",
        "a resized picture with sides under 2^31 pixels",
        `${width} x ${height} (size ${size}, cropPct ${cropPct})`,
      ),
    );
  // both sides are at least `size`, because cropPct is at most 1: the crop never needs padding
  const window = { left: centre(width - size), top: centre(height - size), width: size, height: size };
  return resize(image, width, height, interpolation, window);
}

/** Python's int(round(slack / 2)): halves go to the even neighbour. */
function centre(slack: number): number {
  const floor = Math.floor(slack / 2);
  return slack % 2 === 1 && floor % 2 === 1 ? floor + 1 : floor;
}

/** 8-bit interleaved samples to planar float32, in the float32 steps that ToTensor and Normalize take. */
function normalize({ data, channels }: Raster, mean: readonly number[], std: readonly number[]): Float32Array {
  const pixels = data.length / channels;
  const values = new Float32Array(data.length);
  for (let c = 0; c < channels; c++) {
    const table = Float32Array.from({ length: 256 }, (_, sample) =>
      Math.fround(Math.fround(Math.fround(sample / 255) - Math.fround(mean[c])) / Math.fround(std[c])),
    );
    for (let i = 0; i < pixels; i++) values[c * pixels + i] = table[data[i * channels + c]];
  }
  return values;
}
