import { createHash } from "node:crypto";
import { isVariable, type Node, topological, type Value } from "../graph/value.js";
import type { Plan, Slot, Step } from "./plan.js";

/** A recorded graph seen from the values somebody wants: its leaves in a fixed order, and its structure as a key. */
export interface Trace {
  readonly leaves: readonly Value[];
  /** Ops, attributes, shapes and dtypes, and nothing else: equal keys mean equal plans. */
  readonly key: string;
}

const isLeaf = (value: Value) => value.isLeaf;

/** Walks the graph under `roots`. `labels` names what is wanted of each root and belongs to the key. */
export function trace(roots: readonly Value[], labels: readonly string[]): Trace {
  const numbers = new Map<Value, number>();
  const leaves: Value[] = [];
  const hash = createHash("sha1");
  const number = (value: Value) => {
    let known = numbers.get(value);
    if (known === undefined) {
      // only leaves are met before the node that makes them
      known = numbers.size;
      numbers.set(value, known);
      leaves.push(value);
      hash.update(`${isVariable(value) ? "variable" : "input"} ${value.dtype} ${value.shape}\n`);
    }
    return known;
  };
  for (const node of topological(roots, isLeaf)) {
    if (node.inputs.length === 0) {
      node.outputs.forEach(number); // a placeholder
      continue;
    }
    const inputs = node.inputs.map(number).join(",");
    for (const output of node.outputs) if (!output.isLeaf) numbers.set(output, numbers.size);
    const types = node.outputs.map(({ dtype, shape }) => `${dtype} ${shape}`).join(";");
    hash.update(`${node.op}(${inputs})${JSON.stringify(node.attributes)}=${types}\n`);
  }
  hash.update(roots.map((root, i) => `${labels[i]} ${number(root)}`).join("\n"));
  return { leaves, key: hash.digest("base64") };
}

/** Ops that only tell the graph something: their value is their first input. */
const aliases: ReadonlySet<string> = new Set(["detach", "pin", "variable"]);

/** What each leaf is for the plan. */
export type LeafRole = "inputs" | "constants" | "variables";

/**
 * Turns a graph into a plan. Leaves become slots in the order given, by their role; `outputs` and `written` name the
 * values that leave the plan; `layerOf` says, for people, to which layer a node belongs.
 */
export function lower(
  leaves: readonly Value[],
  role: (leaf: Value) => LeafRole,
  outputs: readonly Value[],
  written: readonly Value[],
  layerOf: (node: Node) => string | undefined = () => undefined,
): Plan {
  const slots: Slot[] = [];
  const slotOf = new Map<Value, number>();
  const place = (value: Value) => {
    slotOf.set(value, slots.length);
    slots.push({ shape: [...value.shape], dtype: value.dtype });
    return slots.length - 1;
  };
  const find = (value: Value) => {
    const slot = slotOf.get(value);
    if (slot === undefined) throw new Error(`the graph reads a ${value.node.op} that is not among its leaves`);
    return slot;
  };
  const roles: Record<LeafRole, number[]> = { inputs: [], constants: [], variables: [] };
  for (const leaf of leaves) roles[role(leaf)].push(place(leaf));

  const steps: Step[] = [];
  for (const node of topological([...outputs, ...written], (value) => slotOf.has(value))) {
    const inputs = node.inputs.map(find);
    if (aliases.has(node.op)) slotOf.set(node.outputs[0], inputs[0]);
    else {
      const { op, attributes, outputs } = node;
      steps.push({ op, attributes, inputs, outputs: outputs.map(place), layer: layerOf(node) });
    }
  }
  return { slots, ...roles, outputs: outputs.map(find), written: written.map(find), steps };
}
