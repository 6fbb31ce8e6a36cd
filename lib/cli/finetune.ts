import { InvalidArgumentError } from "commander";
import type { Network } from "../../models/index.js";
import { ArgumentError, expected, WeightsError } from "../errors.js";
import type { Tensor } from "../tensor.js";

const heads = /^(fc|last_linear)\./;

/**
 * Loads weights into a network that may have other classes: a classifier of another size starts anew.
 * @returns whether the classifier came with the weights
 * @throws WeightsError for weights of another network
 */
export function loadForTuning(network: Network, weights: Readonly<Record<string, Tensor>>, file: string): boolean {
  const own = network.stateDict();
  const fits = Object.keys(own).every(
    (name) => !heads.test(name) || String(weights[name]?.shape) === String(own[name].shape),
  );
  const kept = Object.entries(weights).filter(([name]) => fits || !heads.test(name));
  const spare = Object.entries(own).filter(
    ([name]) => name.endsWith("num_batches_tracked") || (!fits && heads.test(name)),
  );
  try {
    network.loadStateDict({ ...Object.fromEntries(spare), ...Object.fromEntries(kept) });
  } catch (error) {
    if (!(error instanceof WeightsError)) throw error;
    const faults = error.message.replace(/^loadStateDict: /, "");
    throw new WeightsError(`${file}: the weights are not those of ${network.modelName}: ${faults}`, { cause: error });
  }
  return fits;
}

/** The value of `--freeze`: a number of stages, or "all". */
export function parseFreeze(text: string): number | "all" {
  if (text === "all") return text;
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('Expected a number of stages, or "all".');
  return Number(text);
}

/** Freezes the stem and the first `stages` stages, or everything but the classifier. Throws ArgumentError for too many. */
export function freeze(network: Network, stages: number | "all"): void {
  const tops = [...network.namedChildren()].map(([name]) => /^layer([1-9])$/.exec(name)?.[1]);
  const count = Math.max(...tops.map(Number).filter(Number.isFinite));
  if (stages !== "all" && stages > count)
    throw new ArgumentError(expected("--freeze", `at most the ${count} stages of ${network.modelName}`, `${stages}`));
  for (const [name, parameter] of network.namedParameters()) {
    const stage = /^layer([1-9])\./.exec(name)?.[1];
    const trained = heads.test(name) || (stage !== undefined && stages !== "all" && Number(stage) > stages);
    parameter.requiresGrad = trained;
  }
}
