import type { Site } from "../../graph/rewrite.js";
import { Node } from "../../graph/value.js";
import { Tensor } from "../../tensor.js";
import { recordBatchNorm } from "../batch_norm.js";
import { add } from "../binary.js";
import { relu } from "../unary.js";
import { type FusedOp, residualOf } from "./fused_op.js";

/** batch norm with given statistics (+ residual) (+ ReLU). Inputs: x, mean, variance, gamma and beta where affine, residual?. */
export const batchNormAct: FusedOp = {
  name: "batch_norm_act",

  match(site: Site) {
    const { node, inputs, uses } = site;
    for (const y of inputs) {
      const norm = y.node;
      const merges = (norm.op === "batch_norm" || norm.op === "batch_norm_act") && !y.isLeaf && uses(y) === 1;
      if (!merges || norm.attributes.relu) continue;
      const attributes = { affine: norm.inputs.length > 3, residual: false, relu: false, ...norm.attributes };
      const residual = node.op === "relu" || attributes.residual ? undefined : residualOf(site, y);
      if (node.op === "relu") return new Node(this.name, { ...attributes, relu: true }, norm.inputs, [y]).outputs[0];
      if (residual)
        return new Node(this.name, { ...attributes, residual: true }, [...norm.inputs, residual], [y]).outputs[0];
    }
    return undefined;
  },

  expand(inputs, { eps, affine, residual, relu: activate }) {
    const statistics = inputs.slice(0, affine ? 5 : 3).map((value) => new Tensor(value));
    let y = recordBatchNorm(statistics, eps as number);
    if (residual) y = add(y, new Tensor(inputs[inputs.length - 1]));
    return (activate ? relu(y) : y).value;
  },
};
