import { ArgumentError, expected } from "../errors.js";
import { checkOptions, type OptionNames } from "../options.js";
import { integer } from "../shape.js";

/** The learning rate of a step, counted from 0. */
export type Schedule = (step: number) => number;

/**
 * A linear rise to the first rate of `schedule` over `steps` steps, then `schedule` from its step 0
 * (Goyal et al. 2017, 2.2; PyTorch's LinearLR and SequentialLR with `start_factor = 1 / steps`).
 */
export function warmup(schedule: Schedule, steps: number): Schedule {
  integer("warmup", "steps", steps, 0);
  return (step) => (step < steps ? (schedule(0) * (step + 1)) / steps : schedule(step - steps));
}

export interface ConstantOptions {
  readonly lr: number;
  /** Steps in which the rate rises linearly from 0, default 0. */
  readonly warmupSteps?: number;
}

const constantNames: OptionNames<ConstantOptions> = { lr: true, warmupSteps: true };

/** The same rate at every step, after `warmupSteps` (default 0) of linear rise. */
export function constantSchedule(options: ConstantOptions): Schedule {
  const { lr, warmupSteps = 0 } = checkOptions("constantSchedule", options, constantNames);
  return warmup(() => lr, warmupSteps);
}

export interface StepOptions {
  /** Learning rate before the first drop. */
  readonly lr: number;
  /** Steps (not counting the warm-up) from which each drop holds, or their one distance. */
  readonly milestones: readonly number[] | number;
  /** What every drop multiplies the rate with, default 0.1. */
  readonly gamma?: number;
  /** Steps in which the rate rises linearly from 0, default 0. */
  readonly warmupSteps?: number;
}

const stepNames: OptionNames<StepOptions> = { lr: true, milestones: true, gamma: true, warmupSteps: true };

/** Drops by `gamma` at the milestones (He et al. 2016; PyTorch's MultiStepLR, and StepLR for a number). */
export function stepSchedule(options: StepOptions): Schedule {
  const { lr, milestones, gamma = 0.1, warmupSteps = 0 } = checkOptions("stepSchedule", options, stepNames);
  if (typeof milestones === "number") integer("stepSchedule", "milestones", milestones, 1);
  else for (const milestone of milestones) integer("stepSchedule", "milestones", milestone, 0);
  const drops = (step: number) =>
    typeof milestones === "number"
      ? Math.floor(step / milestones)
      : milestones.filter((milestone) => milestone <= step).length;
  return warmup((step) => lr * gamma ** drops(step), warmupSteps);
}

export interface CosineOptions {
  /** Learning rate after the warm-up. */
  readonly lr: number;
  readonly totalSteps: number;
  /** Steps in which the rate rises linearly from 0, default 0. */
  readonly warmupSteps?: number;
  /** Where it ends, default 0. */
  readonly finalLr?: number;
}

const cosineNames: OptionNames<CosineOptions> = { lr: true, totalSteps: true, warmupSteps: true, finalLr: true };

/** Half a cosine from `lr` to `finalLr` (Loshchilov & Hutter 2017, equation 5), after a linear warm-up. */
export function cosineSchedule(options: CosineOptions): Schedule {
  const { lr, totalSteps, warmupSteps = 0, finalLr = 0 } = checkOptions("cosineSchedule", options, cosineNames);
  integer("cosineSchedule", "totalSteps", totalSteps, 1);
  integer("cosineSchedule", "warmupSteps", warmupSteps, 0);
  if (warmupSteps >= totalSteps)
    throw new ArgumentError(expected("cosineSchedule", `warmupSteps below ${totalSteps}`, String(warmupSteps)));
  const last = Math.max(1, totalSteps - 1 - warmupSteps);
  return warmup((step) => between(lr, finalLr, Math.min(1, step / last)), warmupSteps);
}

export interface OneCycleOptions {
  /** The highest learning rate. */
  readonly maxLr: number;
  readonly totalSteps: number;
  /** Share of the steps in which the rate rises, default 0.3. */
  readonly pctStart?: number;
  /** maxLr over the first rate, default 25. */
  readonly divFactor?: number;
  /** The first rate over the last one, default 1e4. */
  readonly finalDivFactor?: number;
}

const oneCycleNames: OptionNames<OneCycleOptions> = {
  maxLr: true,
  totalSteps: true,
  pctStart: true,
  divFactor: true,
  finalDivFactor: true,
};

/** One rise, which is its warm-up, and one fall, both cosines (Smith & Topin 2018; PyTorch's OneCycleLR). */
export function oneCycleSchedule(options: OneCycleOptions): Schedule {
  const {
    maxLr,
    totalSteps,
    pctStart = 0.3,
    divFactor = 25,
    finalDivFactor = 1e4,
  } = checkOptions("oneCycleSchedule", options, oneCycleNames);
  integer("oneCycleSchedule", "totalSteps", totalSteps, 1);
  if (!(pctStart >= 0 && pctStart <= 1))
    throw new ArgumentError(expected("oneCycleSchedule", "pctStart from 0 to 1", String(pctStart)));
  const first = maxLr / divFactor;
  const peak = pctStart * totalSteps - 1;
  const last = totalSteps - 1;
  return (step) => {
    if (step <= peak) return between(first, maxLr, peak <= 0 ? 1 : step / peak);
    return between(maxLr, first / finalDivFactor, Math.min(1, (step - peak) / (last - peak)));
  };
}

/** From `a` (at 0) to `b` (at 1) along half a cosine. */
function between(a: number, b: number, share: number): number {
  return b + ((a - b) / 2) * (1 + Math.cos(Math.PI * share));
}
