export * from "./blocks.js";
export type { GlobalPool, ResNetOptions, SEPlacement, Shortcut, StridePlacement } from "./options.js";
export { PlainBlock } from "./plain.js";
export { createModel, listModels, type ModelName, type ModelOptions } from "./registry.js";
export {
  type Architecture,
  BasicBlock,
  type BlockClass,
  type BlockSettings,
  Bottleneck,
  Network,
  ResNet,
} from "./resnet.js";
export { LegacySEResNet } from "./se_resnet.js";
export { SqueezeExcite } from "./squeeze_excite.js";
