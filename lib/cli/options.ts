import { InvalidArgumentError, Option } from "commander";
import { mostChannels } from "../classifier/counts.js";
import type { DeviceName } from "../devices/executor.js";

const mostInputElements = 2 ** 31;

/** The value of an option that counts something. */
export function parseCount(text: string): number {
  const count = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(count) || count < 1)
    throw new InvalidArgumentError("Expected a whole number of at least 1.");
  return count;
}

/** A count that is at most `most`. */
export function parseCountUpTo(most: number): (text: string) => number {
  return (text) => {
    const count = parseCount(text);
    if (count > most) throw new InvalidArgumentError(`Expected at most ${most}.`);
    return count;
  };
}

/** `N,C,H,W`. */
export function parseInputShape(text: string): number[] {
  const shape = text.split(",").map((extent) => (/^\s*\d+\s*$/.test(extent) ? Number(extent) : 0));
  const size = shape.reduce((product, extent) => product * extent, 1);
  if (shape.length !== 4 || size < 1 || size > mostInputElements)
    throw new InvalidArgumentError("Expected four whole numbers N,C,H,W, such as 1,3,224,224.");
  return shape;
}

export type Device = DeviceName | "auto";
export type ComputeType = "float32" | "tf32" | "bfloat16" | "float16";

const devices: readonly Device[] = ["auto", "cuda", "cpu", "reference"];
const computeTypes: readonly ComputeType[] = ["float32", "tf32", "bfloat16", "float16"];

export function deviceOption(): Option {
  return new Option("--device <name>", "where to compute; auto takes the first that works")
    .choices(devices)
    .default("auto");
}

export function dtypeOption(): Option {
  return new Option("--dtype <name>", "arithmetic of the network").choices(computeTypes).default("float32");
}

export function jsonOption(): Option {
  return new Option("--json", "print data alone, as JSON");
}

export function weightsOption(): Option {
  return new Option(
    "--weights <file|folder|hf:owner/name>",
    "a .safetensors or .pth file, a folder with weights and timm's config.json, or a model of the Hugging Face hub (default: the Fashion-MNIST network that ships with seresnet)",
  );
}

export function inChannelsOption(): Option {
  return new Option("--in-channels <count>", "adapt the weights to images of so many channels").argParser(
    parseCountUpTo(mostChannels),
  );
}

/** `name=value,name=value`, numbers and true and false as such. */
function parseModelOptions(text: string): Record<string, unknown> {
  return Object.fromEntries(
    text.split(",").map((pair) => {
      const [, name, value] = /^\s*(\w+)\s*=\s*([^=]+?)\s*$/.exec(pair) ?? [];
      if (name === undefined) throw new InvalidArgumentError("Expected name=value, separated by commas.");
      if (value === "true" || value === "false") return [name, value === "true"];
      return [name, /^\d+$/.test(value) ? Number(value) : value];
    }),
  );
}

export function modelOptionsOption(): Option {
  return new Option("--model-options <name=value,…>", "of the model, such as shortcut=A or globalPool=max").argParser(
    parseModelOptions,
  );
}

export function modelOption(): Option {
  return new Option("--model <name>", "the model, for weights that do not say what they are");
}
