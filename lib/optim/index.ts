export { AdamW, type AdamWOptions } from "./adamw.js";
export { clipGradNorm } from "./clip.js";
export { EMA, type EMAOptions } from "./ema.js";
export { withoutNormDecay } from "./groups.js";
export { type OptimizedParameters, Optimizer, type ParameterGroup, type StepGate } from "./optimizer.js";
export {
  type ConstantOptions,
  type CosineOptions,
  constantSchedule,
  cosineSchedule,
  type OneCycleOptions,
  oneCycleSchedule,
  type Schedule,
  type StepOptions,
  stepSchedule,
  warmup,
} from "./schedule.js";
export { SGD, type SGDOptions } from "./sgd.js";
