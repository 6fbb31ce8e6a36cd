import { availableParallelism } from "node:os";
import { mostThreads } from "../devices/check.js";
import { ArgumentError, expected, ImageError, shown } from "../errors.js";
import { imageBudget } from "../image/prepare.js";
import { type CropMode, checkImageOptions } from "../image/preprocess.js";
import type { Interpolation } from "../image/resize.js";
import { checkOptions, type OptionNames } from "../options.js";
import { integer } from "../shape.js";
import { type Tensor, tensor } from "../tensor.js";
import { WorkerPool } from "../worker_pool.js";
import { type Augmentation, planAugmentation } from "./augment.js";
import type { Dataset } from "./dataset.js";
import { type BatchRecipe, type MadeBatch, makeBatch, pictureShape, type SkippedPicture } from "./make_batch.js";
import { permutation, streamOf } from "./random.js";
import type { BatchOrder, BatchWorkerData } from "./worker.js";

export interface LoaderOptions {
  /** Images a batch, default 1. */
  readonly batchSize?: number;
  /** A new order every epoch, default false. */
  readonly shuffle?: boolean;
  /** Decides the order and the augmentation, default 0. */
  readonly seed?: number;
  /** Leave out a last batch that is not full, default false. */
  readonly dropLast?: boolean;
  /** Let a last batch of a single image, which batch norm may not be able to normalise, join the one before it. Default false. */
  readonly joinSingle?: boolean;
  /** Random changes of the images, default none. */
  readonly augment?: Augmentation;
  /** Threads that decode and augment, default one less than the cores, at most 8; 0: the caller's own. Never changes a result. */
  readonly workers?: number;
  /** Batches made ahead, default 2 for each worker and at least 4. */
  readonly prefetch?: number;
  /** Throw for an image that cannot be read; it is skipped, named and counted otherwise. Default false. */
  readonly strict?: boolean;
  /** Side of the images made of files, default 224. IDX images keep their size. */
  readonly size?: number;
  /** 1: grey, 3: RGB. Default: 1 of IDX images, 3 of files. */
  readonly channels?: 1 | 3;
  /** As in `loadImage`, where no random crop is taken: default 0.875. */
  readonly cropPct?: number;
  /** As in `loadImage`, default "center"; "border" fills up with the augmentation's `fill`. */
  readonly cropMode?: CropMode;
  /** Default "bilinear". */
  readonly interpolation?: Interpolation;
}

const loaderNames: OptionNames<LoaderOptions> = {
  batchSize: true,
  shuffle: true,
  seed: true,
  dropLast: true,
  joinSingle: true,
  augment: true,
  workers: true,
  prefetch: true,
  strict: true,
  size: true,
  channels: true,
  cropPct: true,
  cropMode: true,
  interpolation: true,
};

/** Images and labels that go through a network together. */
export class Batch {
  /** How many images there are: fewer than asked for where some were skipped. */
  readonly count: number;

  constructor(
    /** Bytes of the images, row-major. */
    readonly pixels: Uint8Array,
    /** `[count, C, H, W]`. */
    readonly shape: readonly [number, number, number, number],
    /** The class of each image. */
    readonly classes: Int32Array,
    /** The place of each image in the dataset. */
    readonly indices: Uint32Array,
    /** Images that could not be read. */
    readonly skipped: readonly SkippedPicture[],
  ) {
    this.count = classes.length;
  }

  /** The images, uint8 `[count, C, H, W]`. */
  get images(): Tensor {
    return tensor(this.pixels, this.shape);
  }

  /** The classes, int32 `[count]`. */
  get labels(): Tensor {
    return tensor(this.classes);
  }
}

/** Batches of a dataset, epoch by epoch, made ahead in worker threads. The same seed gives the same batches, however many work. */
export class DataLoader {
  readonly dataset: Dataset;
  readonly batchSize: number;
  readonly seed: number;
  /** `[C, H, W]` of every image. */
  readonly pictureShape: readonly [number, number, number];
  readonly #recipe: BatchRecipe;
  readonly #options: { shuffle: boolean; dropLast: boolean; joinSingle: boolean; strict: boolean; prefetch: number };
  readonly #pool: WorkerPool<BatchOrder, MadeBatch>;

  /** @throws ArgumentError for an option out of its range, and a dataset that fills no batch */
  constructor(dataset: Dataset, options: LoaderOptions = {}) {
    const where = "DataLoader";
    const {
      batchSize = 1,
      shuffle = false,
      seed = 0,
      dropLast = false,
      joinSingle = false,
      strict = false,
    } = checkOptions(where, options, loaderNames);
    if (!Array.isArray(dataset?.classes) || !ArrayBuffer.isView(dataset.labels) || !dataset.pictures?.kind)
      throw new ArgumentError(expected(where, "a dataset, as openDataset gives it", shown(dataset)));
    const { size = 224, cropPct = 0.875, cropMode = "center", interpolation = "bilinear" } = options;
    const { channels = dataset.pictures.kind === "pixels" ? 1 : 3 } = options;
    const workers = integer(where, "workers", options.workers ?? defaultWorkers(), 0);
    if (workers > mostThreads())
      throw new ArgumentError(expected(where, `workers to be at most ${mostThreads()}`, shown(workers)));
    const prefetch = integer(where, "prefetch", options.prefetch ?? Math.max(4, 2 * workers), 1);
    this.batchSize = integer(where, "batchSize", batchSize, 1);
    this.dataset = dataset;
    this.seed = seed;
    if (!Number.isSafeInteger(seed)) throw new ArgumentError(expected(where, "seed to be an integer", shown(seed)));
    const augmentation = options.augment && planAugmentation(options.augment);
    this.#recipe = {
      dataset,
      augmentation,
      ...checkImageOptions(where, { size, channels, cropPct, cropMode, interpolation }),
      seed,
    };
    this.pictureShape = pictureShape(this.#recipe);
    this.#options = { shuffle, dropLast, joinSingle, strict, prefetch };
    const data: BatchWorkerData = { recipe: this.#recipe, budget: imageBudget.memory };
    this.#pool = new WorkerPool("data", ["dist", "lib", "data", "worker.js"], data, workers, ({ epoch, indices }) =>
      makeBatch(this.#recipe, epoch, indices),
    );
    if (this.length === 0)
      throw new ArgumentError(
        expected(where, `at least ${dropLast ? batchSize : 1} images`, `${dataset.labels.length}`),
      );
  }

  /** Batches an epoch. */
  get length(): number {
    const { dropLast, joinSingle } = this.#options;
    const count = this.dataset.labels.length;
    const joins = joinSingle && count > this.batchSize && count % this.batchSize === 1;
    return dropLast || joins ? Math.floor(count / this.batchSize) : Math.ceil(count / this.batchSize);
  }

  /**
   * The batches of one epoch, from the one at place `from` on, in order, while later ones are being made.
   * @throws ImageError for an unreadable image when `strict`, DisposedError once the loader is disposed
   */
  async *epoch(epoch: number, from = 0): AsyncGenerator<Batch> {
    const { shuffle, dropLast, strict, prefetch } = this.#options;
    const count = this.dataset.labels.length;
    const order = shuffle
      ? permutation(streamOf(this.seed, epoch), count)
      : Uint32Array.from({ length: count }, (_, i) => i);
    const underWay: Promise<MadeBatch>[] = [];
    let next = from;
    for (let at = from; at < this.length; at++) {
      for (; next < Math.min(this.length, at + prefetch); next++) {
        const end = next === this.length - 1 && !dropLast ? count : (next + 1) * this.batchSize;
        const made = this.#pool.run({ epoch, indices: order.slice(next * this.batchSize, end) });
        made.catch(() => {}); // whoever waits for it is told
        underWay.push(made);
      }
      const batch = this.#batch(await (underWay.shift() as Promise<MadeBatch>));
      if (strict && batch.skipped.length > 0) throw new ImageError(batch.skipped[0].message);
      yield batch;
    }
  }

  /** Ends the worker threads. */
  dispose(): Promise<void> {
    return this.#pool.dispose();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }

  #batch({ pixels, indices, skipped }: MadeBatch): Batch {
    const classes = Int32Array.from(indices, (index) => this.dataset.labels[index]);
    return new Batch(pixels, [indices.length, ...this.pictureShape], classes, indices, skipped);
  }
}

function defaultWorkers(): number {
  return Math.max(1, Math.min(8, availableParallelism() - 1));
}
