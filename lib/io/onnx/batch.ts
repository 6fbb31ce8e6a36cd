import { ArgumentError, expected } from "../../errors.js";
import { type Node, topological, type Value } from "../../graph/value.js";

/** A value's extents; -1 where one follows the batch, or the image. */
export type Extents = (value: Value) => readonly number[];

/**
 * Finds what follows the input in a graph: the extents that differ between it and the same model's graph for an input of
 * another shape. Throws ArgumentError when anything but extents differs.
 */
export function batchExtents(root: Value, other: Value, anySize: boolean): Extents {
  const known = new Map<Value, readonly number[]>();
  const isLeaf = (value: Value) => value.isLeaf;
  const [order, otherOrder] = [topological([root], isLeaf), topological([other], isLeaf)];
  for (const [i, node] of order.entries()) {
    const twin: Node | undefined = otherOrder[i];
    if (!sameButExtents(node, twin)) depends(node.op, anySize);
    for (const [j, output] of node.outputs.entries()) {
      const { shape } = twin.outputs[j];
      known.set(
        output,
        output.shape.map((extent, dim) => (extent === shape[dim] ? extent : -1)),
      );
    }
  }
  return (value) => known.get(value) ?? value.shape;
}

function depends(op: string, anySize: boolean): never {
  const what = anySize
    ? "a model that is the same for every image (or dynamicSize: false)"
    : "a model that is the same for every batch size (or dynamicBatch: false)";
  throw new ArgumentError(expected("exportOnnx", what, `a ${op} that depends on it`));
}

function sameButExtents(node: Node, twin: Node | undefined): twin is Node {
  return (
    twin !== undefined &&
    node.op === twin.op &&
    JSON.stringify(node.attributes) === JSON.stringify(twin.attributes) &&
    node.inputs.length === twin.inputs.length &&
    node.inputs.every((input, i) => sameContents(input, twin.inputs[i])) &&
    node.outputs.every((output, i) => output.shape.length === twin.outputs[i].shape.length)
  );
}

/** Leaves must hold the same; what is computed is compared where it is computed. */
function sameContents(a: Value, b: Value): boolean {
  if (a.isLeaf !== b.isLeaf) return false;
  if (!a.isLeaf || a === b) return true;
  if (`${a.shape}` !== `${b.shape}` || a.version !== b.version) return false;
  const [x, y] = [a.kept, b.kept];
  return (
    x === y || (x !== undefined && y !== undefined && x.length === y.length && x.every((v, i) => Object.is(v, y[i])))
  );
}
