import { Node, topological, type Value } from "./value.js";

/** What a rule sees of a node: its inputs already rewritten, and how often each is used. */
export interface Site {
  readonly node: Node;
  readonly inputs: readonly Value[];
  /** How many nodes and roots read a rewritten value. A producer may be merged into its consumer when this is 1. */
  uses(value: Value): number;
  /** The only node that reads an output of this node, as it was recorded; undefined where several do, or a root is it. */
  onlyReader(output: Value): Node | undefined;
  /** What a value, as it was recorded, was or will be rewritten to; undefined where that depends on this node. */
  renewed(value: Value): Value | undefined;
}

/** Returns the values that replace the node's outputs, or undefined to leave the node as it is. */
export type Rule = (site: Site) => readonly Value[] | undefined;

/**
 * Rebuilds the graph under `roots` bottom-up through `rule` and returns the new roots. Leaves and
 * placeholders keep their identity; every other node is made anew, so that the order stays the one of recording, with what
 * replaces a node in its place (and before it what it had `renewed`).
 */
export function rewrite(roots: readonly Value[], rule: Rule): Value[] {
  const isLeaf = (value: Value) => value.isLeaf;
  const order = topological(roots, isLeaf);
  const before = new Map<Value, number>();
  const readers = new Map<Value, Node>();
  const count = (value: Value) => before.set(value, (before.get(value) ?? 0) + 1);
  for (const node of order)
    for (const input of node.inputs) {
      count(input);
      readers.set(input, node);
    }
  roots.forEach(count);
  const onlyReader = (output: Value) => (before.get(output) === 1 ? readers.get(output) : undefined);

  const after = new Map<Value, Value>();
  const uses = new Map<Value, number>();
  const renew = (value: Value) => after.get(value) ?? value;
  const underWay = new Set<Node>();
  const renewed = (value: Value) => {
    const needed = topological([value], (other) => other.isLeaf || after.has(other));
    if (needed.some((node) => underWay.has(node))) return undefined;
    needed.forEach(replace);
    return renew(value);
  };
  const replace = (node: Node) => {
    if (after.has(node.outputs[0])) return;
    underWay.add(node);
    const inputs = node.inputs.map(renew);
    const count = (value: Value) => uses.get(value) ?? before.get(value) ?? 0;
    const outputs = rule({ node, inputs, uses: count, onlyReader, renewed }) ?? rebuilt(node, inputs).outputs;
    node.outputs.forEach((old, i) => {
      after.set(old, outputs[i]);
      uses.set(outputs[i], (uses.get(outputs[i]) ?? 0) + (before.get(old) ?? 0));
    });
    underWay.delete(node);
  };
  order.forEach(replace);
  return roots.map(renew);
}

function rebuilt(node: Node, inputs: readonly Value[]): Node {
  return inputs.length === 0 ? node : new Node(node.op, node.attributes, inputs, node.outputs);
}
