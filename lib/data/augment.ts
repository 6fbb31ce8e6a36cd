import { ArgumentError, expected, shown } from "../errors.js";
import { crop, type Raster, type Window } from "../image/resize.js";
import type { Generator } from "../nn/random.js";
import { checkOptions, type OptionNames } from "../options.js";
import { integer } from "../shape.js";
import { below, between } from "./random.js";

type Range = readonly [least: number, most: number];

export interface CropOptions {
  /** Share of the area, default [0.08, 1]. */
  readonly scale?: Range;
  /** Width over height, default [3 / 4, 4 / 3]. */
  readonly ratio?: Range;
}

export interface ErasingOptions {
  /** Default 0.5. */
  readonly probability?: number;
  /** Share of the area, default [0.02, 0.33]. */
  readonly scale?: Range;
  /** Width over height, default [0.3, 3.3]. */
  readonly ratio?: Range;
}

/** Random changes of training images, in this order; what is left out is not done. Parameters are torchvision's. */
export interface Augmentation {
  /** Cut out a random part and resize it (RandomResizedCrop; Szegedy et al. 2015): share of the area, width over height. */
  readonly randomResizedCrop?: boolean | CropOptions;
  /** Pad by so many pixels on all sides and cut the old size out at random (RandomCrop; He et al. 2016, 4.2). */
  readonly padCrop?: number;
  /** Probability of mirroring left and right (RandomHorizontalFlip); true means 0.5. */
  readonly flip?: boolean | number;
  /** Blank a random rectangle (RandomErasing; Zhong et al. 2020); a number is the probability, true means 0.5. */
  readonly erasing?: boolean | number | ErasingOptions;
  /** What padding and blanking leave: a byte for each channel, default 0. The mean makes it 0 after normalisation. */
  readonly fill?: readonly number[];
}

const augmentNames: OptionNames<Augmentation> = {
  randomResizedCrop: true,
  padCrop: true,
  flip: true,
  erasing: true,
  fill: true,
};
const cropNames: OptionNames<CropOptions> = { scale: true, ratio: true };
const erasingNames: OptionNames<ErasingOptions> = { ...cropNames, probability: true };

/** An augmentation with all defaults filled in. */
export interface AugmentationPlan {
  readonly randomResizedCrop?: { readonly scale: Range; readonly ratio: Range };
  readonly padCrop: number;
  readonly flip: number;
  readonly erasing: { readonly probability: number; readonly scale: Range; readonly ratio: Range };
  readonly fill: readonly number[];
}

/** Checks an augmentation and fills in torchvision's defaults. Throws ArgumentError for a value out of its range. */
export function planAugmentation(augmentation: Augmentation = {}): AugmentationPlan {
  const where = "augment";
  const {
    randomResizedCrop = false,
    padCrop = 0,
    flip = 0,
    erasing = 0,
    fill = [0],
  } = checkOptions(where, augmentation, augmentNames);
  const must = (holds: boolean, what: string, got: unknown): void => {
    if (!holds) throw new ArgumentError(expected(where, what, shown(got)));
  };
  const range = (name: string, [least, most]: Range, top: number): Range => {
    must(0 < least && least <= most && most <= top, `${name} as [least, most] above 0`, [least, most]);
    return [least, most];
  };
  const share = (name: string, given: boolean | number): number => {
    const probability = given === true ? 0.5 : Number(given);
    must(probability >= 0 && probability <= 1, `${name} to be a probability`, given);
    return probability;
  };
  integer(where, "padCrop", padCrop, 0);
  must(
    Array.isArray(fill) && fill.every((value) => Number.isInteger(value) && value >= 0 && value <= 255),
    "fill in bytes",
    fill,
  );
  const crop = randomResizedCrop === true ? {} : randomResizedCrop;
  if (crop) checkOptions(where, crop, cropNames, "randomResizedCrop");
  const erase =
    typeof erasing === "object"
      ? checkOptions(where, erasing, erasingNames, "erasing")
      : { probability: share("erasing", erasing) };
  return {
    randomResizedCrop:
      (crop && {
        scale: range("scale", crop.scale ?? [0.08, 1], 1),
        ratio: range("ratio", crop.ratio ?? [3 / 4, 4 / 3], Number.MAX_VALUE),
      }) ||
      undefined,
    padCrop,
    flip: share("flip", flip),
    erasing: {
      probability: share("erasing", erase.probability ?? 0.5),
      scale: range("scale", erase.scale ?? [0.02, 0.33], 1),
      ratio: range("ratio", erase.ratio ?? [0.3, 3.3], Number.MAX_VALUE),
    },
    fill,
  };
}

/** The part of a `width` x `height` image that RandomResizedCrop cuts out. */
export function cropWindow(
  generator: Generator,
  { width, height }: { width: number; height: number },
  { scale, ratio }: { scale: Range; ratio: Range },
): Window {
  const logRatio = ratio.map(Math.log) as [number, number];
  for (let attempt = 0; attempt < 10; attempt++) {
    const area = width * height * between(generator, scale);
    const aspect = Math.exp(between(generator, logRatio));
    const w = Math.round(Math.sqrt(area * aspect));
    const h = Math.round(Math.sqrt(area / aspect));
    if (w > 0 && w <= width && h > 0 && h <= height)
      return { left: below(generator, width - w + 1), top: below(generator, height - h + 1), width: w, height: h };
  }
  // an image so long that nothing fitted: its centre, as near to the ratios as it can be
  const given = width / height;
  const w = given > ratio[1] ? Math.round(height * ratio[1]) : width;
  const h = given < ratio[0] ? Math.round(width / ratio[0]) : height;
  return { left: Math.trunc((width - w) / 2), top: Math.trunc((height - h) / 2), width: w, height: h };
}

/** The image mirrored left and right. */
export function mirror({ data, width, height, channels }: Raster): Raster {
  const out = new Uint8Array(data.length);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      for (let c = 0; c < channels; c++)
        out[(y * width + x) * channels + c] = data[(y * width + width - 1 - x) * channels + c];
  return { data: out, width, height, channels };
}

/** The rectangle RandomErasing blanks, or undefined when none of ten tries fits into the image. */
export function erasedWindow(
  generator: Generator,
  { width, height }: { width: number; height: number },
  { scale, ratio }: { scale: Range; ratio: Range },
): Window | undefined {
  const logRatio = ratio.map(Math.log) as [number, number];
  for (let attempt = 0; attempt < 10; attempt++) {
    const area = width * height * between(generator, scale);
    const aspect = Math.exp(between(generator, logRatio));
    const h = Math.round(Math.sqrt(area * aspect));
    const w = Math.round(Math.sqrt(area / aspect));
    if (h < height && w < width)
      return { top: below(generator, height - h + 1), left: below(generator, width - w + 1), width: w, height: h };
  }
  return undefined;
}

/** Applies all of an augmentation but RandomResizedCrop, which comes first, to an image of 8-bit samples. */
export function augment(image: Raster, plan: AugmentationPlan, generator: Generator): Raster {
  const { padCrop, flip, erasing, fill } = plan;
  let out = image;
  if (padCrop > 0) {
    const shift = () => below(generator, 2 * padCrop + 1) - padCrop;
    out = crop(out, { top: shift(), left: shift(), width: out.width, height: out.height }, fill);
  }
  if (flip > 0 && generator.uniform() < flip) out = mirror(out);
  if (erasing.probability > 0 && generator.uniform() < erasing.probability) {
    const window = erasedWindow(generator, out, erasing);
    if (window) out = blank(out, window, fill);
  }
  return out;
}

function blank(image: Raster, { left, top, width, height }: Window, fill: readonly number[]): Raster {
  const { channels } = image;
  const data = image.data.slice();
  for (let y = top; y < top + height; y++)
    for (let x = left; x < left + width; x++)
      for (let c = 0; c < channels; c++) data[(y * image.width + x) * channels + c] = fill[c % fill.length];
  return { ...image, data };
}
