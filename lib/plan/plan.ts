import type { DType } from "../dtype.js";
import type { Attributes } from "../graph/attributes.js";

/** A place for one tensor while a plan runs. */
export interface Slot {
  readonly shape: readonly number[];
  readonly dtype: DType;
}

/** One operation: `inputs` and `outputs` are indices into the plan's slots. */
export interface Step {
  readonly op: string;
  readonly attributes: Attributes;
  readonly inputs: readonly number[];
  readonly outputs: readonly number[];
  /** The layer whose parameters it reads, where known. For people: no executor looks at it. */
  readonly layer?: string;
}

/**
 * A program for an executor, as plain data. Every slot is filled once: by the caller (`inputs` at each run, `constants`
 * at load, `variables` from device buffers at each run) or by exactly one step. `outputs` go back to the host,
 * `written` become new device buffers. A slot may be named in both, and an input may also be an output.
 */
export interface Plan {
  readonly slots: readonly Slot[];
  readonly inputs: readonly number[];
  readonly constants: readonly number[];
  readonly variables: readonly number[];
  readonly outputs: readonly number[];
  readonly written: readonly number[];
  /** In an order in which every step comes after the steps that fill its inputs. */
  readonly steps: readonly Step[];
}
