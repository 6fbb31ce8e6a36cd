import { fusedOps } from "./fused/index.js";
import { rewrite } from "./rewrite.js";
import type { Value } from "./value.js";

/** Merges chains of nodes into the fused ops that stand for them. Gives the same numbers on every executor. */
export function fuse(roots: readonly Value[]): Value[] {
  return rewrite(roots, (site) => {
    for (const op of fusedOps) {
      const fused = op.match(site);
      if (fused) return [fused];
    }
    return undefined;
  });
}

/** Replaces fused nodes an executor does not run itself by the ops they stand for. */
export function expand(roots: readonly Value[], supported: ReadonlySet<string>): Value[] {
  return rewrite(roots, ({ node, inputs }) => {
    const op = supported.has(node.op) ? undefined : fusedOps.find(({ name }) => name === node.op);
    return op && [op.expand(node, inputs)];
  });
}
