import { evaluate } from "../../compile/evaluate_constants.js";
import { snapshot } from "../../compile/snapshot.js";
import { byteSize, type HostArray } from "../../dtype.js";
import { ArgumentError, expected, listed, SeresnetError, shown, WeightsError } from "../../errors.js";
import { reason, writeFileAtomic } from "../../files.js";
import { findSetup } from "../../graph/passes/constants.js";
import { fold } from "../../graph/passes/fold.js";
import { type Node, placeholder, topological, type Value } from "../../graph/value.js";
import { checkNormalization, type Normalization, normalized } from "../../image/normalize.js";
import { share } from "../../lazy/flush.js";
import { inIsolation } from "../../lazy/recording.js";
import { Module } from "../../nn/module.js";
import { checkTensor } from "../../ops/record.js";
import { checkOptions, type OptionNames } from "../../options.js";
import { packageVersion } from "../../paths.js";
import { checkExtents, checkObject, sizeOf } from "../../shape.js";
import { Tensor } from "../../tensor.js";
import { batchExtents, type Extents } from "./batch.js";
import { OnnxGraph } from "./graph.js";
import { writers } from "./ops.js";
import { elementTypes, encodeModel, valueInfoProto } from "./schema.js";

export interface OnnxOptions {
  /** [N, C, H, W] of the input. N, and H and W, are only examples where the file takes any. */
  readonly inputShape: readonly number[];
  /** Batch norms become part of the convolutions before them, default true. */
  readonly folded?: boolean;
  /** The file takes any batch size, default true. */
  readonly dynamicBatch?: boolean;
  /**
   * The file takes images of any height and width, as networks that pool over the whole image can; "auto": where the model
   * does. Default false.
   */
  readonly dynamicSize?: boolean | "auto";
  /** Version of ONNX's operators, 9 to 21, default 17: what the runtime that is to read the file knows. */
  readonly opset?: number;
  /** Makes the input uint8 pixels, which the graph normalises first: `(pixel / 255 - mean) / std`. */
  readonly normalize?: Normalization;
  /** Entries of the file's metadata, such as labels. */
  readonly metadata?: Readonly<Record<string, string>>;
}

const onnxNames: OptionNames<OnnxOptions> = {
  inputShape: true,
  folded: true,
  dynamicBatch: true,
  dynamicSize: true,
  opset: true,
  normalize: true,
  metadata: true,
};

const where = "exportOnnx";

/** Protobuf's limit for one message. */
const mostBytes = 2 ** 31 - 1;

/** Batch sizes to record for, to see what follows them: far enough apart that every extent that does differs. */
const exampleBatches = [2, 61];

/** What is added to height and width to see what follows them: of networks that halve the image five times and more, each extent. */
const exampleGrowth = 192;

/** Operator sets that can be written, and the version of the file format that came with each. */
const irVersions: Readonly<Record<number, number>> = {
  9: 4,
  10: 5,
  11: 6,
  12: 7,
  13: 7,
  14: 7,
  15: 8,
  16: 8,
  17: 8,
  18: 8,
  19: 9,
  20: 9,
  21: 10,
};

/**
 * Writes a model, as it is in eval mode and with the weights it has now, as an ONNX file: one input `input`, one output
 * `output`. The write is atomic.
 *
 * @param path the file, usually `….onnx`
 * @throws ShapeError when the model does not take `inputShape`; ArgumentError for an op that ONNX, or the operator set,
 *   lacks, and for a model that depends on its batch size (or, where `dynamicSize` is set, on the image's); WeightsError above protobuf's 2 GiB and when the file cannot be written
 */
export async function exportOnnx(model: Module, path: string, options: OnnxOptions): Promise<void> {
  if (!(model instanceof Module)) throw new ArgumentError(expected(where, "a model (nn.Module)", shown(model)));
  if (typeof path !== "string" || path === "") throw new ArgumentError(expected(where, "a path", shown(path)));
  const {
    inputShape,
    folded = true,
    dynamicBatch = true,
    dynamicSize = false,
    opset = 17,
    normalize,
    metadata = {},
  } = checkOptions(where, options, onnxNames);
  checkExtents(where, "inputShape", inputShape);
  if (![true, false, "auto"].includes(dynamicSize))
    throw new ArgumentError(expected(where, 'dynamicSize to be true, false or "auto"', shown(dynamicSize)));
  if (typeof opset !== "number" || !Object.hasOwn(irVersions, opset))
    throw new ArgumentError(expected(where, "opset to be a whole number from 9 to 21", shown(opset)));
  if (normalize) checkNormalization(where, normalize);
  for (const [key, value] of Object.entries(checkObject(where, "metadata", metadata)))
    if (typeof value !== "string")
      throw new ArgumentError(expected(where, `metadata ${shown(key)} as a string`, shown(value)));
  const state = [...model.namedParameters(), ...model.namedBuffers()];
  checkSize(state.reduce((bytes, [, { shape, dtype }]) => bytes + sizeOf(shape) * byteSize(dtype), 0));

  const frozen = await snapshot(model);
  const record = (shape: readonly number[]): Recording => {
    const input = placeholder(shape, normalize ? "uint8" : "float32");
    const x = new Tensor(input);
    const output = inIsolation(() => model.forward(normalize ? normalized(where, x, normalize) : x), { frozen });
    checkTensor(where, output, "a model whose forward returns one tensor");
    return { input, root: folded ? fold([output.value])[0] : output.value };
  };
  record(inputShape); // a shape that the model does not take is the clearer complaint
  const names = new Map<Value, string>();
  for (const [name, { variable }] of state) {
    const value = frozen.get(variable);
    if (value && !names.has(value)) names.set(value, name);
  }
  const write = async (anySize: boolean) => {
    const { recording, extents } = anyShape(record, inputShape, dynamicBatch, anySize);
    return writeGraph(recording, extents, names, opset);
  };
  const graph = await write(dynamicSize !== false).catch((error: unknown) => {
    if (dynamicSize !== "auto" || !(error instanceof SeresnetError)) throw error;
    return write(false); // a model for images of one size
  });
  const bytes = encodeModel({
    irVersion: irVersions[opset],
    producerName: "seresnet",
    producerVersion: packageVersion(),
    graph: { name: model.constructor.name, ...graph },
    opsetImport: [{ domain: "", version: opset }],
    metadataProps: Object.entries(metadata).map(([key, value]) => ({ key, value })),
  });
  checkSize(bytes.length);
  try {
    await writeFileAtomic(path, [bytes]);
  } catch (error) {
    throw new WeightsError(expected(where, `to write ${path}`, reason(error)), { cause: error });
  }
}

interface Recording {
  readonly input: Value;
  readonly root: Value;
}

function checkSize(bytes: number): void {
  if (bytes > mostBytes)
    throw new WeightsError(expected(where, "a model of less than 2 GiB (protobuf's limit)", `${bytes} bytes`));
}

type Recorder = (shape: readonly number[]) => Recording;

/** A recording, and which of its extents follow the batch or the image: those that differ in another of another shape. */
function anyShape(
  record: Recorder,
  [batch, channels, ...sides]: readonly number[],
  anyBatch: boolean,
  anySize: boolean,
): { recording: Recording; extents: Extents } {
  const shape = (n: number, growth: number) => [
    anyBatch ? n : batch,
    ...(channels === undefined ? [] : [channels]),
    ...sides.map((side, i) => (anySize ? side + growth * (i + 1) : side)),
  ];
  if (!anyBatch && !anySize) return { recording: record(shape(batch, 0)), extents: ({ shape }) => shape };
  const [first, second] = exampleBatches.map((n, i) => {
    try {
      return record(shape(n, i * exampleGrowth));
    } catch (error) {
      // the model has taken one shape already: an error now is about the batch, or the size
      if (!(error instanceof SeresnetError)) throw error;
      const what = anySize
        ? "a model that takes images of any size (or dynamicSize: false)"
        : "a model that takes any batch size (or dynamicBatch: false)";
      throw new ArgumentError(expected(where, what, error.message), { cause: error });
    }
  });
  return { recording: first, extents: batchExtents(first.root, second.root, anySize) };
}

/** Turns a recorded graph into the parts of a GraphProto. `names` are those of the model's state. */
async function writeGraph(
  { input, root }: Recording,
  extents: Extents,
  names: ReadonlyMap<Value, string>,
  opset: number,
) {
  const { constants, computed } = findSetup(root, new Set([input]));
  const contents = new Map<Value, HostArray>();
  for (const value of constants) if (value.isLeaf) contents.set(value, await share(value));
  const results = computed.length > 0 ? await evaluate(computed) : [];
  for (const [i, value] of computed.entries()) contents.set(value, results[i]);

  const steps = topological([root], (value) => value === input || contents.has(value));
  const strange = [...new Set(steps.map(({ op }) => op).filter((op) => !Object.hasOwn(writers, op)))];
  if (strange.length > 0) throw new ArgumentError(expected(where, "ops that ONNX has", listed(strange)));

  const graph = new OnnxGraph(opset);
  const output = graph.unique("output");
  const written = new Map([[input, graph.unique("input")]]);
  const find = (value: Value): string => {
    const known = written.get(value);
    if (known !== undefined) return known;
    const name = graph.constant(
      stateName(value, names) ?? "constant",
      contents.get(value) as HostArray,
      value.shape,
      value.dtype,
    );
    written.set(value, name);
    return name;
  };
  for (const node of steps) {
    graph.scope = layerName(node, names);
    const name = writers[node.op]({ node, inputs: node.inputs.map(find), graph, extents });
    written.set(node.outputs[0], name);
  }
  const describe = (value: Value, name = find(value)) => {
    const named = (dim: number) => {
      if (value === input) return ["N", "C", "H", "W"][dim];
      return value.shape[dim] === input.shape[0] ? "N" : `${name}_${dim}`;
    };
    const shape = extents(value).map((extent, dim) => (extent >= 0 ? extent : named(dim)));
    return valueInfoProto(name, elementTypes[value.dtype], shape);
  };
  const valueInfo = steps.filter(({ outputs }) => outputs[0] !== root).map(({ outputs }) => describe(outputs[0]));
  graph.rename(find(root), output);
  return {
    node: graph.nodes,
    initializer: graph.initializers,
    input: [describe(input)],
    output: [describe(root, output)],
    valueInfo,
  };
}

/** The model's own name for a piece of its state, also where batch norm has been folded into it. */
function stateName({ node, index }: Value, names: ReadonlyMap<Value, string>): string | undefined {
  const known = names.get(node.outputs[index]);
  if (known !== undefined || node.op !== "fold_batch_norm") return known;
  const weight = names.get(node.inputs[0]);
  return index === 0 ? weight : weight?.replace(/weight$/, "bias");
}

/** The layer whose state a node reads (`layer1.0.conv1`), or its op. */
function layerName({ op, inputs }: Node, names: ReadonlyMap<Value, string>): string {
  for (const input of inputs) {
    const name = stateName(input, names);
    if (name !== undefined) return name.slice(0, Math.max(0, name.lastIndexOf("."))) || op;
  }
  return op;
}
