export { createModel, listModels } from "../models/registry.js";
export { type Adapted, adaptWeights } from "./classifier/adapt.js";
export {
  type LoadedCheckpoint,
  loadCheckpoint,
  type SaveCheckpointOptions,
  saveCheckpoint,
} from "./classifier/checkpoint.js";
export {
  type ClassifiedImage,
  type ClassifyOptions,
  ImageClassifier,
  type ImageClassifierOptions,
  type ImageInput,
} from "./classifier/image_classifier.js";
export type { Prediction } from "./classifier/prediction.js";
export { type CompiledModel, type CompileOptions, compile, type RunOptions } from "./compile/compile.js";
export { Profile } from "./compile/profile.js";
export { type LayerSummary, type Summary, summary } from "./compile/summary.js";
export * as data from "./data/index.js";
export type { DeviceName, StepProfile } from "./devices/executor.js";
export type { CudaOptions } from "./devices/native/cuda.js";
export {
  type DeviceChoice,
  type DeviceInfo,
  listDevices,
  type ResolvedDevice,
  setDefaultDevice,
} from "./devices/resolve.js";
export type { DType, HostArray } from "./dtype.js";
export {
  ArgumentError,
  DeviceError,
  DisposedError,
  DtypeError,
  ImageError,
  MemoryError,
  SeresnetError,
  ShapeError,
  StaleTensorError,
  TrainingError,
  WeightsError,
} from "./errors.js";
export type { Normalization } from "./image/normalize.js";
export { setImageMemoryLimit } from "./image/prepare.js";
export { type LoadImageOptions, loadImage, type PreprocessOptions } from "./image/preprocess.js";
export type { ImageSource } from "./image/source.js";
export { exportOnnx, type OnnxOptions } from "./io/onnx/export.js";
export { saveSafetensors } from "./io/safetensors.js";
export { type LoadWeightsOptions, loadWeights } from "./io/weights.js";
export * as nn from "./nn/index.js";
export * as functional from "./ops/functional.js";
export * as amp from "./optim/amp.js";
export * as optim from "./optim/index.js";
export { type NestedNumbers, type Operand, Tensor, type TensorOptions, tensor } from "./tensor.js";
export { type Answer, type EvaluateOptions, type Evaluation, evaluate } from "./train/evaluate.js";
export { fit } from "./train/fit.js";
export type { Batches, EpochReport, FitOptions, Progress, StepReport } from "./train/fit_options.js";
