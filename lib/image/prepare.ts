import { availableParallelism } from "node:os";
import { ArgumentError, expected, shown } from "../errors.js";
import {
  type ImageThreadHandle,
  type NativeImages,
  type NativePreparation,
  nativeImages,
} from "../executors/native.js";
import { Gate } from "../gate.js";
import { WorkerPool } from "../worker_pool.js";
import { ByteBudget } from "./budget.js";
import { decodeSamples, type ImageFile, openImage, type Samples } from "./decode.js";
import { checkSize, draftSides, type Geometry, type Prepared, prepareHere, type Recipe } from "./recipe.js";
import { computeTaps, type Interpolation, type Taps } from "./resize.js";
import type { ImageSource } from "./source.js";
import type { ImageOrder } from "./worker.js";

/** How an image is prepared for a network. */
export interface Preparation extends Omit<Recipe, "geometry"> {
  /** Which pixels there are to be of an upright image of these sides. */
  geometry(width: number, height: number): Geometry;
}

/** Decoded bytes of all images that are prepared at once, in all threads. */
export const imageBudget = new ByteBudget(2 ** 28);

/** Images decoded at once: more would only wait for each other. libuv has four threads for all. */
const lanes = Math.max(2, Math.min(4, availableParallelism()));
const decoding = new Gate(lanes);
/** Samples up to here are not worth a thread of their own. */
const small = 2 ** 18;

let isWorker = false;

/** For a thread that does nothing else: without an addon, images are prepared on it. */
export function prepareOnThisThread(): void {
  isWorker = true;
}

/**
 * Bounds the memory that decoded images take, in bytes; default 256 MiB (2 ** 28). Images wait until there is room for
 * their pixels, three bytes each; one that is larger than the whole limit is decoded when no other is. It holds for
 * everything that reads images in this process: `loadImage`, classifiers, data loaders.
 *
 * @throws ArgumentError for anything but a whole number from 2 ** 20 to 2 ** 40
 */
export function setImageMemoryLimit(bytes: number): void {
  if (!Number.isSafeInteger(bytes) || bytes < 2 ** 20 || bytes > 2 ** 40)
    throw new ArgumentError(
      expected("setImageMemoryLimit", "bytes to be a whole number from 2 ** 20 to 2 ** 40", shown(bytes)),
    );
  imageBudget.limit = bytes;
}

/**
 * An image file as an image for a network. It is read, decoded and resized on other threads: the addon's, or worker threads
 * where there is none.
 * Throws ImageError for a missing, empty, damaged, too large or non-image file.
 */
export async function prepareImage(source: ImageSource, preparation: Preparation): Promise<Prepared> {
  await decoding.enter();
  let leave: (() => void) | undefined = () => decoding.leave();
  let giveBack: (() => void) | undefined;
  try {
    const file = await openImage(source);
    const { geometry, ...rest } = preparation;
    const recipe: Recipe = { ...rest, geometry: geometry(file.width, file.height) };
    giveBack = await imageBudget.take(memoryOf(file, recipe));
    const addon = nativeImages();
    if (!addon) return await withoutAddon(file, recipe);
    const draft = draftSides(file, recipe);
    const samples = await decodeSamples(file, { draft });
    leave();
    leave = undefined; // the next is decoded while this one is resized
    const sides = draft ?? storedSides(file);
    checkSize(file, samples, sides.width, sides.height);
    return await onImageThread(addon, (thread) =>
      addon.prepareImage(thread, samples.data, nativeRecipe(file, recipe, samples)),
    );
  } finally {
    leave?.();
    giveBack?.();
  }
}

/** Decoded samples, and what they are converted to before they are resized. */
function memoryOf(file: ImageFile, { channels }: Recipe): number {
  const pixels = file.width * file.height;
  return file.decodedBytes + (file.colours !== "plain" || channels === 1 ? pixels * channels : 0);
}

function storedSides({ width, height, orientation }: ImageFile): { width: number; height: number } {
  return orientation >= 5 ? { width: height, height: width } : { width, height };
}

let pool: WorkerPool<ImageOrder, Prepared> | undefined;

function withoutAddon(file: ImageFile, recipe: Recipe): Promise<Prepared> {
  if (isWorker || file.width * file.height <= small) return prepareHere(file, recipe);
  pool ??= new WorkerPool("loadImage", ["dist", "lib", "image", "worker.js"], undefined, lanes);
  return pool.run({ file, recipe });
}

interface ImageThread {
  readonly handle: ImageThreadHandle;
  waiting: number;
}

const threads: ImageThread[] = [];

/** Gives work to the addon's thread that has the least; there are as many as there is work for, and no more than lanes. */
async function onImageThread<T>(addon: NativeImages, work: (thread: ImageThreadHandle) => Promise<T>): Promise<T> {
  let thread = threads.reduce<ImageThread | undefined>(
    (least, each) => (least && least.waiting <= each.waiting ? least : each),
    undefined,
  );
  if (!thread || (thread.waiting > 0 && threads.length < lanes)) {
    thread = { handle: addon.openImages(), waiting: 0 };
    threads.push(thread);
  }
  thread.waiting++;
  try {
    return await work(thread.handle);
  } finally {
    thread.waiting--;
  }
}

/** The recipe as the addon takes it: taps of an image as it is stored, which may be mirrored or lie on its side. */
export function nativeRecipe(
  { orientation, colours, ground }: ImageFile,
  { geometry, interpolation, table, channels: outputChannels }: Recipe,
  { width, height, channels }: Samples,
): NativePreparation {
  const transposed = orientation >= 5;
  const [uprightWidth, uprightHeight] = transposed ? [height, width] : [width, height];
  const part = geometry.crop ?? { left: 0, top: 0, width: uprightWidth, height: uprightHeight };
  const { window } = geometry;
  const across = axis(uprightWidth, part.left, part.width, geometry.width, window.left, window.width, interpolation);
  const down = axis(uprightHeight, part.top, part.height, geometry.height, window.top, window.height, interpolation);
  return {
    width,
    height,
    channels,
    colours,
    ...(ground && { drawn: [ground.left, ground.top, ground.width, ground.height], background: ground.colour }),
    across: [2, 3, 6, 7].includes(orientation) ? mirrored(across, uprightWidth) : across,
    down: [3, 4, 7, 8].includes(orientation) ? mirrored(down, uprightHeight) : down,
    transposed,
    outputChannels,
    canvas: geometry.canvas,
    table,
  };
}

/** The taps of one axis of a crop that is resized, in positions of the whole image. */
function axis(
  extent: number,
  cropFrom: number,
  cropLength: number,
  target: number,
  from: number,
  length: number,
  interpolation: Interpolation,
): Taps {
  const taps = computeTaps(cropLength, target, from, length, interpolation);
  if (cropFrom > 0 || cropLength < extent) for (let i = 0; i < length; i++) taps.first[i] += cropFrom;
  return taps;
}

/** The same taps on an axis of `extent` positions that runs the other way. */
function mirrored({ first, count, weights, stride }: Taps, extent: number): Taps {
  return {
    first: first.map((position, i) => extent - position - count[i]),
    count,
    weights: weights.map((_, at) => {
      const i = Math.floor(at / stride);
      const k = at % stride;
      return k < count[i] ? weights[i * stride + count[i] - 1 - k] : 0;
    }),
    stride,
  };
}
