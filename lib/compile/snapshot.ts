import { constantValue, type Value } from "../graph/value.js";
import { share } from "../lazy/flush.js";
import type { Variable } from "../lazy/variable.js";
import type { Module } from "../nn/module.js";

/** A model's parameters and buffers as they are now, as constants to record the model with (`inIsolation`). */
export async function snapshot(model: Module): Promise<Map<Variable, Value>> {
  const state = new Set([...model.parameters(), ...[...model.namedBuffers()].map(([, buffer]) => buffer)]);
  const frozen = new Map<Variable, Value>();
  await Promise.all(
    [...state].map(async ({ variable, value }) => {
      frozen.set(variable, constantValue(await share(value), variable.shape, variable.dtype));
    }),
  );
  return frozen;
}
