import { expect } from "vitest";
import type { DType, HostArray } from "../../dist/lib/dtype.js";
import { referenceExecutor } from "../../dist/lib/executors/reference/executor.js";
import { type Attributes, type Plan, type Slot, sizeOf } from "../../dist/lib/plan/plan.js";

const executor = referenceExecutor();

/** Shape, contents (noise when left out) and dtype of an input. */
export type Spec = readonly [shape: number[], data?: HostArray, dtype?: DType];

/** Runs one op on a plan of one step. */
export async function runOp(
  op: string,
  attributes: Attributes,
  inputs: Spec[],
  outputs: [number[], DType?][],
  threads?: number,
) {
  const slots: Slot[] = [
    ...inputs.map(([shape, , dtype]) => ({ shape, dtype: dtype ?? ("float32" as const) })),
    ...outputs.map(([shape, dtype]) => ({ shape, dtype: dtype ?? ("float32" as const) })),
  ];
  const ins = inputs.map((_, i) => i);
  const outs = outputs.map((_, i) => inputs.length + i);
  const plan: Plan = {
    slots,
    inputs: ins,
    constants: [],
    variables: [],
    outputs: outs,
    written: [],
    steps: [{ op, attributes, inputs: ins, outputs: outs }],
  };
  const loaded = await executor.load(plan, [], { threads });
  try {
    const result = await loaded.run({
      inputs: inputs.map(([shape, data]) => data ?? noise(sizeOf(shape))),
      variables: [],
    });
    return result.outputs;
  } finally {
    await loaded.dispose();
  }
}

let seed = 1;
/** Reproducible numbers in [-1, 1). */
export function noise(length: number): Float32Array {
  return Float32Array.from({ length }, () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return seed / 2 ** 31 - 1;
  });
}

/** The golden script's `grid`: small numbers that floats hold exactly. */
export function grid(length: number, k = 7): Float32Array {
  return Float32Array.from({ length }, (_, i) => (((i * k) % 11) - 5) / 4);
}

/** Relative to the wanted value, or to 1 where that is smaller. */
export function expectClose(got: HostArray, want: ArrayLike<number>, tolerance = 1e-6) {
  expect(got.length).toBe(want.length);
  const worst = Math.max(
    0,
    ...Array.from(want, (value, i) => Math.abs(Number(got[i]) - value) / Math.max(1, Math.abs(value))),
  );
  expect(worst).toBeLessThanOrEqual(tolerance);
}
