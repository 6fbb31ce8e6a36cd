import { availableParallelism } from "node:os";
import { type DType, type HostArray, hostArray } from "../dtype.js";
import { ArgumentError, DtypeError, expected, ShapeError, shown } from "../errors.js";
import type { Plan } from "../plan/plan.js";
import { checkObject, sizeOf } from "../shape.js";
import type { DeviceBuffer, LoadOptions, RunRequest } from "./executor.js";

/** More threads than this are a mistake: each is one of the system's, and they all meet after every step. */
export function mostThreads(): number {
  return Math.max(4 * availableParallelism(), 64);
}

/** A number of threads, or undefined for the device's own choice. Throws ArgumentError for what is neither. */
export function checkThreads(where: string, threads: number | undefined): void {
  if (threads === undefined || (Number.isInteger(threads) && threads >= 1 && threads <= mostThreads())) return;
  throw new ArgumentError(expected(where, `threads to be an integer from 1 to ${mostThreads()}`, shown(threads)));
}

/** Throws one of our errors unless these are the arguments of an executor's `load`. */
export function checkLoad(where: string, plan: Plan, constants: readonly HostArray[], options: LoadOptions): void {
  const lists = ["slots", "inputs", "constants", "variables", "outputs", "written", "steps"] as const;
  if (!lists.every((list) => Array.isArray(plan?.[list])))
    throw new ArgumentError(expected(where, "a plan", shown(plan)));
  checkThreads(where, checkObject(where, "options", options).threads);
  checkArrays(where, "constant", plan, plan.constants, constants);
}

/** Throws one of our errors unless a request fits the plan; what its variables are is the executor's to check. */
export function checkRequest(where: string, plan: Plan, request: RunRequest): void {
  const { inputs, variables, signal } = checkObject(where, "a request", request);
  if (signal !== undefined && !(signal instanceof AbortSignal))
    throw new ArgumentError(expected(where, "signal to be an AbortSignal", shown(signal)));
  checkArrays(where, "input", plan, plan.inputs, inputs);
  checkCount(where, "variable", plan.variables, variables);
}

function checkArrays(
  where: string,
  what: string,
  plan: Plan,
  slots: readonly number[],
  arrays: readonly HostArray[],
): void {
  checkCount(where, what, slots, arrays);
  for (const [i, slot] of slots.entries()) {
    const { shape, dtype } = plan.slots[slot];
    checkArray(where, `${what} ${i}`, arrays[i], dtype, sizeOf(shape));
  }
}

function checkCount(where: string, what: string, slots: readonly number[], given: readonly unknown[]): void {
  if (Array.isArray(given) && given.length === slots.length) return;
  const got = Array.isArray(given) ? String(given.length) : shown(given);
  throw new ArgumentError(expected(where, `${slots.length} ${what}${slots.length === 1 ? "" : "s"}`, got));
}

/** Throws DtypeError or ShapeError unless `data` is the host array of `length` elements of `dtype`. */
export function checkArray(where: string, what: string, data: HostArray, dtype: DType, length: number): void {
  const kind = hostArray(dtype, 0).constructor;
  if (!ArrayBuffer.isView(data) || !(data instanceof kind)) {
    const got = ArrayBuffer.isView(data) ? `a ${(data as HostArray).constructor.name}` : shown(data);
    throw new DtypeError(expected(where, `${what} of dtype ${dtype} as a ${kind.name}`, got));
  }
  if (data.length !== length)
    throw new ShapeError(expected(where, `${what} with ${length} elements`, String(data.length)));
}

/** Whose a buffer is that is not an executor's own, for a message. */
export function ownerOf(buffer: DeviceBuffer): string {
  return buffer?.executor?.device === undefined ? shown(buffer) : `one of ${buffer.executor.device}'s`;
}
