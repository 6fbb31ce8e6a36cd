import { rewrite, type Site } from "../rewrite.js";
import { Node, type Value } from "../value.js";

/**
 * Inference: a batch norm that follows a convolution nobody else reads becomes part of its weights and bias
 * (`weight * s`, `(bias - mean) * s + beta` with `s = gamma / sqrt(variance + eps)`). Pays where the weights are constants,
 * because the scaled weights are then computed once.
 */
export function fold(roots: readonly Value[]): Value[] {
  return rewrite(roots, foldBatchNorm);
}

function foldBatchNorm({ node, inputs, uses }: Site): readonly Value[] | undefined {
  if (node.op !== "batch_norm") return undefined;
  const [x, ...statistics] = inputs;
  const conv = x.node;
  if (conv.op !== "conv2d" || x.isLeaf || uses(x) !== 1) return undefined;
  const [input, weight, ...bias] = conv.inputs;
  const folded = new Node(
    "fold_batch_norm",
    { eps: node.attributes.eps, bias: bias.length > 0, affine: statistics.length > 2 },
    [weight, ...bias, ...statistics],
    [weight, { shape: [weight.shape[0]], dtype: weight.dtype }],
  );
  return new Node("conv2d", conv.attributes, [input, ...folded.outputs], node.outputs).outputs;
}
