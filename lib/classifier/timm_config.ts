import { readFile } from "node:fs/promises";
import { expected, WeightsError } from "../errors.js";
import { type Interpolation, interpolations } from "../image/resize.js";
import type { CheckpointInfo } from "../io/checkpoint.js";
import { reason } from "../io/files.js";
import { isObject, parseStrictJson, quoted } from "../io/json.js";

/** What a config.json says; undefined where it is silent. */
export type TimmConfig = Partial<Omit<CheckpointInfo, "options">> & { numClasses?: number };

/**
 * Reads the `config.json` that timm and the Hugging Face hub keep beside weights: `architecture`, `num_classes`,
 * `label_names`, and `pretrained_cfg` for the preprocessing. Resolves to undefined when there is no such file or it is
 * some other program's. Throws WeightsError for one that is damaged.
 */
export async function readTimmConfig(path: string): Promise<TimmConfig | undefined> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
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
  return {
    model: find("architecture", "a name", (value) => typeof value === "string"),
    numClasses: find("num_classes", "a positive whole number", positive),
    classes: find("label_names", "a list of labels", (value) => Array.isArray(value) && value.every(isString)),
    inputSize: find(
      "input_size",
      "[C, H, W]",
      (value) => numbers(value) && value.length === 3 && value.every(positive),
    ),
    mean: find("mean", "a list of numbers", numbers),
    std: find("std", "a list of positive numbers", (value) => numbers(value) && value.every((item) => item > 0)),
    interpolation: find<Interpolation>("interpolation", `one of ${interpolations.join(", ")}`, (value) =>
      (interpolations as readonly unknown[]).includes(value),
    ),
    cropPct: find(
      "crop_pct",
      "in (0, 1]",
      (value) => Number.isFinite(value) && Number(value) > 0 && Number(value) <= 1,
    ),
  };
}

function isString(value: unknown): value is string {
  return typeof value === "string";
}
