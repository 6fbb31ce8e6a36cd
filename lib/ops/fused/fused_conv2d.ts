import type { Site } from "../../graph/rewrite.js";
import { Node, type Value } from "../../graph/value.js";
import { Tensor } from "../../tensor.js";
import { add } from "../binary.js";
import { type ConvAttributes, conv2d } from "../conv2d.js";
import { relu } from "../unary.js";
import { type FusedOp, residualOf } from "./fused_op.js";

/** convolution (+ bias) (+ residual) (+ ReLU). Inputs: x, weight, bias?, residual?. */
export const fusedConv2d: FusedOp = {
  name: "fused_conv2d",

  match(site: Site) {
    const { node, inputs, uses } = site;
    for (const y of inputs) {
      const conv = y.node;
      const merges = (conv.op === "conv2d" || conv.op === "fused_conv2d") && !y.isLeaf && uses(y) === 1;
      if (!merges || conv.attributes.relu) continue;
      const attributes = { bias: conv.inputs.length > 2, residual: false, relu: false, ...conv.attributes };
      if (node.op === "relu") return fused({ ...attributes, relu: true }, conv.inputs, y);
      const residual = attributes.residual ? undefined : residualOf(site, y);
      if (residual) return fused({ ...attributes, residual: true }, [...conv.inputs, residual], y);
    }
    return undefined;
  },

  expand(inputs, attributes) {
    const [x, weight, ...rest] = inputs.map((value) => new Tensor(value));
    let y = conv2d(x, weight, attributes.bias ? rest[0] : undefined, attributes as ConvAttributes);
    if (attributes.residual) y = add(y, rest[rest.length - 1]);
    return (attributes.relu ? relu(y) : y).value;
  },
};

function fused(attributes: Node["attributes"], inputs: readonly Value[], type: Value): Value {
  return new Node(fusedConv2d.name, attributes, inputs, [type]).outputs[0];
}
