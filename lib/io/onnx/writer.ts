import type { Node } from "../../graph/value.js";
import type { Extents } from "./batch.js";
import type { OnnxGraph } from "./graph.js";

/** A recorded node on its way into an ONNX graph. */
export interface Site {
  readonly node: Node;
  /** Names of its inputs there. */
  readonly inputs: readonly string[];
  readonly graph: OnnxGraph;
  readonly extents: Extents;
}

/** Adds what an op is in ONNX, in the graph's operator set, and returns the name of its (first) output. */
export type Writer = (site: Site) => string;

/** Pads with a number; what is an input in newer operator sets is an attribute before 11. */
export function padWith(graph: OnnxGraph, x: string, pads: readonly number[], value: number): string {
  if (graph.opset < 11) return graph.add("Pad", [x], { pads, value: { float: value } });
  const border = value === 0 ? [] : [graph.constant(`${graph.scope}.border`, Float32Array.of(value), [], "float32")];
  return graph.add("Pad", [x, graph.integers(...pads), ...border]);
}
