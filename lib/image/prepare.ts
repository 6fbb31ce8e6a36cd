import { existsSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { types } from "node:util";
import { isMainThread } from "node:worker_threads";
import {
  type ImageThreadHandle,
  type NativeImages,
  type NativePreparation,
  nativeImages,
} from "../devices/native/addon.js";
import { ArgumentError, expected, shown } from "../errors.js";
import { Gate } from "../gate.js";
import { LeastRecentlyUsed } from "../lru.js";
import { packageRoot } from "../paths.js";
import { WorkerPool } from "../worker_pool.js";
import { ByteBudget } from "./budget.js";
import { decodeSamples, type ImageFile, openImage, type Samples } from "./decode.js";
import {
  checkSize,
  draftSides,
  type Geometry,
  type ImageOrder,
  type Prepared,
  prepareHere,
  type Recipe,
} from "./recipe.js";
import { computeTaps, type Interpolation, type Taps } from "./resize.js";
import type { ImageSource } from "./source.js";

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
/**
 * Decoded bytes up to which an image is prepared from this thread: with an addon, and without, when this thread resizes it.
 * V8 collects garbage for each array as large as a photo's samples, which would take most of this thread's time.
 */
const large = 2 ** 22;
const small = 2 ** 19;

let isWorker = false;

/** For a worker thread: it prepares images itself. */
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
 * An image file as an image for a network. It is read, decoded and resized on other threads: the addon's, and worker threads
 * for large images and where there is no addon.
 * Throws ImageError for a missing, empty, damaged, too large or non-image file.
 */
export async function prepareImage(source: ImageSource, preparation: Preparation): Promise<Prepared> {
  await decoding.enter();
  let giveBack: (() => void) | undefined;
  try {
    const file = await openImage(source);
    const { geometry, ...rest } = preparation;
    const recipe: Recipe = { ...rest, geometry: geometry(file.width, file.height) };
    giveBack = await imageBudget.take(memoryOf(file, recipe));
    const isSmall = file.decodedBytes <= (nativeImages() ? large : small);
    if (isSmall || isWorker || !hasWorkers()) return await prepareOpened(file, recipe);
    pool ??= new WorkerPool("loadImage", workerFile, undefined, lanes);
    const { buffer, byteOffset, length } = file.bytes;
    const isOwn = !ArrayBuffer.isView(source) && !types.isAnyArrayBuffer(source);
    const isWhole = byteOffset === 0 && length === buffer.byteLength;
    return await pool.run({ file, recipe }, isOwn && isWhole ? [buffer as ArrayBuffer] : []);
  } finally {
    decoding.leave();
    giveBack?.();
  }
}

const workerFile = ["dist", "lib", "image", "worker.js"];
let pool: WorkerPool<ImageOrder, Prepared> | undefined;

/** Not where a bundler has left them behind: there this thread does what it can. */
function hasWorkers(): boolean {
  return pool !== undefined || existsSync(join(packageRoot, ...workerFile));
}

/** Prepares an image whose header has been read. */
export async function prepareOpened(file: ImageFile, recipe: Recipe): Promise<Prepared> {
  const addon = nativeImages();
  if (!addon) return prepareHere(file, recipe);
  const draft = draftSides(file, recipe);
  const samples = await decodeSamples(file, { draft });
  const sides = draft ?? storedSides(file);
  checkSize(file, samples, sides.width, sides.height);
  const how = nativeRecipe(file, recipe, samples);
  if (!isMainThread) return addon.prepareImageHere(samples.data, how);
  return onImageThread(addon, (thread) => addon.prepareImage(thread, samples.data, how));
}

/** Decoded samples, and what they are converted to before they are resized. */
function memoryOf(file: ImageFile, { channels }: Recipe): number {
  const pixels = file.width * file.height;
  return file.decodedBytes + (file.colours !== "plain" || channels === 1 ? pixels * channels : 0);
}

function storedSides({ width, height, orientation }: ImageFile): { width: number; height: number } {
  return orientation >= 5 ? { width: height, height: width } : { width, height };
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
  { orientation, colours, background }: ImageFile,
  { geometry, interpolation, table, channels: outputChannels }: Recipe,
  { width, height, channels }: Samples,
): NativePreparation {
  const transposed = orientation >= 5;
  const [uprightWidth, uprightHeight] = transposed ? [height, width] : [width, height];
  const { window, crop: part = { left: 0, top: 0, width: uprightWidth, height: uprightHeight } } = geometry;
  const across: Axis = {
    extent: uprightWidth,
    cropFrom: part.left,
    cropLength: part.width,
    target: geometry.width,
    from: window.left,
    length: window.width,
    mirrored: [2, 3, 6, 7].includes(orientation),
    interpolation,
  };
  const down: Axis = {
    extent: uprightHeight,
    cropFrom: part.top,
    cropLength: part.height,
    target: geometry.height,
    from: window.top,
    length: window.height,
    mirrored: [3, 4, 7, 8].includes(orientation),
    interpolation,
  };
  return {
    width,
    height,
    channels,
    colours,
    ...(background && {
      drawn: [background.left, background.top, background.width, background.height],
      background: background.colour,
    }),
    across: tapsOf(across),
    down: tapsOf(down),
    transposed,
    outputChannels,
    canvas: geometry.canvas,
    table,
  };
}

/** One axis of an image that is cropped, resized and cut to a window; `mirrored` where it is stored the other way round. */
interface Axis {
  readonly extent: number;
  readonly cropFrom: number;
  readonly cropLength: number;
  readonly target: number;
  readonly from: number;
  readonly length: number;
  readonly mirrored: boolean;
  readonly interpolation: Interpolation;
}

/** The taps of the last axes: images that come together are often of one size. */
const recent = new LeastRecentlyUsed<Taps>(16, () => {});

function tapsOf(axis: Axis): Taps {
  const key = Object.values(axis).join();
  const taps = recent.get(key) ?? makeTaps(axis);
  recent.set(key, taps);
  return taps;
}

/** Taps in positions of the image as it is stored. */
function makeTaps({ extent, cropFrom, cropLength, target, from, length, mirrored, interpolation }: Axis): Taps {
  const { first, count, weights, stride } = computeTaps(cropLength, target, from, length, interpolation);
  for (let i = 0; i < length; i++) {
    first[i] += cropFrom;
    if (!mirrored) continue;
    first[i] = extent - first[i] - count[i];
    weights.subarray(i * stride, i * stride + count[i]).reverse();
  }
  return { first, count, weights, stride };
}
