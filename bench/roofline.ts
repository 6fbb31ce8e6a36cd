import type { KernelTime } from "../lib/executors/native.js";
import { type Plan, type Step, sizeOf } from "../lib/plan/plan.js";

/** What a device can do at most, measured in the same run. */
export interface Ceilings {
  /** Bytes a second that a copy reads and writes together. */
  readonly bytes: number;
  /** Floating-point operations a second of a large product of matrices. */
  readonly flops: number;
}

/** Ops whose second input holds weights, of which every output element needs one row: `[O, ...]`, so many multiply-adds. */
const convolutions = new Set(["conv2d", "fused_conv2d", "gated_conv2d"]);

/** Floating-point operations of a step that are not a few for each element: two for each multiply-add. */
export function flopsOf({ slots }: Plan, { op, inputs, outputs }: Step): number {
  const [first, second] = inputs.map((slot) => slots[slot].shape);
  const size = sizeOf(slots[outputs[0]].shape);
  if (convolutions.has(op)) return 2 * size * (sizeOf(second) / second[0]);
  if (op === "linear" || op === "matmul") return 2 * size * first[first.length - 1];
  return 0;
}

/**
 * Milliseconds that the kernels of a plan need at least: each step computes or moves its bytes, whichever takes longer, with
 * nothing left in the caches from step to step.
 */
export function leastTime(plan: Plan, kernels: readonly KernelTime[], ceilings: Ceilings): number {
  const bytes = new Map<number, number>();
  for (const kernel of kernels) bytes.set(kernel.step, (bytes.get(kernel.step) ?? 0) + kernel.bytes);
  let seconds = 0;
  for (const [step, moved] of bytes) {
    const flops = step < 0 ? 0 : flopsOf(plan, plan.steps[step]);
    seconds += Math.max(moved / ceilings.bytes, flops / ceilings.flops);
  }
  return seconds * 1e3;
}
