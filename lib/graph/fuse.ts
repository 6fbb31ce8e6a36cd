import { fusedOps } from "./fused/index.js";
import { rewrite } from "./rewrite.js";
import type { Value } from "./value.js";

/** Merges chains of nodes into the fused ops that stand for them. Gives the same numbers on every executor. */
export function fuse(roots: readonly Value[]): Value[] {
  return fusedOps.reduce<Value[]>(
    (values, round) =>
      rewrite(values, (site) => {
        for (const op of round) {
          const fused = op.match(site);
          if (fused) return [fused];
        }
        return undefined;
      }),
    [...roots],
  );
}

/** Replaces fused nodes an executor does not run itself by the ops they stand for, which it may run fused again. */
export function expand(roots: readonly Value[], supported: ReadonlySet<string>): Value[] {
  return fusedOps.reduceRight<Value[]>(
    (values, round) =>
      rewrite(values, ({ node, inputs }) => {
        const op = supported.has(node.op) ? undefined : round.find(({ name }) => name === node.op);
        return op && [op.expand(node, inputs)];
      }),
    [...roots],
  );
}
