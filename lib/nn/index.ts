export { Flatten, Identity, ReLU, Sigmoid } from "./activation.js";
export { BatchNorm2d, type BatchNorm2dOptions } from "./batch_norm2d.js";
export { Conv2d, type Conv2dOptions } from "./conv2d.js";
export { Linear, type LinearOptions } from "./linear.js";
export { type LoadResult, type LoadStateDictOptions, Module } from "./module.js";
export { Buffer, Parameter } from "./parameter.js";
export { AdaptiveAvgPool2d, AvgPool2d, MaxPool2d } from "./pool2d.js";
export { type Initializer, manualSeed, normal, uniform } from "./random.js";
export { Sequential } from "./sequential.js";
