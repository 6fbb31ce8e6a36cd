import type { Site } from "../../graph/rewrite.js";
import type { Value } from "../../graph/value.js";
import type { Attributes } from "../../plan/plan.js";

/** An op that stands for several: how to find it in a graph, and what it stands for. */
export interface FusedOp {
  readonly name: string;
  /** The fused value that replaces the site's node, when the pattern ends there. */
  match(site: Site): Value | undefined;
  /** The unfused expansion, which defines what the op computes. */
  expand(inputs: readonly Value[], attributes: Attributes): Value;
}

/** The other operand of a residual addition: same shape, so nothing is broadcast. */
export function residualOf(site: Site, branch: Value): Value | undefined {
  const { node, inputs } = site;
  if (node.op !== "add") return undefined;
  const other = inputs[0] === branch ? inputs[1] : inputs[0];
  const same = other !== branch && other.shape.length === branch.shape.length;
  return same && other.shape.every((extent, i) => extent === branch.shape[i]) ? other : undefined;
}
