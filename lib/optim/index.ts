export { AdamW, type AdamWOptions } from "./adamw.js";
export { Optimizer } from "./optimizer.js";
export {
  type CosineOptions,
  cosineSchedule,
  type OneCycleOptions,
  oneCycleSchedule,
  type Schedule,
} from "./schedule.js";
export { SGD, type SGDOptions } from "./sgd.js";
