import { op } from "../value.js";
import type { FusedOp } from "./fused_op.js";
import { squeezeExcite } from "./squeeze_excite.js";

/**
 * The linear convolution that ends a block, its squeeze-and-excitation (+ residual) (+ ReLU):
 * `conv(x) * gate + residual`. Nothing stands between the convolution and the squeeze, so an executor can know the gate
 * before it convolves: the mean of `conv(x)` is linear in the sums of `x` under each tap of the kernel (for a 1x1 kernel
 * `GAP(W x + b) = W GAP(x) + b`), and so is what the first layer of the excitation makes of it.
 * Inputs: x, weight, bias?, W1 [R, C], b1 [R], W2 [C, R], b2 [C], residual?.
 */
export const gatedConv2d: FusedOp = {
  name: "gated_conv2d",

  match({ node, inputs, uses }) {
    if (node.op !== squeezeExcite.name) return undefined;
    const [y, ...rest] = inputs;
    const conv = y.node;
    if (y.isLeaf || conv.op !== "conv2d" || uses(y) !== 1) return undefined;
    const attributes = { ...conv.attributes, bias: conv.inputs.length > 2, ...node.attributes };
    return op(this.name, attributes, [...conv.inputs, ...rest], node.outputs[0]);
  },

  expand({ attributes, outputs }, inputs) {
    const { stride, padding, dilation, groups, bias, residual, relu } = attributes;
    const terms = bias ? 3 : 2;
    const y = op("conv2d", { stride, padding, dilation, groups }, inputs.slice(0, terms), outputs[0]);
    return op(squeezeExcite.name, { residual, relu }, [y, ...inputs.slice(terms)], y);
  },
};
