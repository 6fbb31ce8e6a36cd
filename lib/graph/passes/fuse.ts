import { fusedOps } from "../fused/index.js";
import { type Rule, rewrite } from "../rewrite.js";
import { op, type Value } from "../value.js";

const arithmetic: ReadonlySet<string> = new Set(["add", "sub", "mul", "div"]);

/** Arithmetic broadcasts by itself, so what was broadcast for it alone (the gradient of a mean) stays small. */
const narrow: Rule = ({ node, inputs, uses }) => {
  if (!arithmetic.has(node.op)) return undefined;
  const [y] = node.outputs;
  const wide = inputs.find((value) => !value.isLeaf && value.node.op === "broadcast" && uses(value) === 1);
  if (!wide || !inputs.some((value) => value !== wide && `${value.shape}` === `${y.shape}`)) return undefined;
  const [small] = wide.node.inputs;
  const scaled = op("broadcast", wide.node.attributes, [small], small);
  const operands = inputs.map((value) => (value === wide ? scaled : value));
  return [op(node.op, node.attributes, operands, y)];
};

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
    rewrite(roots, narrow),
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
