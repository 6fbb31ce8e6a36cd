import { isFloat } from "../dtype.js";
import { expected, listed, TrainingError, WeightsError } from "../errors.js";
import { type CheckpointInfo, writeCheckpoint } from "../io/checkpoint.js";
import { isObject, parseStrictJson } from "../io/json.js";
import { readSafetensors, saveSafetensors } from "../io/safetensors.js";
import type { Module } from "../nn/module.js";
import type { EMA } from "../optim/ema.js";
import type { GradScaler } from "../optim/grad_scaler.js";
import type { Optimizer } from "../optim/optimizer.js";
import { type Tensor, tensor } from "../tensor.js";
import type { Progress } from "./fit_options.js";

/** Everything that changes while a model is trained. */
export interface Trainee {
  readonly model: Module;
  readonly optimizer: Optimizer;
  readonly ema: EMA | undefined;
  /** Where the loss is scaled. */
  readonly scaler?: GradScaler;
}

/** What a resume file says about its run. */
export interface RunRecord {
  /** What decides how the run goes on: it must be the same in the run that resumes. */
  readonly settings: Readonly<Record<string, unknown>>;
  readonly progress: Progress;
}

const metadataEntry = "seresnet_training";
const parts = ["model", "optimizer", "ema", "scaler"] as const;

/**
 * Writes what it takes to go on bit for bit as one safetensors file, and beside it the checkpoint to use: the average of
 * the weights where there is one. Each is written atomically; the resume file is the last, so that it is never ahead.
 * @throws WeightsError when a file cannot be written, TrainingError when a weight is not finite; older files stay
 */
export async function saveRun(
  files: { readonly resume: string; readonly checkpoint: string },
  { model, optimizer, ema, scaler }: Trainee,
  info: CheckpointInfo,
  { settings, progress }: RunRecord,
): Promise<void> {
  const state = await snapshot({
    model: model.stateDict(),
    optimizer: optimizer.stateDict(),
    ema: ema?.stateDict() ?? {},
    scaler: scaler?.stateDict() ?? {},
  });
  for (const [name, values] of Object.entries(state))
    if (isFloat(values.dtype) && !((await values.data()) as Float32Array).every(Number.isFinite))
      throw new TrainingError(expected(`step ${progress.step}`, "finite weights to save", `others in ${name}`));
  const weights = pick(state, ema ? "ema" : "model");
  await writeCheckpoint(files.checkpoint, weights, info);
  const record = { settings, progress, updates: ema?.updates ?? 0 };
  await saveSafetensors(files.resume, state, { [metadataEntry]: JSON.stringify(record) });
}

/** The contents of all records as they are now, as one record of constants. Asked for in one tick: one flush. */
async function snapshot(records: Record<(typeof parts)[number], Record<string, Tensor>>) {
  const named = parts.flatMap((part) =>
    Object.entries(records[part]).map(([name, value]) => [`${part}.${name}`, value] as const),
  );
  const arrays = await Promise.all(named.map(([, value]) => value.data()));
  return Object.fromEntries(
    named.map(([name, { shape, dtype }], i) => [name, tensor(arrays[i], shape, { dtype })] as const),
  );
}

function pick(state: Readonly<Record<string, Tensor>>, part: (typeof parts)[number]): Record<string, Tensor> {
  const prefix = `${part}.`;
  const own = Object.entries(state).filter(([name]) => name.startsWith(prefix));
  return Object.fromEntries(own.map(([name, value]) => [name.slice(prefix.length), value]));
}

/** A resume file as read. */
export interface SavedRun extends RunRecord {
  readonly updates: number;
  readonly state: Readonly<Record<string, Tensor>>;
}

/** Reads a resume file. Throws WeightsError for a missing or damaged file, and one that is no resume file. */
export async function readRun(path: string): Promise<SavedRun> {
  const { tensors, metadata } = await readSafetensors(path);
  const fail = (got: string, cause?: unknown): never => {
    throw new WeightsError(expected(path, "a resume file that seresnet train wrote", got), { cause });
  };
  if (!Object.hasOwn(metadata, metadataEntry)) return fail(`a file without metadata "${metadataEntry}"`);
  let record: unknown;
  try {
    record = parseStrictJson(metadata[metadataEntry]);
  } catch (error) {
    return fail("metadata that is no JSON", error);
  }
  if (!isObject(record) || !isObject(record.settings) || !isProgress(record.progress))
    return fail("metadata without settings and progress");
  const { settings, progress, updates } = record;
  return { settings, progress, updates: Number(updates), state: tensors };
}

function isProgress(value: unknown): value is Progress {
  return isObject(value) && Number.isSafeInteger(value.step) && Array.isArray(value.history) && isObject(value.epoch);
}

/**
 * Puts a saved state into a model, its optimiser and its average.
 * @throws TrainingError when the file is another model's
 */
export async function restoreRun(path: string, trainee: Trainee, saved: SavedRun): Promise<void> {
  const { model, optimizer, ema, scaler } = trainee;
  try {
    model.loadStateDict(pick(saved.state, "model"));
    await optimizer.loadStateDict(pick(saved.state, "optimizer"));
    ema?.loadStateDict(pick(saved.state, "ema"), saved.updates);
    scaler?.loadStateDict(pick(saved.state, "scaler"));
  } catch (error) {
    if (!(error instanceof WeightsError)) throw error;
    throw new TrainingError(expected(path, "the state of this model and its optimiser", error.message), {
      cause: error,
    });
  }
}

/** Throws TrainingError when the settings of a saved run and of the one that resumes it differ. */
export function checkSettings(
  path: string,
  saved: Readonly<Record<string, unknown>>,
  now: Readonly<Record<string, unknown>>,
  hint = "",
): void {
  const names = [...new Set([...Object.keys(saved), ...Object.keys(now)])];
  const differing = names.filter((name) => JSON.stringify(saved[name]) !== JSON.stringify(now[name]));
  if (differing.length === 0) return;
  const side = (settings: Readonly<Record<string, unknown>>) =>
    listed(differing.map((name) => `${name} ${brief(settings[name])}`));
  throw new TrainingError(expected(path, `a run with ${side(now)}`, `${side(saved)}${hint}`));
}

function brief(value: unknown): string {
  const text = JSON.stringify(value) ?? "none";
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}
