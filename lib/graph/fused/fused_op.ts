import type { Attributes } from "../attributes.js";
import type { Site } from "../rewrite.js";
import { type Node, op, type Value } from "../value.js";

/** An op that stands for several: how to find it in a graph, and what it stands for. */
export interface FusedOp {
  readonly name: string;
  /** The fused value that replaces the site's node, when the pattern ends there. */
  match(site: Site): Value | undefined;
  /** The unfused expansion of a fused node over its (rewritten) inputs. It defines what the op computes. */
  expand(node: Node, inputs: readonly Value[]): Value;
}

/** How a fused op ends: `+ residual` and ReLU, each where the attributes say so. */
export function expandTail(y: Value, { residual, relu }: Attributes, last: Value): Value {
  const sum = residual ? op("add", {}, [y, last], y) : y;
  return relu ? op("relu", {}, [sum], y) : sum;
}

/**
 * The fused node with one more op of its tail, when the site is a ReLU or a residual addition that nobody but the site
 * reads before: `heads` are the ops whose value may be the branch.
 */
export function matchTail(site: Site, name: string, heads: readonly string[], first: (head: Node) => Attributes) {
  const { node, inputs, uses } = site;
  if (node.op !== "relu" && node.op !== "add") return undefined;
  for (const y of inputs) {
    const head = y.node;
    if (y.isLeaf || uses(y) !== 1 || !heads.includes(head.op) || head.attributes.relu) continue;
    const attributes = { residual: false, relu: false, ...first(head), ...head.attributes };
    if (node.op === "relu") return op(name, { ...attributes, relu: true }, head.inputs, y);
    const residual = attributes.residual ? undefined : otherOperand(inputs, y);
    if (residual) return op(name, { ...attributes, residual: true }, [...head.inputs, residual], y);
  }
  return undefined;
}

/** What is added to `branch`, if it has the same shape, so that nothing is broadcast. */
function otherOperand(inputs: readonly Value[], branch: Value): Value | undefined {
  const other = inputs[0] === branch ? inputs[1] : inputs[0];
  return other !== branch && `${other.shape}` === `${branch.shape}` ? other : undefined;
}
