import { DeviceError, type SeresnetError, StaleTensorError } from "../errors.js";
import { isVariable, leavesUnder, type Node, topological, type Value } from "../graph/value.js";

/** Why a leaf's contents are gone, or undefined when they are there. */
export function lost(leaf: Value): SeresnetError | undefined {
  if (!isVariable(leaf) || !leaf.version) return undefined;
  const { state, variable, error } = leaf.version;
  if (state === "failed")
    return new DeviceError(`${variable.name}: the update this value reads failed`, { cause: error });
  if (state === "current") return undefined;
  return new StaleTensorError(
    `this value was recorded before ${variable.name} was overwritten and is gone; ask for it (await data()) before the step or the next flush`,
  );
}

/** Why a value cannot be computed any more, or undefined when it can. */
export function lostUnder(value: Value): SeresnetError | undefined {
  for (const leaf of leavesUnder([value])) {
    const error = lost(leaf);
    if (error) return error;
  }
  return undefined;
}

/** Nodes known to read nothing that is gone, since the last flush that overwrote something. */
let fresh = new WeakSet<Node>();

/** Forgets what is known to be there: a flush overwrites variables, or one has failed. */
export function versionsChanged(): void {
  fresh = new WeakSet();
}

/**
 * Throws StaleTensorError where a value reads what has been overwritten. Looks at every node once between two flushes, so
 * that asking at each of a step's writes costs no more than asking once.
 */
export function checkFresh(value: Value): void {
  const seen: Node[] = [];
  const check = (leaf: Value) => {
    const error = lost(leaf);
    if (error instanceof StaleTensorError) throw error;
  };
  if (value.isLeaf) check(value);
  for (const node of topological([value], ({ isLeaf, node }) => isLeaf || fresh.has(node))) {
    for (const input of node.inputs) if (input.isLeaf) check(input);
    seen.push(node);
  }
  for (const node of seen) fresh.add(node);
}
