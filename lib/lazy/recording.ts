import type { Value, VariableRef } from "../graph/value.js";

/** Writes recorded and not yet part of a flush: the newest value of each variable. */
let pending = new Map<VariableRef, Value>();

interface Isolation {
  /** The mode of every module; "own": the one it is in. */
  readonly training: boolean | "own";
  /** What reads of a variable see instead of its current version. */
  readonly frozen: ReadonlyMap<VariableRef, Value>;
}

let isolation: Isolation | undefined;

/** Whether writes count: not while recording in isolation. */
export function isRecordingWrites(): boolean {
  return isolation === undefined;
}

/** Records a write; false when recording in isolation, where writes are dropped. */
export function recordWrite(variable: VariableRef, value: Value): boolean {
  if (isolation) return false;
  pending.set(variable, value);
  return true;
}

/** Drops the pending write of a variable nobody will read again. */
export function forgetWrite(variable: VariableRef): void {
  pending.delete(variable);
}

export function hasPendingWrites(): boolean {
  return pending.size > 0;
}

/** Hands over the pending writes and starts a new list. */
export function takePendingWrites(): Map<VariableRef, Value> {
  const taken = pending;
  pending = new Map();
  return taken;
}

/** Runs `record` without writes and with every module in eval (or training, or its own) mode: for summary, compile and export. */
export function inIsolation<T>(record: () => T, { training = false, frozen = new Map() }: Partial<Isolation> = {}): T {
  const outer = isolation;
  isolation = { training, frozen };
  try {
    return record();
  } finally {
    isolation = outer;
  }
}

/** The mode forced on every module while recording in isolation. */
export function forcedTraining(): boolean | undefined {
  return isolation?.training === "own" ? undefined : isolation?.training;
}

/** What a variable reads as while recording in isolation with frozen weights. */
export function frozenValue(variable: VariableRef): Value | undefined {
  return isolation?.frozen.get(variable);
}
