import type { Attributes, Plan, Step } from "./plan.js";
import { sizeOf } from "./plan.js";

/** Which inputs of a step may hold images; what the others hold is the same for all of them. */
const imageInputs: Readonly<Record<string, (attributes: Attributes, inputs: number) => number[]>> = {
  ...Object.fromEntries(
    ["conv2d", "linear", "matmul", "batch_norm", "max_pool2d", "avg_pool2d", "reshape", "cast"].map((op) => [
      op,
      () => [0],
    ]),
  ),
  ...Object.fromEntries(
    ["relu", "sigmoid", "exp", "log", "sqrt", "neg", "detach", "mean", "sum", "softmax", "log_softmax"].map((op) => [
      op,
      () => [0],
    ]),
  ),
  ...Object.fromEntries(["add", "sub", "mul", "div"].map((op) => [op, () => [0, 1]])),
  ...Object.fromEntries(
    ["fused_conv2d", "gated_conv2d", "batch_norm_act", "squeeze_excite"].map((op) => [
      op,
      ({ residual }: Attributes, inputs: number) => (residual ? [0, inputs - 1] : [0]),
    ]),
  ),
};

/** Whether a step that may hold images there leaves each to itself: it reduces or normalises along other dimensions. */
function apart({ op, attributes }: Step): boolean {
  if (op === "mean" || op === "sum") return !(attributes.dims as readonly number[]).includes(0);
  if (op === "softmax" || op === "log_softmax") return attributes.dim !== 0;
  return true;
}

/**
 * The slots that hold one thing for each of the `count` images the plan is given at once, where every image is computed
 * by itself: then the plan for some of them is this one with fewer in each of these slots. Undefined for any other plan,
 * and for one that reads or writes variables.
 */
function slotsOfImages(plan: Plan, count: number): ReadonlySet<number> | undefined {
  const { slots, inputs, outputs, variables, written, steps } = plan;
  if (variables.length > 0 || written.length > 0) return undefined;
  if (inputs.some((slot) => slots[slot].shape.length !== 4 || slots[slot].shape[0] !== count)) return undefined;
  const held = new Set(inputs);
  for (const step of steps) {
    const holding = step.inputs.flatMap((slot, i) => (held.has(slot) ? [i] : []));
    if (holding.length === 0) continue;
    const allowed = imageInputs[step.op]?.(step.attributes, step.inputs.length);
    if (!allowed || !holding.every((i) => allowed.includes(i)) || !apart(step)) return undefined;
    const rank = slots[step.outputs[0]].shape.length;
    // what is no image's must not have the images' dimension, not even by chance
    const others = allowed.filter((i) => !holding.includes(i)).map((i) => slots[step.inputs[i]].shape);
    if (others.some((shape) => shape.length >= rank && shape[0] !== 1)) return undefined;
    for (const slot of step.outputs) {
      if (slots[slot].shape[0] !== count) return undefined;
      held.add(slot);
    }
  }
  return outputs.every((slot) => held.has(slot)) ? held : undefined;
}

/** A plan for several images, in parts for fewer. */
export interface Parts {
  /** How many images each part is for; they are in order, and there are at most two different counts. */
  readonly counts: readonly number[];
  /** The plan for so many. */
  planFor(count: number): Plan;
}

/**
 * A plan in parts that work on at most `mostBytes` at a time: the images that one step reads and writes. Undefined where the
 * whole does so, or images cannot be told apart.
 */
export function inParts(plan: Plan, mostBytes: number): Parts | undefined {
  const count = plan.slots[plan.inputs[0]]?.shape[0] ?? 1;
  const held = count > 1 ? slotsOfImages(plan, count) : undefined;
  if (!held) return undefined;
  const bytesOf = (slot: number) => (held.has(slot) ? 4 * (sizeOf(plan.slots[slot].shape) / count) : 0);
  const worked = plan.steps.map(({ inputs, outputs }) =>
    [...new Set([...inputs, ...outputs])].reduce((sum, slot) => sum + bytesOf(slot), 0),
  );
  const most = Math.max(1, Math.floor(mostBytes / Math.max(1, ...worked)));
  if (most >= count) return undefined;
  const parts = Math.ceil(count / most);
  const least = Math.floor(count / parts);
  const larger = count - least * parts;
  return {
    counts: Array.from({ length: parts }, (_, i) => (i < larger ? least + 1 : least)),
    planFor: (images) => ({
      ...plan,
      slots: plan.slots.map((slot, i) => (held.has(i) ? { ...slot, shape: [images, ...slot.shape.slice(1)] } : slot)),
    }),
  };
}
