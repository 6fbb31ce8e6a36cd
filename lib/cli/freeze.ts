import { InvalidArgumentError } from "commander";
import type { Network } from "../../models/index.js";
import { ArgumentError, expected } from "../errors.js";

const heads = /^(fc|last_linear)\./;

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
