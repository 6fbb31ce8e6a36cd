import { expected, WeightsError } from "../errors.js";
import { type CropMode, cropModes } from "../image/preprocess.js";
import { type Interpolation, interpolations } from "../image/resize.js";
import type { Tensor } from "../tensor.js";
import { isObject, parseStrictJson, quoted } from "./json.js";
import { readSafetensors, saveSafetensors } from "./safetensors.js";

/** What a checkpoint says about its weights: the metadata entry `seresnet`, as JSON. */
export interface CheckpointInfo {
  /** A name that `createModel` knows. */
  model: string;
  /** The options that go with it. */
  options: Record<string, unknown>;
  /** One label for each output, in order. */
  classes: string[];
  /** Channels, height and width of the images the model was trained on. */
  inputSize: [number, number, number];
  /** For each channel, of values in 0..1. */
  mean: number[];
  std: number[];
  interpolation: Interpolation;
  /** The part of the short side that the centre crop keeps, in (0, 1]. */
  cropPct: number;
  /** What is done about the other side; undefined means "center". */
  cropMode?: CropMode;
}

/** A checkpoint as read: `info` is undefined for weights that some other program wrote. */
export interface Checkpoint {
  info: CheckpointInfo | undefined;
  weights: Record<string, Tensor>;
  metadata: Record<string, string>;
}

const metadataEntry = "seresnet";

/** Reads a `.safetensors` checkpoint. Throws WeightsError for a damaged file and for a broken `seresnet` entry. */
export async function readCheckpoint(path: string): Promise<Checkpoint> {
  const { tensors, metadata } = await readSafetensors(path);
  const entry = Object.hasOwn(metadata, metadataEntry) ? metadata[metadataEntry] : undefined;
  const info = entry === undefined ? undefined : parseCheckpointInfo(entry, path);
  return { info, weights: tensors, metadata };
}

/** Writes weights and what belongs to them as one file, atomically. Throws WeightsError when `info` is incomplete. */
export async function writeCheckpoint(
  path: string,
  stateDict: Record<string, Tensor>,
  info: CheckpointInfo,
): Promise<void> {
  const checked = checkInfo(info, "writeCheckpoint");
  await saveSafetensors(path, stateDict, { format: "pt", [metadataEntry]: JSON.stringify(checked) });
}

/** Parses and checks the text of a `seresnet` metadata entry; `file` stands in messages. */
export function parseCheckpointInfo(text: string, file: string): CheckpointInfo {
  let value: unknown;
  try {
    value = parseStrictJson(text);
  } catch (error) {
    const got = (error as Error).message.replace(/\s+/g, " ").slice(0, 160);
    throw new WeightsError(expected(file, `metadata "${metadataEntry}" in JSON without repeated keys`, got), {
      cause: error,
    });
  }
  return checkInfo(value, file);
}

function checkInfo(value: unknown, file: string): CheckpointInfo {
  const must = (holds: boolean, what: string, got: unknown): void => {
    if (!holds) throw new WeightsError(expected(file, `metadata "${metadataEntry}" ${what}`, quoted(got)));
  };
  if (!isObject(value))
    throw new WeightsError(expected(file, `metadata "${metadataEntry}" to be an object`, quoted(value)));
  const { model, options, classes, inputSize, mean, std, interpolation, cropPct, cropMode } = value;
  must(typeof model === "string" && model !== "", "to have a model name", model);
  must(isObject(options), "to have options (an object)", options);
  const outputs = isObject(options) ? options.numClasses : undefined;
  must(
    isArrayOf(classes, isString) && (classes.length > 0 || outputs === 0),
    "to have classes (a list of labels)",
    classes,
  );
  must(
    outputs === undefined || outputs === (classes as string[]).length,
    `to have as many classes as options.numClasses (${quoted(outputs)})`,
    (classes as string[]).length,
  );
  must(isArrayOf(inputSize, isExtent) && inputSize.length === 3, "to have inputSize [C, H, W]", inputSize);
  const channels = (inputSize as number[])[0];
  must(isArrayOf(mean, isNumber) && mean.length === channels, `to have a mean for each of ${channels} channels`, mean);
  must(
    isArrayOf(std, isNumber) && std.length === channels && std.every((deviation) => deviation > 0),
    `to have a positive std for each of ${channels} channels`,
    std,
  );
  must(isInterpolation(interpolation), `to have an interpolation (${interpolations.join(", ")})`, interpolation);
  must(isNumber(cropPct) && cropPct > 0 && cropPct <= 1, "to have a cropPct in (0, 1]", cropPct);
  must(
    cropMode === undefined || (cropModes as readonly unknown[]).includes(cropMode),
    `to have a cropMode (${cropModes.join(", ")})`,
    cropMode,
  );
  const info = { model, options, classes, inputSize, mean, std, interpolation, cropPct } as CheckpointInfo;
  return cropMode === undefined ? info : { ...info, cropMode: cropMode as CropMode };
}

function isArrayOf<T>(value: unknown, is: (item: unknown) => item is T): value is T[] {
  return Array.isArray(value) && value.every(is);
}

function isString(value: unknown): value is string {
  return typeof value === "string";
}

function isNumber(value: unknown): value is number {
  return Number.isFinite(value);
}

function isExtent(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) > 0;
}

function isInterpolation(value: unknown): value is Interpolation {
  return (interpolations as readonly unknown[]).includes(value);
}
