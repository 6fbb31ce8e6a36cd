import { Batch } from "../data/loader.js";
import { beta, streamOf } from "../data/random.js";
import { ArgumentError, expected, ShapeError, shown, TrainingError } from "../errors.js";
import { placeholder } from "../graph/value.js";
import { type Normalization, normalized } from "../image/normalize.js";
import { keep, submit } from "../lazy/flush.js";
import { inIsolation } from "../lazy/recording.js";
import { Module } from "../nn/module.js";
import { autocast, checkTrainingDtype, type TrainingDType } from "../ops/autocast.js";
import { crossEntropy } from "../ops/index.js";
import { mixup, mixupCrossEntropy } from "../ops/mixup.js";
import { clipGradNorm } from "../optim/clip.js";
import { GradScaler } from "../optim/grad_scaler.js";
import { withoutNormDecay } from "../optim/groups.js";
import { inRange, type Optimizer } from "../optim/optimizer.js";
import { cosineSchedule, type Schedule } from "../optim/schedule.js";
import { SGD } from "../optim/sgd.js";
import { checkOptions } from "../options.js";
import { integer } from "../shape.js";
import { Tensor } from "../tensor.js";
import { type Evaluation, evaluate, largest } from "./evaluate.js";
import { type Batches, type EpochReport, type FitOptions, fitNames, type Sums } from "./fit_options.js";
import { peek } from "./peek.js";

const nothing: Sums = { loss: 0, correct: 0, images: 0, skipped: 0, seconds: 0, idle: 0 };

/**
 * Trains a model. While the device runs one step the next one is recorded and its batch made; each step (forward,
 * backward, clipping, update, running statistics, average of the weights) is one plan. The same model, data, options and
 * device give the same losses, whether in one run or resumed. Modules whose parameters are all frozen (`requiresGrad`
 * false) stay in eval mode.
 *
 * @param data batches of uint8 images, in the same order for the same epoch
 * @returns how it went, epoch by epoch
 * @throws TrainingError when a loss is not finite: nothing is saved after that step; the signal's reason when it was stopped
 */
export async function fit(model: Module, data: Batches, options: FitOptions): Promise<EpochReport[]> {
  const run = new Run(model, data, options);
  return run.go();
}

interface Outcome {
  readonly loss: number;
  readonly correct: number;
  readonly images: number;
  readonly gradientNorm: number | undefined;
  readonly overflow: boolean | undefined;
}

/** A step handed to the device. */
interface InFlightStep {
  readonly step: number;
  readonly lr: number;
  readonly outcome: Promise<Outcome>;
  /** When the outcome was there. */
  completedAt?: number;
}

class Run {
  readonly #model: Module;
  readonly #data: Batches;
  readonly #options: FitOptions;
  readonly #optimizer: Optimizer;
  readonly #dtype: TrainingDType;
  readonly #scaler: GradScaler | undefined;
  readonly #schedule: Schedule;
  readonly #accumulate: number;
  readonly #stepsPerEpoch: number;
  readonly #epochs: number;
  readonly #history: EpochReport[];
  #step: number;
  #sums: Sums;
  /** The step whose outcome is still to come. */
  #inFlight: InFlightStep | undefined;
  /** Since when the device has had nothing to do, or undefined while it has. */
  #idleSince: number | undefined;
  /** What is to be recorded after the last step, with whether that one was skipped. */
  #pendingUpdate: { readonly skip: Tensor | undefined } | undefined;

  constructor(model: Module, data: Batches, options: FitOptions) {
    if (!(model instanceof Module)) throw new ArgumentError(expected("fit", "a model (nn.Module)", shown(model)));
    const { epochs, accumulate = 1, optimizer, start, clipNorm, mixup = 0 } = checkOptions("fit", options, fitNames);
    const { dtype = "float32", scaler } = options;
    checkTrainingDtype("fit", dtype);
    this.#dtype = dtype;
    this.#scaler = scaler ?? (dtype === "float16" ? new GradScaler() : undefined);
    this.#epochs = integer("fit", "epochs", epochs, 1);
    this.#accumulate = integer("fit", "accumulate", accumulate, 1);
    if (options.saveEvery !== undefined) integer("fit", "saveEvery", options.saveEvery, 1);
    if (clipNorm !== undefined) inRange("fit", "clipNorm", clipNorm, 0);
    inRange("fit", "mixup", mixup, 0);
    this.#model = model;
    this.#data = data;
    this.#options = options;
    this.#stepsPerEpoch = Math.ceil(integer("fit", "data.length", data.length, 1) / accumulate);
    this.#optimizer = optimizer ?? new SGD(withoutNormDecay(model, 5e-4), { lr: 0.1, momentum: 0.9, nesterov: true });
    const totalSteps = epochs * this.#stepsPerEpoch;
    const warmupSteps = Math.floor(totalSteps / 20);
    this.#schedule = options.schedule ?? cosineSchedule({ lr: this.#optimizer.lr, totalSteps, warmupSteps });
    this.#step = start?.step ?? 0;
    this.#history = [...(start?.history ?? [])];
    this.#sums = start?.epoch ?? nothing;
  }

  async go(): Promise<EpochReport[]> {
    while (this.#history.length < this.#epochs) await this.#runEpoch();
    return this.#history;
  }

  async #runEpoch(): Promise<void> {
    const { signal, saveEvery } = this.#options;
    const epoch = this.#history.length;
    const done = this.#step - epoch * this.#stepsPerEpoch;
    this.#setMode();
    const began = performance.now();
    const earlier = this.#sums.seconds;
    const clock = () => earlier + (performance.now() - began) / 1000;
    this.#idleSince = began;
    let group: Batch[] = [];
    let taken = done * this.#accumulate;
    for await (const batch of this.#data.epoch(epoch, taken)) {
      this.#tellOfSkipped(batch);
      group.push(batch);
      taken++;
      if (group.length < this.#accumulate && taken < this.#data.length) continue;
      const readable = group.filter((made) => made.count > 0 && this.#canTrain(made));
      group = [];
      if (readable.length > 0) await this.#advance(readable);
      else this.#step++; // not one image of this step could be read
      const stopped = signal?.aborted ?? false;
      if (stopped || this.#step % (saveEvery ?? Number.POSITIVE_INFINITY) === 0) {
        await this.#settle();
        this.#finishUpdate();
        this.#sums = { ...this.#sums, seconds: clock() };
        await this.#save();
        this.#idleSince = performance.now();
      }
      if (stopped) throw signal?.reason;
    }
    await this.#settle();
    this.#finishUpdate();
    await this.#endEpoch(epoch, clock());
  }

  /** Judges the model, saves and tells of the epoch. */
  async #endEpoch(epoch: number, seconds: number): Promise<void> {
    const { onEpoch, signal } = this.#options;
    const { loss, correct, images, skipped, idle } = this.#sums;
    this.#sums = { ...this.#sums, seconds };
    if (images === 0) throw new TrainingError(expected("fit", "images that can be read", `none in epoch ${epoch + 1}`));
    let validation: Evaluation | undefined;
    try {
      validation = await this.#validate();
    } catch (error) {
      if (signal?.aborted) await this.#save(); // all of the epoch's steps are done
      throw error;
    }
    const report: EpochReport = {
      epoch: epoch + 1,
      step: this.#step,
      lr: this.#schedule(Math.max(0, this.#step - 1)),
      loss: loss / images,
      accuracy: correct / images,
      images,
      skipped,
      ...(validation && { validationLoss: validation.loss, validationAccuracy: validation.accuracy }),
      seconds,
      imagesPerSecond: images / seconds,
      idle: idle / seconds,
    };
    this.#history.push(report);
    this.#sums = nothing;
    await this.#save();
    await onEpoch?.(report, validation);
    signal?.throwIfAborted();
  }

  async #validate(): Promise<Evaluation | undefined> {
    const { validation, ema, signal } = this.#options;
    if (!validation) return undefined;
    ema?.swap();
    try {
      const { first, all } = await peek(validation.epoch(0));
      return await evaluate(this.#model, all, { normalize: this.#normalization(first), signal });
    } finally {
      ema?.swap();
    }
  }

  #save(): void | Promise<void> {
    return this.#options.onSave?.({ step: this.#step, history: [...this.#history], epoch: this.#sums });
  }

  /** Submits one step, then waits for the one before it. */
  async #advance(group: readonly Batch[]): Promise<void> {
    this.#finishUpdate();
    const before = this.#inFlight;
    const idleSince = before ? before.completedAt : this.#idleSince;
    if (idleSince !== undefined) {
      const idle = this.#sums.idle + (performance.now() - idleSince) / 1000;
      this.#sums = { ...this.#sums, idle };
    }
    this.#inFlight = this.#launch(group);
    if (before) await this.#complete(before);
  }

  /** Waits for the step under way. */
  async #settle(): Promise<void> {
    const inFlight = this.#inFlight;
    this.#inFlight = undefined;
    if (inFlight) await this.#complete(inFlight);
    this.#idleSince = performance.now();
  }

  async #complete({ step, lr, outcome }: InFlightStep): Promise<void> {
    const { loss, correct, images, gradientNorm, overflow } = await outcome;
    const epoch = Math.floor((step - 1) / this.#stepsPerEpoch) + 1;
    if (!Number.isFinite(loss))
      throw new TrainingError(expected("fit", "a finite loss", `${loss} at step ${step} (epoch ${epoch})`));
    const sums = this.#sums;
    this.#sums = {
      ...sums,
      loss: sums.loss + loss * images,
      correct: sums.correct + correct,
      images: sums.images + images,
    };
    const steps = this.#epochs * this.#stepsPerEpoch;
    this.#options.onStep?.({
      step,
      steps,
      epoch,
      lr,
      loss,
      accuracy: correct / images,
      images,
      gradientNorm,
      overflow,
    });
  }

  /** Records one step and hands it to the device. What it needs of the outcome is asked for at once and comes with it. */
  #launch(group: readonly Batch[]): InFlightStep {
    const { clipNorm } = this.#options;
    const optimizer = this.#optimizer;
    const scaler = this.#scaler;
    const lr = this.#schedule(this.#step);
    optimizer.lr = lr;
    optimizer.zeroGrad();
    const parts = group.map((batch, i) => {
      const { loss, logits } = this.#forward(batch, i);
      const share = group.length === 1 ? loss : loss.div(group.length);
      (scaler ? scaler.scale(share) : share).backward();
      keep(loss.value);
      keep(logits.value);
      if (i < group.length - 1) submit(); // activations of one batch at a time
      return { loss, logits, batch };
    });
    scaler?.unscale(optimizer);
    const norm = clipNorm === undefined ? undefined : clipGradNorm(this.#trained(), clipNorm);
    const skip = scaler?.step(optimizer);
    if (!scaler) optimizer.step();
    this.#step++;
    this.#pendingUpdate = { skip };
    const inFlight: InFlightStep = { step: this.#step, lr, outcome: this.#outcome(parts, norm, skip) };
    inFlight.outcome.then(
      () => {
        inFlight.completedAt = performance.now();
      },
      () => {}, // whoever waits for it is told
    );
    return inFlight;
  }

  async #outcome(
    parts: readonly { loss: Tensor; logits: Tensor; batch: Batch }[],
    norm: Tensor | undefined,
    skip: Tensor | undefined,
  ): Promise<Outcome> {
    const answers = parts.map(({ loss, logits }) => Promise.all([loss.item(), logits.data()]));
    const [gradientNorm, skipped, results] = await Promise.all([norm?.item(), skip?.item(), Promise.all(answers)]);
    let correct = 0;
    let images = 0;
    let total = 0;
    for (const [i, [loss, logits]] of results.entries()) {
      const { classes, count } = parts[i].batch;
      const width = logits.length / count;
      const rows = logits as Float32Array;
      for (const [n, truth] of classes.entries())
        if (largest(rows.subarray(n * width, (n + 1) * width)) === truth) correct++;
      images += count;
      total += loss / parts.length;
    }
    return { loss: total, correct, images, gradientNorm, overflow: skipped === undefined ? undefined : skipped !== 0 };
  }

  #forward(batch: Batch, place: number): { loss: Tensor; logits: Tensor } {
    const { labelSmoothing = 0, mixup: alpha = 0, seed = 0 } = this.#options;
    const x = normalized("fit", batch.images, this.#normalization(batch));
    const labels = batch.labels;
    return autocast(this.#dtype, () => {
      if (alpha === 0) {
        const logits = this.#model.forward(x);
        return { logits, loss: crossEntropy(logits, labels, { labelSmoothing }) };
      }
      const lambda = beta(streamOf(seed, this.#step, place), alpha);
      const logits = this.#model.forward(mixup(x, Math.max(lambda, 1 - lambda)));
      return { logits, loss: mixupCrossEntropy(logits, labels, Math.max(lambda, 1 - lambda), { labelSmoothing }) };
    });
  }

  /** Records what follows the last step: of average and scale. It runs with whatever is flushed next, as a rule the next step. */
  #finishUpdate(): void {
    if (!this.#pendingUpdate) return;
    this.#options.ema?.update(this.#pendingUpdate);
    this.#scaler?.update();
    this.#pendingUpdate = undefined;
  }

  #normalization(batch?: Batch): Normalization {
    const { normalize } = this.#options;
    if (normalize) return normalize;
    const half = new Array<number>(batch?.shape[1] ?? 1).fill(0.5);
    return { mean: half, std: half };
  }

  #trained(): Tensor[] {
    return this.#model.parameters().filter(({ requiresGrad }) => requiresGrad);
  }

  /** Training mode, but for modules that are frozen as a whole: their running statistics stay what they were. */
  #setMode(): void {
    this.#model.train();
    for (const [, module] of this.#model.namedModules()) {
      const parameters = module.parameters();
      if (parameters.length > 0 && parameters.every(({ requiresGrad }) => !requiresGrad)) module.eval();
    }
  }

  /**
   * Whether a batch can be trained on: one that others' damage has left with one image may have one value a channel, which
   * batch norm cannot normalise. Such an image is skipped like the others. Records in isolation, so nothing is tracked.
   */
  #canTrain(batch: Batch): boolean {
    if (batch.count > 1) return true;
    const x = new Tensor(placeholder(batch.shape, "float32"));
    try {
      inIsolation(() => this.#model.forward(x), { training: "own" });
      return true;
    } catch (error) {
      if (!(error instanceof ShapeError)) throw error;
      const message = `image ${batch.indices[0]} is alone in its batch (${error.message})`;
      const left = new Batch(batch.pixels, batch.shape, batch.classes, batch.indices, [
        { index: batch.indices[0], message },
      ]);
      this.#tellOfSkipped(left);
      return false;
    }
  }

  #tellOfSkipped({ skipped }: Batch): void {
    this.#sums = { ...this.#sums, skipped: this.#sums.skipped + skipped.length };
    for (const image of skipped) this.#options.onSkip?.(image);
  }
}
