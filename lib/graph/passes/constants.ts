import { topological, type Value } from "../value.js";

/** The part of a graph that is the same in every run. */
export interface Setup {
  /** Values that depend on constants alone and are read by the part that does not: leaves, or computed once. */
  readonly constants: readonly Value[];
  /** Those of `constants` that have to be computed. */
  readonly computed: readonly Value[];
}

/** Splits what depends on constants alone from what depends on `inputs`. */
export function findSetup(root: Value, inputs: ReadonlySet<Value>): Setup {
  const fixed = (value: Value) => value.isLeaf || known.has(value);
  const known = new Set<Value>();
  const constants = new Set<Value>();
  const order = topological([root], (value) => value.isLeaf || inputs.has(value));
  for (const node of order)
    if (node.inputs.length > 0 && node.inputs.every(fixed)) for (const output of node.outputs) known.add(output);
  for (const node of order)
    if (!known.has(node.outputs[0])) for (const input of node.inputs) if (fixed(input)) constants.add(input);
  if (fixed(root)) constants.add(root);
  return { constants: [...constants], computed: [...constants].filter((value) => !value.isLeaf) };
}
