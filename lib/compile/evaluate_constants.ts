import { referenceExecutor } from "../devices/reference/executor.js";
import type { HostArray } from "../dtype.js";
import type { Value } from "../graph/value.js";
import { read } from "../lazy/flush.js";
import { lower, trace } from "../plan/lower.js";

/** Computes values that depend on no placeholder, on the reference and in one plan. */
export async function evaluate(values: readonly Value[]): Promise<HostArray[]> {
  const { leaves } = trace(
    values,
    values.map(() => "output"),
  );
  const inputs = await Promise.all(leaves.map((leaf) => leaf.kept ?? read(leaf)));
  const plan = await referenceExecutor().load(
    lower(leaves, () => "inputs", values, []),
    [],
  );
  try {
    return (await plan.run({ inputs, variables: [] })).outputs;
  } finally {
    await plan.dispose();
  }
}
