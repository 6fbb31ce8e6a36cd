/** Automatic mixed precision: half precision where it pays beside float32 weights. PyTorch's torch.amp. */
export { autocast, type TrainingDType } from "../ops/autocast.js";
export { GradScaler, type GradScalerOptions } from "./grad_scaler.js";
