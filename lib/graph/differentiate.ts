import { ArgumentError } from "../errors.js";
import { rewrite } from "./rewrite.js";
import { type Node, op, topological, type Value } from "./value.js";

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

/** Replaces every `gradient(loss, variables…)` node by the graph that computes it (reverse accumulation). */
export function differentiate(roots: readonly Value[]): Value[] {
  return rewrite(roots, ({ node, inputs }) =>
    node.op === "gradient" ? gradientsOf(inputs[0], inputs.slice(1)) : undefined,
  );
}

function gradientsOf(loss: Value, targets: readonly Value[]): Value[] {
  const wanted = new Set(targets);
  const order = topological([loss], (value) => value.isLeaf || wanted.has(value));
  const depends = new Set<Value>(targets);
  for (const node of order)
    if (node.op !== "detach" && node.inputs.some((input) => depends.has(input)))
      for (const output of node.outputs) depends.add(output);

  const gradients = new Map<Value, Value>([[loss, op("fill", { value: 1 }, [], loss)]]);
  for (const node of order.reverse()) {
    const known = node.outputs.map((output) => gradients.get(output));
    if (!known.some(Boolean) || !node.outputs.some((output) => depends.has(output))) continue;
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
  return targets.map((target) => gradients.get(target) ?? op("fill", { value: 0 }, [], target));
}
