import { op } from "../value.js";
import { expandTail, type FusedOp, matchTail } from "./fused_op.js";

/** batch norm with given statistics (+ residual) (+ ReLU). Inputs: x, mean, variance, gamma and beta where affine, residual?. */
export const batchNormAct: FusedOp = {
  name: "batch_norm_act",

  match(site) {
    return matchTail(site, this.name, ["batch_norm", this.name], (norm) => ({ affine: norm.inputs.length > 3 }));
  },

  expand({ attributes, outputs }, inputs) {
    const terms = inputs.slice(0, attributes.affine ? 5 : 3);
    const y = op("batch_norm", { eps: attributes.eps }, terms, outputs[0]);
    return expandTail(y, attributes, inputs[inputs.length - 1]);
  },
};
