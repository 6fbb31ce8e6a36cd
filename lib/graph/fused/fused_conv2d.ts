import { op } from "../value.js";
import { expandTail, type FusedOp, matchTail } from "./fused_op.js";

/** convolution (+ bias) (+ residual) (+ ReLU). Inputs: x, weight, bias?, residual?. */
export const fusedConv2d: FusedOp = {
  name: "fused_conv2d",

  match(site) {
    return matchTail(site, this.name, ["conv2d", this.name], (conv) => ({ bias: conv.inputs.length > 2 }));
  },

  expand({ attributes, outputs }, inputs) {
    const { stride, padding, dilation, groups } = attributes;
    const terms = inputs.slice(0, attributes.bias ? 3 : 2);
    const y = op("conv2d", { stride, padding, dilation, groups }, terms, outputs[0]);
    return expandTail(y, attributes, inputs[inputs.length - 1]);
  },
};
