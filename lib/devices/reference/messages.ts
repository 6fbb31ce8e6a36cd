import { type HostArray, hostArray } from "../../dtype.js";
import type { MemoryPlan } from "../../plan/memory.js";
import type { Plan } from "../../plan/plan.js";
import { sizeOf } from "../../shape.js";
import type { View } from "./kernels/kernel.js";

/** A plan with its memory, as sent to the workers once. */
export interface Program {
  readonly id: number;
  readonly plan: Plan;
  readonly memory: MemoryPlan;
  readonly arena: SharedArrayBuffer;
  /** One array over shared memory for each of `plan.constants`. */
  readonly constants: readonly HostArray[];
}

export type Request =
  | { readonly kind: "load"; readonly program: Program }
  | { readonly kind: "unload"; readonly id: number }
  | { readonly kind: "collect" }
  | {
      readonly kind: "run";
      readonly id: number;
      /** One array over shared memory for each of the plan's variables. */
      readonly variables: readonly HostArray[];
      readonly thread: number;
      readonly threads: number;
    };

/** When a step began and how long it took, in milliseconds; steps begin when all threads have left the one before. */
export interface StepTime {
  readonly start: number;
  readonly milliseconds: number;
}

/** What a worker says when it has left a run: how its steps went, or what went wrong. */
export interface Reply {
  /** One for each step; from the first thread only. */
  readonly times?: readonly StepTime[];
  readonly error?: { readonly name: string; readonly message: string };
}

/** The tensors of a program's slots; those that are variables have no data until `bindVariables`. */
export function bindProgram({ plan, memory, arena, constants }: Program): { views: View[]; bindVariables: Bind } {
  const brought = new Map(plan.constants.map((slot, i) => [slot, constants[i]]));
  const none = hostArray("float32", 0);
  const views = plan.slots.map(({ shape, dtype }, slot) => {
    const offset = memory.offsets[slot];
    const data = offset < 0 ? brought.get(memory.roots[slot]) : hostArray(dtype, sizeOf(shape), arena, offset);
    return { shape, dtype, data: data ?? none };
  });
  const variableOf = new Map(plan.variables.map((slot, i) => [slot, i]));
  const bindVariables: Bind = (variables) => {
    for (const [slot, root] of memory.roots.entries()) {
      const index = variableOf.get(root);
      if (index !== undefined) views[slot].data = variables[index];
    }
  };
  return { views, bindVariables };
}

type Bind = (variables: readonly HostArray[]) => void;
