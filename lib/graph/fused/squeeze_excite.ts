import type { Site } from "../rewrite.js";
import { type Node, op, type Value } from "../value.js";
import { expandTail, type FusedOp, matchTail } from "./fused_op.js";

/**
 * Squeeze-and-excitation (Hu et al. 2018, equations 2 to 4): `x * sigmoid(W2 relu(W1 mean(x) + b1) + b2)`
 * (+ residual) (+ ReLU). Inputs: x [N, C, H, W], W1 [R, C], b1 [R], W2 [C, R], b2 [C], residual?.
 */
export const squeezeExcite: FusedOp = {
  name: "squeeze_excite",

  match(site) {
    const { node, inputs, uses } = site;
    if (node.op !== "mul") return matchTail(site, this.name, [this.name], () => ({}));
    const [a, b] = inputs;
    return matchGate(a, b, uses) ?? matchGate(b, a, uses);
  },

  expand({ attributes }, inputs) {
    const [x, w1, b1, w2, b2] = inputs;
    const { dtype } = x;
    const [n, c] = x.shape;
    const hidden = { shape: [n, w1.shape[0]], dtype };
    const squeezed = op("mean", { dims: [2, 3], keepDims: false }, [x], { shape: [n, c], dtype });
    const reduced = op("relu", {}, [op("linear", {}, [squeezed, w1, b1], hidden)], hidden);
    const gate = op("sigmoid", {}, [op("linear", {}, [reduced, w2, b2], squeezed)], squeezed);
    const y = op("mul", {}, [x, op("reshape", {}, [gate], { shape: [n, c, 1, 1], dtype })], x);
    return expandTail(y, attributes, inputs[inputs.length - 1]);
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
  const activated = producer(second.input, uses);
  const first = fullyConnected(activated?.op === "relu" ? activated.inputs[0] : second.input, uses);
  if (!first || first.relu === (activated?.op === "relu")) return undefined;
  const pooled = producer(first.input, uses);
  if (pooled?.op !== "mean" || pooled.inputs[0] !== x || `${pooled.attributes.dims}` !== "2,3") return undefined;
  // with these, the reshapes in between can only have added or dropped extents of 1
  const [r] = first.weight.shape;
  if (`${first.weight.shape}` !== `${r},${c}` || `${second.weight.shape}` !== `${c},${r}`) return undefined;
  const inputs = [x, first.weight, first.bias, second.weight, second.bias];
  return op(squeezeExcite.name, { residual: false, relu: false }, inputs, x);
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
  const { attributes } = node;
  const [input, weight, bias] = node.inputs;
  if (node.op === "linear" && bias) return { input, weight, bias, relu: false };
  const isConv = (node.op === "conv2d" || node.op === "fused_conv2d") && input.shape[2] === 1 && input.shape[3] === 1;
  const plain = isConv && attributes.groups === 1 && !attributes.residual && attributes.bias !== false && bias;
  if (!plain || weight.shape[2] !== 1 || weight.shape[3] !== 1 || `${attributes.padding}` !== "0,0") return undefined;
  const matrix = op("reshape", {}, [weight], { shape: weight.shape.slice(0, 2), dtype: weight.dtype });
  return { input, weight: matrix, bias, relu: attributes.relu === true };
}
