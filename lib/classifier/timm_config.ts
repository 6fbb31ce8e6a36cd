import type { ResNetOptions } from "../../models/index.js";
import { expected, listed, WeightsError } from "../errors.js";
import { reason } from "../files.js";
import { cropModes } from "../image/preprocess.js";
import { type Interpolation, interpolations } from "../image/resize.js";
import type { CheckpointInfo } from "../io/checkpoint.js";
import { isObject, parseStrictJson, quoted } from "../io/json.js";
import { readTextFile } from "../io/text.js";

/** What a config.json says; undefined where it is silent. */
export type TimmConfig = Partial<Omit<CheckpointInfo, "options" | "classes">> & {
  numClasses?: number;
  /** By place in a list, or by number where timm's labels have gaps. */
  labelNames?: readonly string[] | Readonly<Record<string, string>>;
  /** What `model_args` makes of the network. */
  options: ResNetOptions;
};

/** Arguments of timm's models that our networks have, under our names. */
const modelArguments: Readonly<Record<string, keyof ResNetOptions>> = {
  in_chans: "inChannels",
  num_classes: "numClasses",
  global_pool: "globalPool",
  cardinality: "groups",
  base_width: "widthPerGroup",
};

/** Those that change nothing about a network that is trained. */
const inert = ["drop_rate", "drop_path_rate", "drop_block_rate", "zero_init_last", "pretrained", "checkpoint_path"];

/**
 * Reads the `config.json` that timm and the Hugging Face hub keep beside weights: `architecture`, `num_classes`,
 * `label_names`, `model_args`, and `pretrained_cfg` for the preprocessing. Resolves to undefined when there is no such
 * file or it is some other program's. Throws WeightsError for one that is damaged, and for what it says of the network or
 * the preprocessing that we have not: passing that over would give other answers than timm's.
 */
export async function readTimmConfig(path: string): Promise<TimmConfig | undefined> {
  let text: string;
  try {
    text = await readTextFile(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new WeightsError(expected(path, "a readable file", reason(error)), { cause: error });
  }
  let config: unknown;
  try {
    config = parseStrictJson(text);
  } catch (error) {
    throw new WeightsError(expected(path, "JSON", (error as Error).message), { cause: error });
  }
  if (!isObject(config) || config.architecture === undefined) return undefined;
  const nested = isObject(config.pretrained_cfg) ? config.pretrained_cfg : {};
  const find = <T>(name: string, what: string, is: (value: unknown) => boolean): T | undefined => {
    const value = config[name] ?? nested[name] ?? undefined; // timm writes null for "not said"
    if (value !== undefined && !is(value))
      throw new WeightsError(expected(path, `${name} to be ${what}`, quoted(value)));
    return value as T | undefined;
  };
  const numbers = (value: unknown): value is number[] => Array.isArray(value) && value.every(Number.isFinite);
  const positive = (value: unknown) => Number.isSafeInteger(value) && Number(value) > 0;
  const oneOf = (names: readonly string[]) => (value: unknown) => names.some((name) => name === value);
  const cropMode = find<CheckpointInfo["cropMode"]>("crop_mode", `one of ${cropModes.join(", ")}`, oneOf(cropModes));
  return {
    model: find("architecture", "a name", isString),
    numClasses: find("num_classes", "a whole number", (value) => value === 0 || positive(value)),
    labelNames: find(
      "label_names",
      "labels, in a list or by their numbers",
      (value) => (Array.isArray(value) || isObject(value)) && Object.values(value).every(isString),
    ),
    inputSize: find(
      "input_size",
      "[C, H, W]",
      (value) => numbers(value) && value.length === 3 && value.every(positive),
    ),
    mean: find("mean", "a list of numbers", numbers),
    std: find("std", "a list of positive numbers", (value) => numbers(value) && value.every((item) => item > 0)),
    // timm's own default
    interpolation:
      find<Interpolation>("interpolation", `one of ${interpolations.join(", ")}`, oneOf(interpolations)) ??
      (isObject(config.pretrained_cfg) ? "bicubic" : undefined),
    cropPct: find(
      "crop_pct",
      "in (0, 1]",
      (value) => Number.isFinite(value) && Number(value) > 0 && Number(value) <= 1,
    ),
    ...(cropMode !== undefined && cropMode !== "center" && { cropMode }),
    options: optionsOf(path, config.model_args ?? {}),
  };
}

/** Our options for timm's `model_args`. Their values are checked where the network is built. */
function optionsOf(path: string, given: unknown): ResNetOptions {
  if (!isObject(given)) throw new WeightsError(expected(path, "model_args as an object", quoted(given)));
  const said = Object.entries(given).filter(([name, value]) => value !== null && !inert.includes(name));
  const unknown = said.flatMap(([name, value]) =>
    Object.hasOwn(modelArguments, name) ? [] : [`${name} ${quoted(value)}`],
  );
  if (unknown.length > 0)
    throw new WeightsError(expected(path, `model_args among ${listed(Object.keys(modelArguments))}`, listed(unknown)));
  return Object.fromEntries(said.map(([name, value]) => [modelArguments[name], value]));
}

function isString(value: unknown): value is string {
  return typeof value === "string";
}
