import { sizeOf } from "../plan/plan.js";
import { keep } from "./flush.js";
import { forgetWrite } from "./recording.js";
import { Node, op, topological, type Value } from "./value.js";
import { filled, Variable } from "./variable.js";

/**
 * Records the gradients of a scalar with respect to every variable it was computed from that wants one, and adds them
 * to what those variables have accumulated.
 */
export function backward(loss: Value): void {
  const targets = new Map<Variable, Value[]>();
  const seen = new Set<Value>();
  const find = (value: Value) => {
    const { variable } = value;
    if (!variable?.requiresGrad || seen.has(value)) return;
    seen.add(value);
    const values = targets.get(variable);
    if (values) values.push(value);
    else targets.set(variable, [value]);
  };
  find(loss);
  const stops = (value: Value) => value.isLeaf || value.node.op === "detach" || value.variable !== undefined;
  for (const { inputs } of topological([loss], stops)) inputs.forEach(find);
  keep(loss); // computed anyway, and what a training loop will ask for after the step

  const values = [...targets.values()].flat();
  if (values.length === 0) return;
  const gradients = new Map(new Node("gradient", {}, [loss, ...values], values).outputs.map((g, i) => [values[i], g]));
  for (const [variable, reads] of targets) {
    const parts = reads.map((value) => gradients.get(value) as Value);
    const known = variable.gradient;
    if (known) parts.unshift(known.read());
    variable.gradient ??= zerosLike(variable, `${variable.name}.grad`);
    variable.gradient.write(parts.reduce((sum, part) => op("add", {}, [sum, part], variable)));
  }
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
