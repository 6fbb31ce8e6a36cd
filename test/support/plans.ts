import type { Executor, LoadedPlan, LoadOptions } from "#lib/devices/executor.js";
import { type HostArray, hostArray } from "#lib/dtype.js";
import type { Attributes } from "#lib/graph/attributes.js";
import type { Plan, Slot } from "#lib/plan/plan.js";
import { sizeOf } from "#lib/shape.js";
import { noise } from "./ops.js";

/** A slot: float32 when only its shape is given. */
export type Type = Slot | readonly number[];

/** A step whose inputs are numbered: the plan's inputs first, then what the steps before made. */
export interface Line {
  readonly op: string;
  readonly attributes?: Attributes;
  readonly from: readonly number[];
  readonly to: readonly Type[];
}

const slotOf = (type: Type): Slot => ("dtype" in type ? type : { shape: type, dtype: "float32" });

/** A plan of some steps; what the last one makes is the output unless others are named. */
export function planOf(inputs: readonly Type[], lines: readonly Line[], outputs?: readonly number[]): Plan {
  const slots = inputs.map(slotOf);
  const steps = lines.map(({ op, attributes = {}, from, to }) => {
    const first = slots.length;
    slots.push(...to.map(slotOf));
    return { op, attributes, inputs: from, outputs: to.map((_, i) => first + i) };
  });
  return {
    slots,
    inputs: inputs.map((_, i) => i),
    constants: [],
    variables: [],
    outputs: outputs ?? steps[steps.length - 1].outputs,
    written: [],
    steps,
  };
}

/** The same plan with every input but the first a constant. */
export function withConstants(plan: Plan): Plan {
  return { ...plan, inputs: plan.inputs.slice(0, 1), constants: plan.inputs.slice(1) };
}

/** Reproducible contents for a slot: noise, or small integers. */
export function contents({ shape, dtype }: Slot): HostArray {
  const data = noise(sizeOf(shape));
  if (dtype === "float32" || dtype === "float16" || dtype === "bfloat16") return data;
  const array = hostArray(dtype, data.length);
  for (const [i, value] of data.entries()) {
    const integer = Math.trunc((dtype === "uint8" ? Math.abs(value) : value) * 200);
    if (array instanceof BigInt64Array) array[i] = BigInt(integer);
    else array[i] = integer;
  }
  return array;
}

/** Loads, runs once and disposes. `data` holds the inputs, then the constants. */
export async function runPlan(executor: Executor, plan: Plan, data: readonly HostArray[], options?: LoadOptions) {
  const loaded = await executor.load(plan, data.slice(plan.inputs.length), options);
  try {
    return (await loaded.run({ inputs: data.slice(0, plan.inputs.length), variables: [] })).outputs;
  } finally {
    await loaded.dispose();
  }
}

/** What runs each kernel of a plan on the CPU: the op and its implementation. */
export const kernelsOf = (plan: LoadedPlan) => (plan as unknown as { kernels(): string[] }).kernels();

/** A plan of one step, all of whose slots are inputs or outputs. */
export const single = (op: string, attributes: Attributes, inputs: Type[], outputs: Type[]) =>
  planOf(inputs, [{ op, attributes, from: inputs.map((_, i) => i), to: outputs }]);

/** A convolution's attributes. */
export const conv = (stride = 1, padding = 0, dilation = 1, groups = 1) => ({
  stride: [stride, stride],
  padding: [padding, padding],
  dilation: [dilation, dilation],
  groups,
});
