import { ArgumentError } from "../../errors.js";
import { rewrite } from "../rewrite.js";
import { Node, op, topological, type Value } from "../value.js";

/**
 * The gradients of the loss with respect to a node's inputs, given those with respect to its outputs (undefined where the
 * loss does not depend on an output). Undefined for inputs that have none.
 */
export type GradientRule = (node: Node, gradients: readonly (Value | undefined)[]) => readonly (Value | undefined)[];

const rules = new Map<string, GradientRule>();

/** Gives an op its rule. Each op's file does this once. */
export function defineGradient(name: string, rule: GradientRule): void {
  rules.set(name, rule);
}

/** The common case: one output. */
export function defineGradientOf(
  name: string,
  rule: (node: Node, gradient: Value, y: Value) => readonly (Value | undefined)[],
): void {
  rules.set(name, (node, [gradient]) => (gradient ? rule(node, gradient, node.outputs[0]) : []));
}

/**
 * Replaces every `gradient(loss, variables…)` node by the graph that computes it (reverse accumulation), and takes out the
 * marks that `checkpoint` leaves.
 */
export function differentiate(roots: readonly Value[]): Value[] {
  const complete = rewrite(roots, ({ node, inputs }) =>
    node.op === "gradient" ? gradientsOf(inputs[0], inputs.slice(1)) : undefined,
  );
  return rewrite(complete, ({ node, inputs }) => (node.op === "checkpoint" ? [inputs[0]] : undefined));
}

function gradientsOf(loss: Value, targets: readonly Value[]): Value[] {
  const wanted = new Set(targets);
  const gradients = new Map<Value, Value>([[loss, op("fill", { value: 1 }, [], loss)]]);
  accumulate(
    topological([loss], (value) => value.isLeaf || wanted.has(value)),
    new Set(targets),
    gradients,
  );
  return targets.map((target) => gradients.get(target) ?? op("fill", { value: 0 }, [], target));
}

/**
 * Goes back through nodes, from the gradients there are to those of what the nodes read.
 *
 * @param depends the values that gradients are wanted of; those between them and the loss are added
 */
function accumulate(order: readonly Node[], depends: Set<Value>, gradients: Map<Value, Value>): void {
  for (const node of order)
    if (node.op !== "detach" && node.inputs.some((input) => depends.has(input)))
      for (const output of node.outputs) depends.add(output);

  for (const node of [...order].reverse()) {
    const known = node.outputs.map((output) => gradients.get(output));
    if (!known.some(Boolean) || !node.outputs.some((output) => depends.has(output))) continue;
    if (node.op === "checkpoint") {
      recompute(node, known[0] as Value, depends, gradients);
      continue;
    }
    const rule = rules.get(node.op);
    if (!rule)
      throw new ArgumentError(`backward: ${node.op} has no gradient (gradients of gradients are not supported)`);
    for (const [i, gradient] of rule(node, known).entries()) {
      const input = node.inputs[i];
      if (!gradient || !depends.has(input)) continue;
      const before = gradients.get(input);
      gradients.set(input, before ? op("add", {}, [before, gradient], input) : gradient);
    }
  }
}

/**
 * Goes back through what a `checkpoint` marks by recording it once more. The copy comes after all that was recorded for
 * later layers and right before its own gradients, which read it in place of the original: so nothing of the original
 * lives longer than the forward pass needs it.
 */
function recompute(
  { inputs: [y, ...given] }: Node,
  dy: Value,
  depends: Set<Value>,
  gradients: Map<Value, Value>,
): void {
  const ends = new Set(given);
  const segment = topological([y], (value) => value.isLeaf || ends.has(value) || value.node.op === "variable");
  const copies = new Map<Value, Value>();
  const originals = new Map<Value, Value>();
  const renew = (value: Value) => copies.get(value) ?? value;
  const again = segment.map((node) => {
    const copy = new Node(node.op, node.attributes, node.inputs.map(renew), node.outputs);
    for (const [i, output] of copy.outputs.entries()) {
      copies.set(node.outputs[i], output);
      originals.set(output, node.outputs[i]);
    }
    return copy;
  });
  gradients.set(renew(y), dy);
  accumulate(again, depends, gradients);

  // What the gradients read cannot be fused away, and so it must not be in the original: both are to give the same bits.
  const isOlder = ({ node }: Value) => again.length === 0 || node.number <= again[again.length - 1].number;
  const [left] = [...gradients].filter(([value, gradient]) => !originals.has(value) && !isOlder(gradient));
  if (!left) return;
  const made = topological(gradients.values(), (value) => value.isLeaf || isOlder(value));
  const read = made.flatMap((node) => node.inputs.flatMap((input) => originals.get(input) ?? []));
  gradients.set(left[0], op("pin", {}, [left[1], ...new Set(read)], left[1]));
}
