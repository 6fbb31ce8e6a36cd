import { Network } from "../../models/index.js";
import { ArgumentError, expected, shown } from "../errors.js";
import type { PreprocessOptions } from "../image/preprocess.js";
import { checkPreprocessing } from "../image/preprocess.js";
import { type CheckpointInfo, writeCheckpoint } from "../io/checkpoint.js";
import { checkOptions, type OptionNames } from "../options.js";
import { loadClassifier, preprocessingOf, usualInfo } from "./source.js";

export interface SaveCheckpointOptions {
  /** One for each output, in order. Default: ImageNet's for 1000, else `class 0`, `class 1`, … */
  readonly labels?: readonly string[];
  /** How `loadImage` prepares an image for the network. Default: the usual of its kind, with ImageNet's statistics. */
  readonly preprocessing?: PreprocessOptions;
}

const saveNames: OptionNames<SaveCheckpointOptions> = { labels: true, preprocessing: true };

/** A network with its labels and its preprocessing, as `loadCheckpoint` gives it. */
export interface LoadedCheckpoint {
  /** In eval mode. */
  readonly model: Network;
  readonly labels: readonly string[];
  /** What `loadImage` takes. */
  readonly preprocessing: PreprocessOptions;
}

/**
 * Writes a network of `createModel` with its weights, its labels and its preprocessing as one `.safetensors` file, atomically:
 * what `seresnet train` writes, and what `ImageClassifier.load`, the commands and `loadCheckpoint` take without being told more.
 *
 * @throws ArgumentError for another module (`saveSafetensors` writes its state dict), other labels than outputs and a
 *   preprocessing that `loadImage` does not take; WeightsError when the file cannot be written
 */
export async function saveCheckpoint(path: string, model: Network, options: SaveCheckpointOptions = {}): Promise<void> {
  const where = "saveCheckpoint";
  const { labels, preprocessing } = checkOptions(where, options, saveNames);
  if (typeof path !== "string" || path === "") throw new ArgumentError(expected(where, "a path", shown(path)));
  if (!(model instanceof Network)) throw new ArgumentError(expected(where, "a network of createModel", shown(model)));
  const usual = await usualInfo(model);
  const [channels, height] = usual.inputSize;
  const classes = labels ?? usual.classes;
  if (
    !Array.isArray(classes) ||
    classes.length !== usual.classes.length ||
    !classes.every((label) => typeof label === "string")
  )
    throw new ArgumentError(expected(where, `${usual.classes.length} labels, as the model has outputs`, shown(labels)));
  const info: CheckpointInfo = { ...usual, options: { ...model.options }, classes: [...classes] };
  if (channels === 1 || channels === 3) {
    const { size, mean, std, interpolation, cropPct, cropMode } = checkPreprocessing({
      size: height,
      cropPct: usual.cropPct,
      interpolation: usual.interpolation,
      ...preprocessing,
      channels,
    });
    Object.assign(info, { inputSize: [channels, size, size], mean: [...mean], std: [...std], interpolation, cropPct });
    if (cropMode !== "center") info.cropMode = cropMode;
  }
  await writeCheckpoint(path, model.stateDict(), info);
}

/**
 * The network of a checkpoint that `saveCheckpoint` or `seresnet train` wrote, with all that belongs to it.
 *
 * @param source what `ImageClassifier.load` takes
 * @throws WeightsError for a file that is damaged or does not say what it is
 */
export async function loadCheckpoint(source: string): Promise<LoadedCheckpoint> {
  if (typeof source !== "string" || source === "")
    throw new ArgumentError(expected("loadCheckpoint", "a path", shown(source)));
  const classifier = await loadClassifier({ weights: source });
  return { model: classifier.network, labels: classifier.info.classes, preprocessing: preprocessingOf(classifier) };
}
