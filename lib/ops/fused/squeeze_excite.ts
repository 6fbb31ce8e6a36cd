import type { Site } from "../../graph/rewrite.js";
import { Node, type Value } from "../../graph/value.js";
import { Tensor } from "../../tensor.js";
import { add, mul } from "../binary.js";
import { linear } from "../linear.js";
import { mean } from "../reduce.js";
import { reshape } from "../reshape.js";
import { relu, sigmoid } from "../unary.js";
import { type FusedOp, residualOf } from "./fused_op.js";

/**
 * Squeeze-and-excitation (Hu et al. 2018, equations 2 to 4): `x * sigmoid(W2 relu(W1 mean(x) + b1) + b2)`
 * (+ residual) (+ ReLU). Inputs: x [N, C, H, W], W1 [R, C], b1 [R], W2 [C, R], b2 [C], residual?.
 */
export const squeezeExcite: FusedOp = {
  name: "squeeze_excite",

  match(site: Site) {
    const { node, inputs, uses } = site;
    if (node.op === "mul") {
      const [a, b] = inputs;
      return matchGate(a, b, uses) ?? matchGate(b, a, uses);
    }
    for (const y of inputs) {
      const { op, attributes, inputs: terms } = y.node;
      if (op !== this.name || y.isLeaf || uses(y) !== 1 || attributes.relu) continue;
      if (node.op === "relu") return new Node(op, { ...attributes, relu: true }, terms, [y]).outputs[0];
      const residual = attributes.residual ? undefined : residualOf(site, y);
      if (residual) return new Node(op, { ...attributes, residual: true }, [...terms, residual], [y]).outputs[0];
    }
    return undefined;
  },

  expand(inputs, attributes) {
    const [x, w1, b1, w2, b2, residual] = inputs.map((value) => new Tensor(value));
    const gate = sigmoid(linear(relu(linear(mean(x, [2, 3]), w1, b1)), w2, b2));
    let y = mul(x, reshape(gate, [x.shape[0], x.shape[1], 1, 1]));
    if (attributes.residual) y = add(y, residual);
    return (attributes.relu ? relu(y) : y).value;
  },
};

type Uses = Site["uses"];

/** Walks the gate backwards, sigmoid <- FC <- relu <- FC <- mean of x, where every value in between has one reader. */
function matchGate(x: Value, gate: Value, uses: Uses): Value | undefined {
  const [n, c] = x.shape;
  if (x.shape.length !== 4 || gate.shape.join() !== `${n},${c},1,1`) return undefined;
  const excited = producer(gate, uses);
  if (excited?.op !== "sigmoid") return undefined;
  const second = fullyConnected(excited.inputs[0], uses);
  if (!second || second.relu) return undefined;
  const activated = second.relu ? undefined : producer(second.input, uses);
  const first = fullyConnected(activated?.op === "relu" ? activated.inputs[0] : second.input, uses);
  if (!first || first.relu === (activated?.op === "relu")) return undefined;
  const pooled = producer(first.input, uses);
  if (pooled?.op !== "mean" || pooled.inputs[0] !== x || `${pooled.attributes.dims}` !== "2,3") return undefined;
  const inputs = [x, first.weight, first.bias, second.weight, second.bias];
  return new Node(squeezeExcite.name, { residual: false, relu: false }, inputs, [x]).outputs[0];
}

/** The node behind a value and its reshapes, if nobody else reads any of them. */
function producer(value: Value, uses: Uses): Node | undefined {
  for (let v = value; !v.isLeaf && uses(v) === 1; v = v.node.inputs[0]) if (v.node.op !== "reshape") return v.node;
  return undefined;
}

/** A fully connected layer with bias, whether recorded as `linear` or as a 1x1 convolution of a 1x1 image. */
function fullyConnected(value: Value, uses: Uses) {
  const node = producer(value, uses);
  if (!node) return undefined;
  const { op, attributes } = node;
  const [input, weight, bias] = node.inputs;
  if (op === "linear" && bias) return { input, weight, bias, relu: false };
  const isConv = (op === "conv2d" || op === "fused_conv2d") && input.shape[2] === 1 && input.shape[3] === 1;
  const plain = isConv && attributes.groups === 1 && !attributes.residual && attributes.bias !== false && bias;
  if (!plain || weight.shape[2] !== 1 || weight.shape[3] !== 1 || `${attributes.padding}` !== "0,0") return undefined;
  const matrix = new Node("reshape", {}, [weight], [{ shape: weight.shape.slice(0, 2), dtype: weight.dtype }]);
  return { input, weight: matrix.outputs[0], bias, relu: attributes.relu === true };
}
