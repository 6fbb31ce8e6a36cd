import { ImageError } from "../errors.js";
import { prepareImage } from "../image/prepare.js";
import { type CropMode, geometryOf } from "../image/preprocess.js";
import type { Geometry } from "../image/recipe.js";
import { crop, type Interpolation, type Raster, resize } from "../image/resize.js";
import { type AugmentationPlan, augment, cropWindow } from "./augment.js";
import type { Dataset } from "./dataset.js";
import { streamOf } from "./random.js";

/** All it takes to make batches: what a worker thread is handed once. */
export interface BatchRecipe {
  readonly dataset: Dataset;
  readonly augmentation: AugmentationPlan | undefined;
  /** Side of the square images made of files; IDX images keep their own. */
  readonly size: number;
  readonly channels: 1 | 3;
  readonly cropPct: number;
  readonly cropMode: CropMode;
  readonly interpolation: Interpolation;
  readonly seed: number;
}

/** An image that could not be read, by its place in the dataset. */
export interface SkippedPicture {
  readonly index: number;
  readonly message: string;
}

export interface MadeBatch {
  /** `[indices.length, C, H, W]`, row-major. */
  readonly pixels: Uint8Array;
  /** The images that could be read, by their places in the dataset. */
  readonly indices: Uint32Array;
  readonly skipped: readonly SkippedPicture[];
}

/** Channels, height and width of every image a recipe makes. */
export function pictureShape({ dataset: { pictures }, size, channels }: BatchRecipe): [number, number, number] {
  return pictures.kind === "pixels" ? [channels, pictures.height, pictures.width] : [channels, size, size];
}

/** Decodes and augments the images at `indices`. A function of its arguments: who calls it, and when, changes nothing. */
export async function makeBatch(recipe: BatchRecipe, epoch: number, indices: Uint32Array): Promise<MadeBatch> {
  const [channels, height, width] = pictureShape(recipe);
  const size = channels * height * width;
  const skipped: SkippedPicture[] = [];
  const made: { index: number; image: Raster }[] = [];
  for (const index of indices) {
    try {
      made.push({ index, image: await makeImage(recipe, epoch, index) });
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      skipped.push({ index, message: error.message });
    }
  }
  const pixels = new Uint8Array(made.length * size);
  for (const [i, { image }] of made.entries()) toPlanes(image, pixels.subarray(i * size, (i + 1) * size));
  return { pixels, indices: Uint32Array.from(made, ({ index }) => index), skipped };
}

async function makeImage(recipe: BatchRecipe, epoch: number, index: number): Promise<Raster> {
  const { dataset, augmentation, size, channels, cropPct, cropMode, interpolation, seed } = recipe;
  const { pictures } = dataset;
  const generator = streamOf(seed, epoch, index);
  const randomCrop = augmentation?.randomResizedCrop;
  let image: Raster;
  if (pictures.kind === "pixels") {
    const { data, height, width } = pictures;
    const grey = data.subarray(index * height * width, (index + 1) * height * width);
    image = { data: grey, height, width, channels: 1 };
    if (randomCrop)
      image = resize(crop(image, cropWindow(generator, image, randomCrop), [0]), width, height, interpolation);
  } else {
    const geometry = (width: number, height: number): Geometry => {
      if (!randomCrop) return geometryOf(width, height, { size, cropPct, cropMode, fill: augmentation?.fill ?? [0] });
      const window = { left: 0, top: 0, width: size, height: size };
      return { crop: cropWindow(generator, { width, height }, randomCrop), width: size, height: size, window };
    };
    const data = (await prepareImage(pictures.paths[index], { geometry, interpolation, channels })) as Uint8Array;
    image = { data, width: size, height: size, channels };
  }
  return augmentation ? augment(image, augmentation, generator) : image;
}

/** Interleaved samples to planes, C,H,W; a grey image fills every plane there is. */
function toPlanes({ data, channels }: Raster, planes: Uint8Array): void {
  if (channels === 1) {
    for (let at = 0; at < planes.length; at += data.length) planes.set(data, at);
    return;
  }
  const pixels = data.length / channels;
  for (let c = 0; c < channels; c++) for (let i = 0; i < pixels; i++) planes[c * pixels + i] = data[i * channels + c];
}
