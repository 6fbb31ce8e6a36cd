import { expect } from "vitest";
import type { DeviceName, Executor } from "#lib/devices/executor.js";
import type { DType, HostArray } from "#lib/dtype.js";
import type { Attributes } from "#lib/graph/attributes.js";
import type { Plan, Slot } from "#lib/plan/plan.js";
import { sizeOf } from "#lib/shape.js";
import { relativeError } from "./compare.js";
import { executorOf } from "./devices.js";

/** Shape, contents (noise when left out) and dtype of an input. */
export type Spec = readonly [shape: number[], data?: HostArray, dtype?: DType];

/** Runs one op on a plan of one step, on an executor. */
export async function runOpOn(
  executor: Executor,
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

/** `runOpOn` for a device. */
export const opRunner =
  (device: DeviceName) =>
  (...args: Parameters<typeof runOpOn> extends [Executor, ...infer Rest] ? Rest : never) =>
    runOpOn(executorOf(device), ...args);

/** How results are judged. The devices that the reference judges may be as far from its numbers as DESIGN.md allows an op. */
export function judgeOf(device: DeviceName) {
  /** On the reference every element, relative to the wanted one or to 1 where that is smaller; else all together. */
  const expectClose = (got: HostArray, want: ArrayLike<number>, tolerance = 1e-6, what = "") => {
    expect(got.length, what).toBe(want.length);
    const pairs = Array.from(want, (value, i) => [Number(got[i]), value] as const);
    const finite = pairs.filter(([a, b]) => !(Object.is(a, b) || a === b)); // NaN and infinities have no distance
    if (device === "reference") {
      const far = finite.map(([a, b]) => Math.abs(a - b) / Math.max(1, Math.abs(b)));
      expect(Math.max(0, ...far), what).toBeLessThanOrEqual(tolerance);
    } else if (finite.length > 0) {
      const far = relativeError(
        finite.map(([a]) => a),
        finite.map(([, b]) => b),
      );
      expect(far, what).toBeLessThanOrEqual(1e-5);
    }
  };
  /** The very numbers on the reference, and close ones elsewhere. */
  const expectExact = (got: HostArray, want: ArrayLike<number>, what = "") => {
    const plus = (values: ArrayLike<number | bigint>) => Array.from(values, (value) => Number(value) + 0);
    if (device === "reference") expect(plus(got), what).toEqual(plus(want));
    else expectClose(got, want, undefined, what);
  };
  return { expectClose, expectExact };
}
