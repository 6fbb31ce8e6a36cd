import { isFloat } from "../../dtype.js";
import { type Rule, rewrite, type Site } from "../rewrite.js";
import { Node, topological, type Value } from "../value.js";

/**
 * Joins what ends a block in training, `+ residual` and ReLU, to what is before it, batch norm or a gate, where nobody else
 * reads what lies between: one op, whose gradient is one op too. Before `differentiate`, whose gradients read what lies
 * between recorded ops.
 */
export function fuseEpilogues(roots: readonly Value[]): Value[] {
  const isLeaf = (value: Value) => value.isLeaf;
  const losses = topological(roots, isLeaf).flatMap(({ op, inputs }) => (op === "gradient" ? [inputs[0]] : []));
  // elsewhere a gate is a part of squeeze-and-excitation, which is one op
  const differentiated = new Set(topological(losses, isLeaf));
  const joined = new Map<Node, Value>();
  const join: Rule = ({ node, inputs, onlyReader, renewed }) => {
    const end = joined.get(node);
    if (end) return [end];
    const head = headOf(node, inputs, differentiated.has(node));
    if (!head) return undefined;
    const sum = readerOf(node.outputs[0], "add", onlyReader);
    const other = sum?.inputs.find((value) => value !== node.outputs[0]);
    const residual = sum && other && `${other.shape}` === `${sum.outputs[0].shape}` ? renewed(other) : undefined;
    const tail = sum && residual ? [sum] : [];
    const relu = readerOf((tail[0] ?? node).outputs[0], "relu", onlyReader);
    if (relu) tail.push(relu);
    if (head.op === node.op && tail.length === 0) return undefined;
    const attributes = { ...head.attributes, residual: residual !== undefined, relu: relu !== undefined };
    const whole = new Node(head.op, attributes, residual ? [...head.inputs, residual] : head.inputs, node.outputs);
    for (const part of tail) joined.set(part, whole.outputs[0]);
    return whole.outputs;
  };
  return rewrite(roots, join);
}

/** The only node that reads a value, if it is that op and makes no more of it than there is. */
function readerOf(y: Value, op: string, onlyReader: Site["onlyReader"]): Node | undefined {
  const reader = onlyReader(y);
  return reader?.op === op && `${reader.outputs[0].shape}` === `${y.shape}` ? reader : undefined;
}

/** Batch norm in training, or x [N, C, H, W] times a gate [N, C, 1, 1]. */
function headOf({ op, attributes, outputs: [y] }: Node, inputs: readonly Value[], gates: boolean) {
  if (op === "batch_norm_train") return { op, attributes, inputs };
  if (op !== "mul" || !gates || !isFloat(y.dtype) || y.shape.length !== 4) return undefined;
  const [n, c, h, w] = y.shape;
  const x = inputs.find(({ shape }) => `${shape}` === `${y.shape}`);
  const gate = inputs.find(({ shape }) => `${shape}` === `${[n, c, 1, 1]}`);
  return x && gate && h * w > 1 ? { op: "gate", attributes: {}, inputs: [x, gate] } : undefined;
}
