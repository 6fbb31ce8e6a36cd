import { type Command, InvalidArgumentError, Option } from "commander";
import { createModel, type ModelOptions, type Network } from "../../models/index.js";
import { loadClassifier } from "../classifier/source.js";
import { type Dataset, openDataset, pixelStatistics } from "../data/dataset.js";
import { DataLoader } from "../data/loader.js";
import { setDefaultDevice } from "../devices/resolve.js";
import { ArgumentError, expected, MemoryError, SeresnetError } from "../errors.js";
import { reason } from "../files.js";
import { bytesOf, imagenetMean, imagenetStd } from "../image/preprocess.js";
import type { CheckpointInfo } from "../io/checkpoint.js";
import { readLines } from "../io/text.js";
import { EMA } from "../optim/ema.js";
import { GradScaler } from "../optim/grad_scaler.js";
import type { Evaluation } from "../train/evaluate.js";
import { fit } from "../train/fit.js";
import type { Progress } from "../train/fit_options.js";
import { writeReport } from "../train/report.js";
import { checkSettings, readRun, restoreRun, type SavedRun, saveRun } from "../train/state.js";
import { freeze, parseFreeze } from "./freeze.js";
import { type Device, deviceOption, jsonOption, modelOption, modelOptionsOption, parseCount } from "./options.js";
import { percent, print, printJson, warn } from "./output.js";
import { addRecipeOptions, learningRate, makeOptimizer, makeSchedule, type Recipe } from "./recipe.js";
import { filesIn, makeRoom, type RunFiles, takeFolder } from "./run_folder.js";
import { Metrics, TrainingBar } from "./training_output.js";

interface Options extends Recipe {
  model?: string;
  modelOptions?: ModelOptions;
  out: string;
  resume?: boolean;
  overwrite?: boolean;
  weights?: string;
  freeze?: number | "all";
  batch?: number | "auto";
  size?: number;
  classes?: string;
  validation: number;
  workers?: number;
  strict?: boolean;
  saveEvery?: number;
  recompute?: boolean;
  device: Device;
  json?: boolean;
}

const firstAutomaticBatch = 256;

export function addTrain(program: Command): void {
  const command = program
    .command("train")
    .description("Train a network on your images, or tune one that is trained.")
    .argument(
      "<data>",
      "a folder with IDX files (MNIST's layout), or one of class folders, or one with train and val (or test) folders of them",
    )
    .addOption(modelOption())
    .addOption(modelOptionsOption())
    .requiredOption("--out <folder>", "where checkpoint, resume file, metrics and report go")
    .option("--resume", "go on where the run in --out stopped; give it the same options, or more epochs")
    .option("--overwrite", "begin anew where --out holds a run")
    .option(
      "--weights <file|folder|hf:owner/name>",
      "start from these weights; a classifier for other classes begins anew",
    )
    .addOption(
      new Option("--freeze <stages>", 'leave the stem and so many stages as they are, or "all"').argParser(parseFreeze),
    )
    .addOption(
      new Option(
        "--batch <count>",
        'images computed at once (default: 128, fewer of little data); "auto" halves until they fit into memory',
      ).argParser(parseBatch),
    )
    .option(
      "--size <pixels>",
      "side of the images (default: 32 for …_cifar, else 224; IDX images keep theirs)",
      parseCount,
    )
    .option("--classes <file>", "class names, one a line, in the order of the labels")
    .option("--validation <share>", "of each class to set aside where the data brings none", parseShare, 0.1)
    .option("--workers <count>", "threads that decode and augment images", parseCount)
    .option("--strict", "stop at an image that cannot be read; else it is named, skipped and counted")
    .option("--save-every <steps>", "save within epochs too", parseCount)
    .option("--recompute", "less memory, more time: activations are computed again in the backward pass")
    .addOption(deviceOption())
    .addOption(jsonOption())
    .addHelpText(
      "after",
      `
Writes into --out: model.safetensors (what classify and evaluate take), resume.safetensors, metrics.jsonl, report.html.
Ctrl-C saves and ends with exit status 130.

Examples:
  seresnet train /usr/share/datasets/fashion-mnist --model seresnet20_cifar --epochs 30 --out runs/fashion
  seresnet train photos --model seresnet18 --weights seresnet18.safetensors --freeze 3 --epochs 5 --out runs/photos
  seresnet train photos --model seresnet18 --weights seresnet18.safetensors --freeze 3 --epochs 5 --out runs/photos --resume`,
    );
  addRecipeOptions(command).action(train);
}

function parseBatch(text: string): number | "auto" {
  return text === "auto" ? text : parseCount(text);
}

function parseShare(text: string): number {
  const share = Number(text);
  if (text.trim() === "" || !(share >= 0 && share < 1))
    throw new InvalidArgumentError("Expected a number from 0 to below 1.");
  return share;
}

async function train(folder: string, options: Options): Promise<void> {
  setDefaultDevice(options.device);
  const { validation: share, seed, out } = options;
  const classes = options.classes === undefined ? undefined : await readClasses(options.classes);
  const datasets = await openDataset(folder, { classes, validation: share, seed });
  for (const remark of [datasets.train, datasets.validation].flatMap((dataset) => dataset?.remarks ?? [])) warn(remark);
  const start = await startingPoint(options, datasets.train);
  const unlock = await takeFolder(out);
  try {
    await trainInto(out, options, datasets, start);
  } finally {
    unlock();
  }
}

/** The run, in a folder that is its own. */
async function trainInto(out: string, options: Options, datasets: Datasets, start: StartingPoint): Promise<void> {
  if (!options.resume) await makeRoom(out, options.overwrite ?? false);
  const saved = options.resume ? await readRun(filesIn(out).resume) : undefined;
  for (let batch = firstBatch(options, saved, datasets.train.labels.length); ; batch = Math.floor(batch / 2)) {
    try {
      return await runWith(batch, options, datasets, start, saved);
    } catch (error) {
      if (options.batch !== "auto" || saved || batch < 2 || !(error instanceof MemoryError)) throw error;
      warn(`a batch of ${batch} images does not fit into memory: trying ${Math.floor(batch / 2)}`);
    }
  }
}

function firstBatch({ batch }: Options, saved: SavedRun | undefined, pictures: number): number {
  if (typeof batch === "number") return batch;
  if (saved) return Number(saved.settings.batch);
  return batch === "auto" ? firstAutomaticBatch : fittingBatch(pictures);
}

/** A power of two up to 128, and at least 8, that makes sixteen steps or more of an epoch. */
function fittingBatch(pictures: number): number {
  return Math.max(8, Math.min(128, 2 ** Math.floor(Math.log2(Math.max(pictures, 1) / 16))));
}

/** What the checkpoints of a run say about themselves, and the weights it starts from. */
interface StartingPoint {
  readonly info: CheckpointInfo;
  readonly build: () => Network;
}

async function startingPoint(options: Options, { classes, pictures }: Dataset): Promise<StartingPoint> {
  const { weights, model: named, modelOptions, seed, recompute } = options;
  const isGrey = pictures.kind === "pixels";
  const given =
    weights === undefined
      ? undefined
      : await loadClassifier({
          weights,
          model: named,
          modelOptions,
          numClasses: classes.length,
          inChannels: isGrey ? 1 : undefined,
        });
  const model = named ?? given?.info.model;
  if (model === undefined)
    throw new ArgumentError(expected("train", "--model NAME (seresnet models lists them)", "none"));
  const isSmall = model.endsWith("_cifar");
  const inChannels = given?.info.inputSize[0] ?? (isGrey ? 1 : 3);
  if (inChannels !== 1 && inChannels !== 3)
    throw new ArgumentError(expected(weights ?? "train", "weights for 1 or 3 channels", `${inChannels}`));
  const side = options.size ?? given?.info.inputSize[1] ?? (isSmall ? 32 : 224);
  const own = isGrey && !given ? pixelStatistics(pictures) : undefined;
  const info: CheckpointInfo = {
    model,
    options: { ...given?.info.options, ...modelOptions, numClasses: classes.length, inChannels },
    classes: [...classes],
    inputSize: isGrey ? [inChannels, pictures.height, pictures.width] : [inChannels, side, side],
    mean: given?.info.mean ?? (own ? [own.mean] : [...imagenetMean]),
    std: given?.info.std ?? (own ? [own.std] : [...imagenetStd]),
    interpolation: given?.info.interpolation ?? "bilinear",
    cropPct: isGrey ? 1 : (given?.info.cropPct ?? (isSmall ? 1 : 0.875)),
    ...(given?.info.cropMode && { cropMode: given.info.cropMode }),
  };
  for (const change of given?.changes ?? []) warn(`${weights}: ${change}`);
  const build = () => {
    const network = createModel(model, { ...(info.options as ModelOptions), seed, checkpoint: recompute });
    if (given) network.loadStateDict(given.network.stateDict());
    if (options.freeze !== undefined) freeze(network, options.freeze);
    return network;
  };
  build(); // what does not fit together is said before anything is written
  return { info, build };
}

type Datasets = { train: Dataset; validation: Dataset | undefined };

/** One training, or the rest of one, with a size of batch. */
async function runWith(
  batch: number,
  options: Options,
  datasets: Datasets,
  { info, build }: StartingPoint,
  saved: SavedRun | undefined,
): Promise<void> {
  const {
    out,
    resume,
    overwrite,
    json,
    strict = false,
    workers,
    saveEvery,
    recompute: _,
    device: __,
    ...rest
  } = options;
  const { epochs, accumulate, labelSmoothing, mixup, clipNorm, seed } = options;
  const files = filesIn(out);
  const settings = {
    ...rest,
    ...info,
    batch,
    lr: learningRate(options, batch),
    pictures: datasets.train.labels.length,
  };
  if (saved) checkResumed(files, saved, settings);
  const [channels, size] = info.inputSize;
  const isGrey = datasets.train.pictures.kind === "pixels";
  const { cropPct, cropMode, interpolation } = info;
  const shape = { size, channels: channels as 1 | 3, cropPct, cropMode, interpolation };
  const fill = bytesOf(info.mean);
  const common = { ...shape, seed, strict, workers };
  const largest = Math.min(batch, datasets.train.labels.length);
  await using data = new DataLoader(datasets.train, {
    ...common,
    batchSize: largest,
    shuffle: true,
    joinSingle: true,
    augment: {
      randomResizedCrop: !isGrey && (options.randomCrop ?? size > 64),
      padCrop: options.padCrop ?? (size > 64 ? 0 : Math.floor(size / 8)),
      flip: options.flip,
      erasing: options.erasing,
      fill,
    },
  });
  const held =
    datasets.validation && new DataLoader(datasets.validation, { ...common, batchSize: batch, augment: { fill } });
  const model = build();
  const optimizer = makeOptimizer(options, model, batch);
  const schedule = makeSchedule(options, optimizer.lr, Math.ceil(data.length / accumulate));
  const ema = options.ema > 0 ? new EMA(model, { decay: options.ema, warmup: true }) : undefined;
  const scaler = options.dtype === "float16" ? new GradScaler() : undefined;
  const trainee = { model, optimizer, ema, scaler };
  if (saved) await restoreRun(files.resume, trainee, saved);
  const metrics = await Metrics.open(files.metrics, saved?.progress.step, saved?.progress.history);
  const bar = new TrainingBar(epochs, datasets.train.labels.length);
  const stop = new AbortController();
  const release = stopOnSignals(stop);
  const named = new Set<number>();
  let progress: Progress | undefined = saved?.progress;
  let last: Evaluation | undefined;
  try {
    const history = await fit(model, data, {
      epochs,
      optimizer,
      schedule,
      accumulate,
      normalize: { mean: info.mean, std: info.std },
      labelSmoothing,
      mixup,
      clipNorm,
      ema,
      dtype: options.dtype,
      scaler,
      seed,
      validation: held,
      signal: stop.signal,
      start: progress,
      saveEvery,
      onSkip: ({ index, message }) => {
        if (named.has(index)) return;
        named.add(index);
        bar.say(`${message}: skipped`);
      },
      onStep: (step) => {
        bar.step(step);
        metrics.step(step);
      },
      onSave: async (now) => {
        await saveRun(files, trainee, info, { settings, progress: now });
        progress = now;
      },
      onEpoch: async (epoch, evaluation) => {
        last = evaluation;
        metrics.epoch(epoch);
        bar.epoch(epoch);
        const { history: epochsSoFar } = progress as Progress;
        await writeReport(files.report, { info, settings, history: epochsSoFar, evaluation, held: held?.dataset });
      },
    });
    tell(history.at(-1), last, files, json ?? false);
  } catch (error) {
    if (stop.signal.aborted && error === stop.signal.reason) {
      const at = progress ? `saved at step ${progress.step}; --resume goes on` : "nothing was saved yet";
      bar.say(`stopped: ${at}`);
      return;
    }
    if (!(error instanceof SeresnetError) || !progress || error instanceof MemoryError) throw error;
    const kept = `${files.checkpoint} is of step ${progress.step}`;
    throw new SeresnetError(error.code, `${error.message}; ${kept}`, { cause: error });
  } finally {
    bar.stop();
    release();
    await held?.dispose();
  }
}

/** A run goes on with the settings it had, but may have more epochs than it was to have. */
function checkResumed(files: RunFiles, saved: SavedRun, { epochs, ...settings }: Record<string, unknown>): void {
  const { epochs: planned, ...had } = saved.settings;
  const done = saved.progress.history.length;
  checkSettings(files.resume, had, settings, ` (to begin a new run from its weights: --weights ${files.checkpoint})`);
  if (epochs === planned) return;
  if (Number(epochs) < done)
    throw new ArgumentError(expected(files.resume, `--epochs of at least the ${done} that are done`, `${epochs}`));
  warn(`${files.resume}: ${planned} epochs were planned; from here on learning rates are those of ${epochs}`);
}

/** Ctrl-C and SIGTERM stop after the step under way; a second one ends at once. Returns what undoes it. */
function stopOnSignals(stop: AbortController): () => void {
  const codes = { SIGINT: 130, SIGTERM: 143 } as const;
  const listeners = (["SIGINT", "SIGTERM"] as const).map((signal) => {
    const listener = () => {
      if (stop.signal.aborted) process.exit(codes[signal]);
      process.exitCode = codes[signal];
      stop.abort();
    };
    process.on(signal, listener);
    return [signal, listener] as const;
  });
  return () => {
    for (const [signal, listener] of listeners) process.off(signal, listener);
  };
}

function tell(
  epoch: Progress["history"][number] | undefined,
  evaluation: Evaluation | undefined,
  files: RunFiles,
  json: boolean,
): void {
  const accuracy = evaluation?.accuracy ?? epoch?.validationAccuracy;
  if (json) {
    printJson({ ...epoch, ...files });
    return;
  }
  if (accuracy !== undefined) print(`accuracy ${percent(accuracy, 2)}`);
  print(`${files.checkpoint}\n${files.report}`);
}

function readClasses(path: string): Promise<string[]> {
  return readLines(path).catch((error: unknown) => {
    throw new ArgumentError(expected(path, "a file of class names", reason(error)), { cause: error });
  });
}
