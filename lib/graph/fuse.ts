import { fusedOps } from "./fused/index.js";
import { type Rule, rewrite } from "./rewrite.js";
import { Node, op, type Value } from "./value.js";

const arithmetic: ReadonlySet<string> = new Set(["add", "sub", "mul", "div"]);

/** Arithmetic broadcasts by itself, so what was broadcast for it alone (the gradient of a mean) stays small. */
const narrow: Rule = ({ node, inputs, uses }) => {
  if (!arithmetic.has(node.op)) return undefined;
  const [y] = node.outputs;
  const wide = inputs.find((value) => !value.isLeaf && value.node.op === "broadcast" && uses(value) === 1);
  if (!wide || !inputs.some((value) => value !== wide && `${value.shape}` === `${y.shape}`)) return undefined;
  const [small] = wide.node.inputs;
  const scaled = op("broadcast", wide.node.attributes, [small], small);
  const operands = inputs.map((value) => (value === wide ? scaled : value));
  return [op(node.op, node.attributes, operands, y)];
};

/**
 * A ReLU right behind batch norm in training is a part of it, and so is the ReLU's gradient of batch norm's: what lies
 * between the two is never in memory. Both ops take the attribute `relu`, the gradient the ReLU's result as its last input.
 */
const activate: Rule = ({ node, inputs, uses, onlyReader }) => {
  const [first] = inputs;
  if (node.attributes.relu) return undefined;
  if (node.op === "batch_norm_train" && onlyReader(node.outputs[0])?.op === "relu")
    return new Node(node.op, { ...node.attributes, relu: true }, inputs, node.outputs).outputs;
  if (node.op === "relu" && first.node.op === "batch_norm_train" && first.node.attributes.relu && !first.isLeaf)
    return [first];
  if (node.op !== "batch_norm_gradient") return undefined;
  const [x, mean, variance, masked, ...gamma] = inputs;
  if (masked.isLeaf || masked.node.op !== "relu_gradient" || uses(masked) !== 1) return undefined;
  const [y, dy] = masked.node.inputs;
  const all = [x, mean, variance, dy, ...gamma, y];
  return new Node(node.op, { ...node.attributes, relu: true }, all, node.outputs).outputs;
};

/** Merges chains of nodes into the fused ops that stand for them. Gives the same numbers on every executor. */
export function fuse(roots: readonly Value[]): Value[] {
  return fusedOps.reduce<Value[]>(
    (values, round) =>
      rewrite(values, (site) => {
        for (const op of round) {
          const fused = op.match(site);
          if (fused) return [fused];
        }
        return undefined;
      }),
    rewrite(rewrite(roots, narrow), activate),
  );
}

/** Replaces fused nodes an executor does not run itself by the ops they stand for, which it may run fused again. */
export function expand(roots: readonly Value[], supported: ReadonlySet<string>): Value[] {
  return fusedOps.reduceRight<Value[]>(
    (values, round) =>
      rewrite(values, ({ node, inputs }) => {
        const op = supported.has(node.op) ? undefined : round.find(({ name }) => name === node.op);
        return op && [op.expand(node, inputs)];
      }),
    [...roots],
  );
}
