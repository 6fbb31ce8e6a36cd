import type { Batch } from "../data/loader.js";
import type { SkippedPicture } from "../data/make_batch.js";
import type { Normalization } from "../image/normalize.js";
import type { TrainingDType } from "../ops/autocast.js";
import type { EMA } from "../optim/ema.js";
import type { GradScaler } from "../optim/grad_scaler.js";
import type { Optimizer } from "../optim/optimizer.js";
import type { Schedule } from "../optim/schedule.js";
import type { OptionNames } from "../options.js";
import type { Evaluation } from "./evaluate.js";

/** Where batches come from: a `DataLoader`, or anything that gives the same batches for the same epoch. */
export interface Batches {
  /** Batches an epoch. */
  readonly length: number;
  /** The batches of an epoch, from the one at place `from` on. */
  epoch(epoch: number, from?: number): AsyncIterable<Batch>;
}

export interface FitOptions {
  readonly epochs: number;
  /** Default: SGD, lr 0.1, Nesterov momentum 0.9, weight decay 5e-4 but for norms and biases. */
  readonly optimizer?: Optimizer;
  /** Learning rate of every optimiser step. Default: half a cosine from the optimiser's own after a twentieth of warm-up. */
  readonly schedule?: Schedule;
  /** Batches whose gradients make one step, default 1. */
  readonly accumulate?: number;
  /** How bytes become inputs, default mean 0.5 and standard deviation 0.5 of every channel. */
  readonly normalize?: Normalization;
  /** Default 0. */
  readonly labelSmoothing?: number;
  /** Alpha of the Beta distribution images are mixed by (Zhang et al. 2018), default 0: not at all. */
  readonly mixup?: number;
  /** Largest global norm of a step's gradients, default none. */
  readonly clipNorm?: number;
  /**
   * Arithmetic of the forward and backward passes, default "float32". In "bfloat16" and "float16" convolutions and linear
   * layers compute in that precision (see `amp.autocast`); weights, optimiser, statistics and loss stay float32.
   */
  readonly dtype?: TrainingDType;
  /** Scales the loss in float16 and skips steps whose gradients overflow. Default: a new one in float16, else none. */
  readonly scaler?: GradScaler;
  /** An average of the model's weights: updated after every step, and what validation judges. */
  readonly ema?: EMA;
  /** What the model is judged by after every epoch. */
  readonly validation?: Batches;
  /** Stops after the step under way: `fit` saves and rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  /** Where to go on, default the beginning. Model, optimiser and average must be in the state they were in there. */
  readonly start?: Progress;
  /** Decides what is drawn in training (mixup), default 0. */
  readonly seed?: number;
  /** Called after every step. */
  readonly onStep?: (step: StepReport) => void;
  /** Called for every image that could not be read. */
  readonly onSkip?: (image: SkippedPicture) => void;
  /** Called after every epoch, once it was saved. */
  readonly onEpoch?: (epoch: EpochReport, validation: Evaluation | undefined) => void | Promise<void>;
  /** Called, and waited for, after every epoch, every `saveEvery` steps and when the signal stops it: all losses were finite. */
  readonly onSave?: (progress: Progress) => void | Promise<void>;
  /** Default never within an epoch. */
  readonly saveEvery?: number;
}

export const fitNames: OptionNames<FitOptions> = {
  epochs: true,
  optimizer: true,
  schedule: true,
  accumulate: true,
  normalize: true,
  labelSmoothing: true,
  mixup: true,
  clipNorm: true,
  dtype: true,
  scaler: true,
  ema: true,
  validation: true,
  signal: true,
  start: true,
  seed: true,
  onStep: true,
  onSkip: true,
  onEpoch: true,
  onSave: true,
  saveEvery: true,
};

export interface StepReport {
  /** Counts from 1, over all epochs. */
  readonly step: number;
  readonly steps: number;
  readonly epoch: number;
  readonly lr: number;
  /** Mean loss of the step's images, as trained on. */
  readonly loss: number;
  /** Share of its images the model got right in training; of mixed ones, the larger part counts. */
  readonly accuracy: number;
  readonly images: number;
  /** Norm of the gradients before clipping, where they are clipped. */
  readonly gradientNorm?: number;
  /** Whether the gradients overflowed and nothing was changed, where the loss is scaled. */
  readonly overflow?: boolean;
}

export interface EpochReport {
  /** Counts from 1. */
  readonly epoch: number;
  readonly step: number;
  readonly lr: number;
  readonly loss: number;
  readonly accuracy: number;
  readonly images: number;
  readonly skipped: number;
  readonly validationLoss?: number;
  readonly validationAccuracy?: number;
  /** Of training, without validation. */
  readonly seconds: number;
  readonly imagesPerSecond: number;
  /** Share of those seconds in which the device had nothing to do. */
  readonly idle: number;
}

/** How far a run has come: plain data, which JSON keeps. */
export interface Progress {
  readonly step: number;
  readonly history: readonly EpochReport[];
  /** Sums over the epoch under way. */
  readonly epoch: Sums;
}

/** Sums over an epoch. */
export interface Sums {
  readonly loss: number;
  readonly correct: number;
  readonly images: number;
  readonly skipped: number;
  readonly seconds: number;
  readonly idle: number;
}
