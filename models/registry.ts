import { ArgumentError, expected, listed, shown } from "../lib/errors.js";
import { withSeed } from "../lib/nn/random.js";
import { nearest } from "../lib/options.js";
import { checkObject } from "../lib/shape.js";
import type { ResNetOptions } from "./options.js";
import { plains } from "./plain.js";
import { type Network, resnets, type Variant } from "./resnet.js";
import { seResnets } from "./se_resnet.js";

const variants = { ...resnets, ...seResnets, ...plains };

/** A name that `createModel` knows. */
export type ModelName = keyof typeof variants;

export interface ModelOptions extends ResNetOptions {
  /** Seed of the initial weights: the same seed gives the same weights on every device. Default 0. */
  readonly seed?: number;
  /** Trains in less memory and more time: activations inside blocks are computed again in the backward pass. Default false. */
  readonly checkpoint?: boolean;
}

/** Every name that `createModel` knows. */
export function listModels(): ModelName[] {
  return Object.keys(variants) as ModelName[];
}

/**
 * A network by name, with freshly drawn weights, in training mode.
 *
 * @param name one of `listModels()`.
 * @param options `numClasses` (1000; 10 for `…_cifar`), `inChannels` (3), `seed` (0), and what `ResNetOptions` lists;
 *   plain networks take only these three, legacy ones also `reduction` and `zeroInitResidual`. undefined means the default.
 * @throws ArgumentError for an unknown name (with the nearest ones), an option the network does not take, or a wrong value.
 */
export function createModel(name: ModelName | (string & {}), options: ModelOptions = {}): Network {
  if (typeof name !== "string" || !Object.hasOwn(variants, name)) {
    const hint = typeof name === "string" ? ` (nearest: ${listed(nearest(name, listModels()))})` : "";
    throw new ArgumentError(expected("createModel", `a name that listModels() gives${hint}`, shown(name)));
  }
  checkObject(name, "options", options);
  const { seed = 0, checkpoint = false, ...rest } = options;
  if (!Number.isSafeInteger(seed)) throw new ArgumentError(expected(name, "seed to be an integer", shown(seed)));
  if (typeof checkpoint !== "boolean")
    throw new ArgumentError(expected(name, "checkpoint to be true or false", shown(checkpoint)));
  const build: Variant = variants[name as ModelName];
  const network = withSeed(seed, () => build(name, rest));
  network.checkpoint = checkpoint;
  return network;
}
