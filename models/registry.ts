import { ArgumentError, expected, listed } from "../lib/errors.js";
import { withSeed } from "../lib/nn/random.js";
import { checkOptionsObject, type ResNetOptions, shown } from "./options.js";
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

/** How many insertions, deletions and replacements lead from `a` to `b`. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, row[j] + 1, next[j - 1] + 1));
    }
    row = next;
  }
  return row[b.length];
}

/** The three known names nearest to a wrong one, nearest first. */
function nearest(name: string): string[] {
  const distance = (known: string) => editDistance(name.toLowerCase(), known);
  return listModels()
    .map((known) => ({ known, distance: distance(known) }))
    .sort((a, b) => a.distance - b.distance)
    .slice(0, 3)
    .map(({ known }) => known);
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
    const hint = typeof name === "string" ? ` (nearest: ${listed(nearest(name))})` : "";
    throw new ArgumentError(expected("createModel", `a name that listModels() gives${hint}`, shown(name)));
  }
  checkOptionsObject(name, options);
  const { seed = 0, checkpoint = false, ...rest } = options;
  if (!Number.isSafeInteger(seed)) throw new ArgumentError(expected(name, "seed to be an integer", shown(seed)));
  if (typeof checkpoint !== "boolean")
    throw new ArgumentError(expected(name, "checkpoint to be true or false", shown(checkpoint)));
  const build: Variant = variants[name as ModelName];
  const network = withSeed(seed, () => build(name, rest));
  network.checkpoint = checkpoint;
  return network;
}
