import { ArgumentError, expected, shown } from "../errors.js";
import { type Node, placeholder, topological, type Value } from "../graph/value.js";
import { inIsolation } from "../lazy/recording.js";
import type { Variable } from "../lazy/variable.js";
import { Module } from "../nn/module.js";
import { checkTensor } from "../ops/record.js";
import { checkExtents, formatShape, sizeOf } from "../shape.js";
import { Tensor } from "../tensor.js";

/** One recorded operation of a network. */
export interface LayerSummary {
  /** The module that owns its parameters (`layer1.0.conv1`), or "" for an operation without any. */
  readonly name: string;
  readonly op: string;
  readonly outputShape: readonly number[];
  readonly parameters: number;
  /** Multiply-adds of convolutions and matrix products; 0 for what the field does not count. */
  readonly macs: number;
}

export class Summary {
  constructor(
    /** Trained numbers, each counted once. */
    readonly parameters: number,
    /** Multiply-adds for the whole input, batch included. */
    readonly macs: number,
    readonly layers: readonly LayerSummary[],
  ) {}

  /** The table for people. */
  toString(): string {
    const rows = this.layers.map(({ name, op, outputShape, parameters, macs }) => [
      name || op,
      op,
      formatShape(outputShape),
      parameters.toLocaleString("en"),
      macs.toLocaleString("en"),
    ]);
    const table = [["layer", "operation", "output", "parameters", "multiply-adds"], ...rows];
    const widths = table[0].map((_, column) => Math.max(...table.map((row) => row[column].length)));
    const line = (row: readonly string[]) =>
      row
        .map((cell, i) => (i < 3 ? cell.padEnd(widths[i]) : cell.padStart(widths[i])))
        .join("  ")
        .trimEnd();
    const total = `${(this.parameters / 1e6).toFixed(3)} M parameters, ${(this.macs / 1e9).toFixed(3)} G multiply-adds`;
    return [...table.map(line), total].join("\n");
  }
}

/**
 * Parameters and multiply-adds of a model, by layer, in eval mode. Computes nothing.
 *
 * @param inputShape [N, C, H, W]
 * @throws ShapeError when the model does not take the shape
 */
export function summary(model: Module, inputShape: readonly number[]): Summary {
  if (!(model instanceof Module)) throw new ArgumentError(expected("summary", "a model (nn.Module)", shown(model)));
  checkExtents("summary", "an input shape", inputShape);
  const owners = new Map<Value, { name: string; size: number; trained: boolean }>();
  const frozen = new Map<Variable, Value>();
  const trained = new Set<unknown>(model.parameters());
  for (const [name, state] of [...model.namedParameters(), ...model.namedBuffers()]) {
    const leaf = placeholder(state.shape, state.dtype);
    frozen.set(state.variable, leaf);
    owners.set(leaf, {
      name: name.slice(0, name.lastIndexOf(".")),
      size: sizeOf(state.shape),
      trained: trained.has(state),
    });
  }
  const output = inIsolation(() => model.forward(new Tensor(placeholder(inputShape, "float32"))), { frozen });
  checkTensor("summary", output, "a model whose forward returns one tensor");
  const layers = topological([output.value], (value) => value.isLeaf)
    .filter(({ op, inputs }) => inputs.length > 0 && op !== "reshape")
    .map((node): LayerSummary => {
      const states = node.inputs.flatMap((input) => owners.get(input) ?? []);
      const parameters = states.reduce((sum, state) => sum + (state.trained ? state.size : 0), 0);
      const { op, outputs } = node;
      return { name: states[0]?.name ?? "", op, outputShape: outputs[0].shape, parameters, macs: macsOf(node) };
    });
  const parameters = model.parameters().reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  return new Summary(
    parameters,
    layers.reduce((sum, { macs }) => sum + macs, 0),
    layers,
  );
}

function macsOf({ op, inputs, outputs }: Node): number {
  const size = sizeOf(outputs[0].shape);
  if (op === "conv2d" || op === "linear") return size * sizeOf(inputs[1].shape.slice(1));
  if (op === "matmul") return size * inputs[0].shape[inputs[0].shape.length - 1];
  return 0;
}
