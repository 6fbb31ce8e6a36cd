import { Node, op, topological, type Value } from "../graph/value.js";
import { sizeOf } from "../shape.js";
import { keep } from "./flush.js";
import { forgetWrite } from "./recording.js";
import { checkFresh } from "./stale.js";
import { filled, Variable, variableOf } from "./variable.js";

/**
 * Records the gradients of a scalar with respect to every variable it was computed from that wants one, and adds them
 * to what those variables have accumulated.
 *
 * @throws StaleTensorError when it was recorded before a variable it reads was overwritten
 */
export function backward(loss: Value): void {
  const { root, targets } = live(loss);
  checkFresh(root); // also what was kept, where gradients flow through how it was computed
  keep(loss); // computed anyway, and what a training loop will ask for after the step

  const values = [...targets.values()].flat();
  if (values.length === 0) return;
  const gradients = new Map(new Node("gradient", {}, [root, ...values], values).outputs.map((g, i) => [values[i], g]));
  for (const [variable, reads] of targets) {
    const parts = reads.map((value) => gradients.get(value) as Value);
    const known = variable.gradient;
    if (known) parts.unshift(known.read());
    variable.gradient ??= zerosLike(variable, `${variable.name}.grad`);
    variable.gradient.write(parts.reduce((sum, part) => op("add", {}, [sum, part], variable)));
  }
}

/**
 * The graph from the variables that want a gradient up to the loss, and those variables' reads. Values on the way that
 * were asked for already are leaves to everybody else; here they are recorded again, so that gradients flow through.
 */
function live(loss: Value): { root: Value; targets: Map<Variable, Value[]> } {
  const targets = new Map<Variable, Value[]>();
  const seen = new Set<Value>();
  const find = (value: Value) => {
    const variable = variableOf(value);
    if (!variable?.requiresGrad || seen.has(value)) return;
    seen.add(value);
    targets.set(variable, [...(targets.get(variable) ?? []), value]);
  };
  find(loss);
  const again = new Map<Value, Value>();
  const renew = (value: Value) => again.get(value) ?? value;
  const stops = ({ node, variable }: Value) => variable !== undefined || !node.differentiable;
  for (const node of topological([loss], stops)) {
    node.inputs.forEach(find);
    const inputs = node.inputs.map(renew);
    const changed = inputs.some((input, i) => input !== node.inputs[i]);
    if (!changed && !node.outputs.some(({ isLeaf }) => isLeaf)) continue;
    const copy = new Node(node.op, node.attributes, inputs, node.outputs);
    for (const [i, output] of node.outputs.entries()) again.set(output, copy.outputs[i]);
  }
  return { root: renew(loss), targets };
}

/** Forgets what a variable has accumulated. */
export function zeroGradient(variable: Variable): void {
  if (variable.gradient) forgetWrite(variable.gradient);
  variable.gradient = undefined;
}

/** A variable of zeros of another one's shape: a gradient, or an optimiser's state. */
export function zerosLike({ shape, dtype }: Variable, name: string): Variable {
  return new Variable(shape, dtype, () => filled(dtype, sizeOf(shape), 0), name);
}
