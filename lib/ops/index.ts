/** Every op. A new one is a file of its name, a line here and a line in each executor's table. */

import "./methods.js";

export * from "../graph/fused/gate.js";
export * from "./batch_norm.js";
export * from "./binary.js";
export * from "./conv2d.js";
export * from "./cross_entropy.js";
export * from "./linear.js";
export * from "./pad.js";
export * from "./pool2d.js";
export * from "./recomputation.js";
export * from "./reduce.js";
export * from "./reshape.js";
export * from "./softmax.js";
export * from "./unary.js";
