import { ArgumentError, expected, ImageError, shown } from "../errors.js";
import { constantValue } from "../graph/value.js";
import { checkOptions, type OptionNames } from "../options.js";
import { Tensor } from "../tensor.js";
import { prepareImage } from "./prepare.js";
import type { Geometry } from "./recipe.js";
import { type Interpolation, interpolations } from "./resize.js";
import type { ImageSource } from "./source.js";

export const cropModes = ["center", "squash", "border"] as const;
export type CropMode = (typeof cropModes)[number];

/** How an image becomes a network's input. Undefined means the default. */
export interface PreprocessOptions {
  /** Height and width of the result in pixels, default 224. */
  size?: number;
  /** The short side is first resized to floor(size / cropPct), then the centre is cut out; in (0, 1], default 0.875. */
  cropPct?: number;
  /**
   * What is done about the other side, default "center" (timm's crop_mode): "center" keeps the proportions and cuts the
   * middle out; "squash" resizes both sides to floor(size / cropPct); "border" fits the long side and fills up with the mean.
   */
  cropMode?: CropMode;
  /** Default "bilinear". */
  interpolation?: Interpolation;
  /** For each channel, of values in 0..1; default ImageNet's (one channel: the mean of its three). */
  mean?: readonly number[];
  std?: readonly number[];
  /** 3 for RGB (default), 1 for grey. */
  channels?: 1 | 3;
}

/** What `loadImage` takes. */
export interface LoadImageOptions extends PreprocessOptions {
  /**
   * Decode JPEGs at a smaller scale, as libjpeg can: at least at twice the size they are resized to. Three times as fast for
   * photos of 12 megapixels; samples differ by one or two of 255 on average. Default false.
   */
  draft?: boolean;
}

const preprocessNames: OptionNames<PreprocessOptions> = {
  size: true,
  cropPct: true,
  cropMode: true,
  interpolation: true,
  mean: true,
  std: true,
  channels: true,
};

const loadImageNames: OptionNames<LoadImageOptions> = { ...preprocessNames, draft: true };

export const imagenetMean: readonly number[] = [0.485, 0.456, 0.406];
export const imagenetStd: readonly number[] = [0.229, 0.224, 0.225];
export const largestSize = 8192;

/**
 * Loads an image (a path, a `file:` or `data:` URL, bytes or a Blob) as a network wants it: [1, channels, size, size], float32, resized, cropped and normalised exactly as
 * torchvision's `Resize`, `CenterCrop`, `ToTensor`, `Normalize` on a Pillow image. All of that is done on other threads; how
 * much memory the images that are decoded at once may take is `setImageMemoryLimit`'s.
 * Throws ImageError for a missing, damaged, too large or non-image file, ArgumentError for an option out of range.
 */
export async function loadImage(image: ImageSource, options: LoadImageOptions = {}): Promise<Tensor> {
  const { draft = false, ...preprocessing } = checkOptions("loadImage", options, loadImageNames);
  if (typeof draft !== "boolean")
    throw new ArgumentError(expected("loadImage", "draft to be true or false", shown(draft)));
  const { size, channels, mean, std, interpolation, ...rest } = checkPreprocessing(preprocessing);
  const values = await prepareImage(image, {
    geometry: (width, height) => geometryOf(width, height, { ...rest, size, fill: bytesOf(mean) }),
    interpolation,
    channels,
    draft,
    table: normalizationTable(mean, std),
  });
  return new Tensor(constantValue(values, Object.freeze([1, channels, size, size]), "float32")); // nobody else has the values
}

/** Fills in the defaults. Throws ArgumentError for an option out of its range. */
export function checkPreprocessing(options: PreprocessOptions): Required<PreprocessOptions> {
  const checked = checkOptions("loadImage", options, preprocessNames);
  const { size = 224, cropPct = 0.875, cropMode = "center", interpolation = "bilinear", channels = 3 } = checked;
  const checkedOptions = checkImageOptions("loadImage", { size, cropPct, cropMode, interpolation, channels });
  const must = (holds: boolean, what: string, got: unknown): void => {
    if (!holds) throw new ArgumentError(expected("loadImage", what, shown(got)));
  };
  const { mean = defaultFor(imagenetMean, channels), std = defaultFor(imagenetStd, channels) } = options;
  must(isStatistic(mean, channels), `mean to be ${channels} finite numbers`, mean);
  must(isStatistic(std, channels) && std.every((value) => value > 0), `std to be ${channels} positive numbers`, std);
  return { ...checkedOptions, mean, std };
}

type ImageOptions = Pick<Required<PreprocessOptions>, "size" | "cropPct" | "cropMode" | "interpolation" | "channels">;

/** What decides which pixels there are. Throws ArgumentError for a value out of its range. */
export function checkImageOptions(where: string, options: ImageOptions): ImageOptions {
  const { size, cropPct, cropMode, interpolation, channels } = options;
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
  must(cropModes.includes(cropMode), `cropMode to be one of ${cropModes.join(", ")}`, cropMode);
  must(channels === 1 || channels === 3, "channels to be 1 or 3", channels);
  return options;
}

function defaultFor(statistic: readonly number[], channels: number): readonly number[] {
  return channels === 1 ? [statistic.reduce((sum, value) => sum + value, 0) / statistic.length] : statistic;
}

function isStatistic(values: unknown, channels: number): boolean {
  return Array.isArray(values) && values.length === channels && values.every(Number.isFinite);
}

/**
 * torchvision's Resize(floor(size / cropPct)) and CenterCrop(size), or what timm has for another crop mode, as one window of
 * the resized image. `fill` is what "border" fills up with, a byte for each channel or one for all.
 */
export function geometryOf(
  imageWidth: number,
  imageHeight: number,
  { size, cropPct, cropMode, fill }: Pick<ImageOptions, "size" | "cropPct" | "cropMode"> & { fill: readonly number[] },
): Geometry {
  const side = Math.floor(size / cropPct);
  const [width, height] = resizedSides(imageWidth, imageHeight, side, cropMode);
  if (Math.max(width, height) >= 2 ** 31)
    throw new ImageError(
      expected(
        "loadImage",
        "a resized image with sides under 2^31 pixels",
        `${width} x ${height} (size ${size}, cropPct ${cropPct})`,
      ),
    );
  // only a border leaves a side below `size`
  const window = {
    left: centre(Math.max(width - size, 0)),
    top: centre(Math.max(height - size, 0)),
    width: Math.min(width, size),
    height: Math.min(height, size),
  };
  if (cropMode !== "border" || (window.width === size && window.height === size)) return { width, height, window };
  // in the middle of a square (timm's CenterCropOrPad): what is missing is halved, rounded down before it
  const canvas = {
    side: size,
    left: Math.floor((size - window.width) / 2),
    top: Math.floor((size - window.height) / 2),
    fill: [0, 1, 2].map((channel) => fill[channel % fill.length]),
  };
  return { width, height, window, canvas };
}

function resizedSides(width: number, height: number, side: number, mode: CropMode): [number, number] {
  if (mode === "squash") return [side, side];
  if (mode === "border") {
    const ratio = Math.max(width, height) / side; // timm's ResizeKeepRatio(longest=1)
    return [roundHalfEven(width / ratio), roundHalfEven(height / ratio)];
  }
  return width <= height ? [side, Math.trunc((side * height) / width)] : [Math.trunc((side * width) / height), side];
}

/** A mean of values in 0..1 as the nearest byte for each channel. */
export function bytesOf(mean: readonly number[]): number[] {
  return mean.map((value) => roundHalfEven(255 * value));
}

/** Python's round(): halves go to the even neighbour. */
function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  return value - floor === 0.5 && floor % 2 === 0 ? floor : Math.round(value);
}

/** Python's int(round(slack / 2)): halves go to the even neighbour. */
function centre(slack: number): number {
  const floor = Math.floor(slack / 2);
  return slack % 2 === 1 && floor % 2 === 1 ? floor + 1 : floor;
}

/** What each of the 256 samples of each channel becomes, in the float32 steps that ToTensor and Normalize take. */
function normalizationTable(mean: readonly number[], std: readonly number[]): Float32Array {
  const table = new Float32Array(256 * mean.length);
  for (const channel of mean.keys())
    for (let sample = 0; sample < 256; sample++) {
      const centred = Math.fround(Math.fround(sample / 255) - Math.fround(mean[channel]));
      table[channel * 256 + sample] = centred / Math.fround(std[channel]);
    }
  return table;
}
