import type { Network } from "../../models/index.js";
import { type CompiledModel, type CompileOptions, compile } from "../compile/compile.js";
import type { ResolvedDevice } from "../devices/resolve.js";
import { ArgumentError, DisposedError, expected, ImageError, ShapeError, shown, WeightsError } from "../errors.js";
import { Gate } from "../gate.js";
import { loadImage, type PreprocessOptions } from "../image/preprocess.js";
import type { ImageSource } from "../image/source.js";
import { stack } from "../image/stack.js";
import { Module } from "../nn/module.js";
import { checkOptions, type OptionNames } from "../options.js";
import { formatShape, integer, sameShape } from "../shape.js";
import { Tensor } from "../tensor.js";
import { Batcher } from "./batcher.js";
import { type Prediction, rank, runBatch } from "./prediction.js";
import { type Classifier, type ClassifierOptions, loadClassifier, preprocessingOf } from "./source.js";

/** An image: a path, a `file:` or `data:` URL, what its file holds (JPEG, PNG, WebP, GIF, TIFF, AVIF), or what `loadImage` made of it. */
export type ImageInput = ImageSource | Tensor;

/** Undefined means the default. */
export interface ImageClassifierOptions extends Omit<ClassifierOptions, "weights"> {
  /** Default "auto": the first usable of cuda, cpu, reference. */
  readonly device?: CompileOptions["device"];
  /** Arithmetic of the network, default "float32". */
  readonly dtype?: CompileOptions["dtype"];
  /** Threads on the CPU devices. Default: every core. */
  readonly threads?: number;
  /** Images computed at once at most, default 16. */
  readonly maxBatch?: number;
  /** How long an image waits for others to share its batch, in milliseconds; default 5. */
  readonly maxDelayMs?: number;
  /** Images held in memory at once; calls beyond wait before theirs is read. Default 4 * maxBatch. */
  readonly maxQueue?: number;
  /** Decode JPEGs at a smaller scale, as in `loadImage`; default false. */
  readonly draft?: boolean;
}

const classifierNames: OptionNames<ImageClassifierOptions> = {
  model: true,
  modelOptions: true,
  labels: true,
  strict: true,
  inChannels: true,
  numClasses: true,
  onProgress: true,
  device: true,
  dtype: true,
  threads: true,
  maxBatch: true,
  maxDelayMs: true,
  maxQueue: true,
  draft: true,
};

export interface ClassifyOptions {
  /** How many classes to name, likeliest first; default 5. */
  readonly topK?: number;
  /** Gives the call up: its promise rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

const classifyNames: OptionNames<ClassifyOptions> = { topK: true, signal: true };
const embedNames: OptionNames<Pick<ClassifyOptions, "signal">> = { signal: true };

/** What `classifyEach` makes of one image: predictions, or why it cannot be read. */
export type ClassifiedImage<T> =
  | { readonly image: T; readonly predictions: Prediction[] }
  | { readonly image: T; readonly error: ImageError };

/** A network's last features, pooled over the image: `[N, C, H, W] -> [N, features]`. */
class PooledFeatures extends Module {
  readonly network: Network;

  constructor(network: Network) {
    super();
    this.network = network;
  }

  override forward(x: Tensor): Tensor {
    return this.network.embedding(x);
  }
}

/**
 * Names what is on images: a network with its weights, its preprocessing and its labels, on a device.
 *
 * Calls may be made at any time and in any number: those that come together are computed together, in batches of at
 * most `maxBatch`, and at most `maxQueue` images are in memory, so 100,000 calls at once cost 100,000 promises and no
 * more. Images are decoded, resized and normalised, and the network is run, away from the JavaScript thread;
 * `setImageMemoryLimit` bounds what decoded images take.
 *
 * ```ts
 * const classifier = await ImageClassifier.load("seresnet50.safetensors", { model: "seresnet50" });
 * const [best] = await classifier.classify("cat.jpg", { topK: 1 });
 * await classifier.dispose();
 * ```
 */
export class ImageClassifier {
  readonly #source: Classifier;
  readonly #compiled: CompiledModel;
  readonly #options: ImageClassifierOptions;
  readonly #gate: Gate;
  readonly #maxQueue: number;
  readonly #logits: Batcher<Tensor, ArrayLike<number>>;
  #embedder: Promise<CompiledModel> | undefined;
  readonly #features: Batcher<Tensor, ArrayLike<number>>;
  /** The calls that are not done. None of these promises rejects. */
  readonly #underWay = new Set<Promise<unknown>>();
  #disposed = false;

  private constructor(source: Classifier, compiled: CompiledModel, options: ImageClassifierOptions) {
    const { maxBatch = 16, maxDelayMs = 5 } = options;
    const { maxQueue = 4 * maxBatch } = options;
    this.#source = source;
    this.#compiled = compiled;
    this.#options = options;
    this.#maxQueue = maxQueue;
    this.#gate = new Gate(maxQueue);
    const limits = { maxBatch, maxDelayMs };
    this.#logits = new Batcher(async (batch) => runBatch(compiled, await stack(batch)), limits);
    this.#features = new Batcher(async (batch) => runBatch(await this.#embedding(), await stack(batch)), limits);
  }

  /**
   * Loads a network with its preprocessing and labels, and gets it ready on a device.
   *
   * @param source a file that `loadWeights` reads, a folder with one (and timm's config.json), or a model of the Hugging
   *   Face hub, `hf:owner/name[@revision]`; left out: the small Fashion-MNIST network that ships with the package
   * @throws WeightsError for weights that are damaged or of another network; DeviceError; ArgumentError
   */
  static async load(source?: string, options: ImageClassifierOptions = {}): Promise<ImageClassifier> {
    const where = "ImageClassifier.load";
    const { device, dtype, threads, maxBatch, maxDelayMs, maxQueue, draft, ...rest } = checkOptions(
      where,
      options,
      classifierNames,
    );
    if (source !== undefined && typeof source !== "string")
      throw new ArgumentError(expected(where, "source to be a path", shown(source)));
    if (maxBatch !== undefined) integer(where, "maxBatch", maxBatch, 1);
    if (maxQueue !== undefined) integer(where, "maxQueue", maxQueue, 1);
    if (maxDelayMs !== undefined && !(Number.isFinite(maxDelayMs) && maxDelayMs >= 0 && maxDelayMs < 2 ** 31))
      throw new ArgumentError(expected(where, "maxDelayMs in milliseconds", shown(maxDelayMs)));
    if (draft !== undefined && typeof draft !== "boolean")
      throw new ArgumentError(expected(where, "draft to be true or false", shown(draft)));
    const loaded = await loadClassifier({ ...rest, weights: source });
    const compiled = await compile(loaded.network, { device, dtype, threads });
    return new ImageClassifier(loaded, compiled, options);
  }

  /** The name `createModel` knows the network by. */
  get model(): string {
    return this.#source.info.model;
  }

  /** One label for each output, in order. */
  get classes(): readonly string[] {
    return this.#source.info.classes;
  }

  /** The file the weights came from. */
  get weights(): string {
    return this.#source.weights;
  }

  /** What was changed in the weights because `inChannels` or `numClasses` asked for it, or left out of them, a sentence each. */
  get changes(): readonly string[] {
    return this.#source.changes;
  }

  /** Where the network runs, and why there. */
  get device(): ResolvedDevice {
    return this.#compiled.device;
  }

  /** What `loadImage` takes to prepare an image for this network. Throws WeightsError where no image can (4 channels). */
  get preprocessing(): PreprocessOptions {
    return preprocessingOf(this.#source);
  }

  /** The network itself, in eval mode. Changing its weights does not change this classifier. */
  get network(): Network {
    return this.#source.network;
  }

  /**
   * The `topK` likeliest classes of an image, likeliest first; of several images, a list of them for each.
   *
   * @throws ImageError for an image that cannot be read (of several: for the first such), ShapeError for a tensor of
   *   another shape than [1, C, H, W] of the network, DisposedError
   */
  classify(image: ImageInput, options?: ClassifyOptions): Promise<Prediction[]>;
  classify(images: readonly ImageInput[], options?: ClassifyOptions): Promise<Prediction[][]>;
  async classify(images: ImageInput | readonly ImageInput[], options: ClassifyOptions = {}): Promise<unknown> {
    const { topK = 5, signal } = checkCall("classify", options, classifyNames);
    integer("classify", "topK", topK, 1);
    if (this.classes.length === 0)
      throw new WeightsError(
        expected("classify", "weights with a classifier", `${this.weights} without one (embed works)`),
      );
    return this.#each("classify", images, signal, this.#logits, (logits) => rank(logits, this.classes, topK));
  }

  /**
   * The pooled features of an image, a vector for search and clustering (seresnet50: 2048 numbers); of several
   * images, one for each. The first call readies a second plan on the device. Throws what `classify` throws.
   */
  embed(image: ImageInput, options?: Pick<ClassifyOptions, "signal">): Promise<Float32Array>;
  embed(images: readonly ImageInput[], options?: Pick<ClassifyOptions, "signal">): Promise<Float32Array[]>;
  async embed(
    images: ImageInput | readonly ImageInput[],
    options: Pick<ClassifyOptions, "signal"> = {},
  ): Promise<unknown> {
    const { signal } = checkCall("embed", options, embedNames);
    return this.#each("embed", images, signal, this.#features, (features) => Float32Array.from(features));
  }

  /**
   * Classifies any number of images, in their order, reading at most `maxQueue` of them ahead. An image that cannot
   * be read comes out as `{ image, error }` and ends nothing. Leaving the loop drops what was read ahead.
   *
   * ```ts
   * for await (const result of classifier.classifyEach(await readdir("."))) console.log(result);
   * ```
   */
  async *classifyEach<T extends ImageInput>(
    images: Iterable<T> | AsyncIterable<T>,
    options: ClassifyOptions = {},
  ): AsyncGenerator<ClassifiedImage<T>, void, void> {
    const { topK, signal } = checkCall("classifyEach", options, classifyNames);
    const left = new AbortController();
    const both = signal ? AbortSignal.any([signal, left.signal]) : left.signal;
    const classify = (image: T): Promise<ClassifiedImage<T>> =>
      this.classify(image, { topK, signal: both }).then(
        (predictions) => ({ image, predictions }),
        (error: unknown) => {
          if (error instanceof ImageError) return { image, error };
          throw error;
        },
      );
    const iterator = iterate(images);
    const ahead: Promise<ClassifiedImage<T>>[] = [];
    let next: Promise<IteratorResult<T>> | undefined = iterator.next();
    next.catch(() => {}); // it is awaited below, perhaps later
    try {
      while (next || ahead.length > 0) {
        const events: Promise<{ taken: IteratorResult<T> } | { result: ClassifiedImage<T> }>[] = [];
        if (ahead.length > 0) events.push(ahead[0].then((result) => ({ result })));
        if (next && ahead.length < this.#maxQueue) events.push(next.then((taken) => ({ taken })));
        const event = await Promise.race(events);
        if ("result" in event) {
          ahead.shift();
          yield event.result;
        } else if (event.taken.done) {
          next = undefined;
        } else {
          const result = classify(event.taken.value);
          result.catch(() => {}); // it is awaited when its turn comes
          ahead.push(result);
          next = iterator.next();
          next.catch(() => {});
        }
      }
    } finally {
      left.abort();
      if (next) await iterator.return?.();
    }
  }

  /** Frees the device's memory once the calls under way are done. Later calls throw DisposedError. */
  async dispose(): Promise<void> {
    this.#disposed = true;
    await Promise.all(this.#underWay);
    await Promise.all([this.#compiled.dispose(), (await this.#embedder)?.dispose()]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }

  #each<Out>(
    where: string,
    images: ImageInput | readonly ImageInput[],
    signal: AbortSignal | undefined,
    batcher: Batcher<Tensor, ArrayLike<number>>,
    interpret: (row: ArrayLike<number>) => Out,
  ): Promise<Out | Out[]> {
    if (this.#disposed) throw new DisposedError(`${where}: this classifier has been disposed`);
    const one = async (image: ImageInput): Promise<Out> => {
      await this.#gate.enter(signal);
      try {
        const input = await this.#read(where, image);
        signal?.throwIfAborted();
        return interpret(await batcher.submit(input, signal));
      } finally {
        this.#gate.leave();
      }
    };
    const works = (Array.isArray(images) ? images : [images]).map(one);
    // all of them: one that fails ends the call, and the others still use the device
    const settled: Promise<unknown> = Promise.allSettled(works).then(() => this.#underWay.delete(settled));
    this.#underWay.add(settled);
    return Array.isArray(images) ? Promise.all(works) : works[0];
  }

  async #read(where: string, image: ImageInput): Promise<Tensor> {
    if (!(image instanceof Tensor)) return loadImage(image, { ...this.preprocessing, draft: this.#options.draft });
    const shape = [1, ...this.#source.info.inputSize];
    if (image.dtype !== "float32" || !sameShape(image.shape, shape))
      throw new ShapeError(
        expected(where, `a float32 tensor ${formatShape(shape)}`, `${image.dtype} ${formatShape(image.shape)}`),
      );
    return image;
  }

  #embedding(): Promise<CompiledModel> {
    const { device, dtype, threads } = this.#options;
    this.#embedder ??= compile(new PooledFeatures(this.network), { device, dtype, threads }).catch((error: unknown) => {
      this.#embedder = undefined; // another call may have better luck
      throw error;
    });
    return this.#embedder;
  }
}

function checkCall<T extends { readonly signal?: AbortSignal }>(where: string, options: T, names: OptionNames<T>): T {
  const { signal } = checkOptions(where, options, names);
  if (signal !== undefined && !(signal instanceof AbortSignal))
    throw new ArgumentError(expected(where, "signal to be an AbortSignal", shown(signal)));
  signal?.throwIfAborted();
  return options;
}

function iterate<T>(items: Iterable<T> | AsyncIterable<T>): AsyncIterator<T> {
  if (typeof items === "object" && items !== null) {
    if (Symbol.asyncIterator in items) return items[Symbol.asyncIterator]();
    if (Symbol.iterator in items) {
      const iterator = items[Symbol.iterator]();
      return {
        next: async () => iterator.next(),
        return: async () => iterator.return?.() ?? { done: true, value: undefined },
      };
    }
  }
  throw new ArgumentError(expected("classifyEach", "a list or stream of images", shown(items)));
}
