import { byteSize, type HostArray } from "../dtype.js";
import { ArgumentError, expected, listed, SeresnetError, shown, WeightsError } from "../errors.js";
import { share } from "../graph/flush.js";
import { fold } from "../graph/fold.js";
import { inIsolation } from "../graph/recording.js";
import { findSetup } from "../graph/setup.js";
import { type Node, placeholder, topological, type Value } from "../graph/value.js";
import { checkNormalization, type Normalization, normalized } from "../image/normalize.js";
import { Module } from "../nn/module.js";
import { snapshot } from "../nn/snapshot.js";
import { checkTensor } from "../ops/record.js";
import { checkOptions, type OptionNames } from "../options.js";
import { packageVersion } from "../paths.js";
import { evaluate } from "../plan/evaluate.js";
import { sizeOf } from "../plan/plan.js";
import { checkExtents, checkObject } from "../shape.js";
import { Tensor } from "../tensor.js";
import { reason, writeFileAtomic } from "./files.js";
import { batchExtents, type Extents } from "./onnx_batch.js";
import { OnnxGraph } from "./onnx_graph.js";
import { writers } from "./onnx_ops.js";
import { elementTypes, encodeModel, valueInfoProto } from "./onnx_schema.js";

export interface OnnxOptions {
  /** [N, C, H, W] of the input. N is only an example unless `dynamicBatch` is false; the other extents are fixed. */
  readonly inputShape: readonly number[];
  /** Batch norms become part of the convolutions before them, default true. */
  readonly folded?: boolean;
  /** The file takes any batch size, default true. */
  readonly dynamicBatch?: boolean;
  /** Makes the input uint8 pixels, which the graph normalises first: `(pixel / 255 - mean) / std`. */
  readonly normalize?: Normalization;
  /** Entries of the file's metadata, such as labels. */
  readonly metadata?: Readonly<Record<string, string>>;
}

const onnxNames: OptionNames<OnnxOptions> = {
  inputShape: true,
  folded: true,
  dynamicBatch: true,
  normalize: true,
  metadata: true,
};

const where = "exportOnnx";

/** Protobuf's limit for one message. */
const mostBytes = 2 ** 31 - 1;

/** Batch sizes to record for, to see what follows them: far enough apart that every extent that does differs. */
const exampleBatches = [2, 61];

/** ONNX operator set 17, and the version of the file format that came with it. */
const operatorSet = 17;
const irVersion = 8;

/**
 * Writes a model, as it is in eval mode and with the weights it has now, as an ONNX file: one input `input`, one output
 * `output`, operator set 17. The write is atomic.
 *
 * @param path the file, usually `….onnx`
 * @throws ShapeError when the model does not take `inputShape`; ArgumentError for an op that ONNX lacks, and for a model
 *   that depends on its batch size; WeightsError above protobuf's 2 GiB and when the file cannot be written
 */
export async function exportOnnx(model: Module, path: string, options: OnnxOptions): Promise<void> {
  if (!(model instanceof Module)) throw new ArgumentError(expected(where, "a model (nn.Module)", shown(model)));
  if (typeof path !== "string" || path === "") throw new ArgumentError(expected(where, "a path", shown(path)));
  const {
    inputShape,
    folded = true,
    dynamicBatch = true,
    normalize,
    metadata = {},
  } = checkOptions(where, options, onnxNames);
  checkExtents(where, "inputShape", inputShape);
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
  let recording = record(inputShape);
  let extents: Extents = ({ shape }) => shape;
  if (dynamicBatch) {
    const [first, second] = anyBatch(() => exampleBatches.map((n) => record([n, ...inputShape.slice(1)])));
    extents = batchExtents(first.root, second.root);
    recording = first;
  }

  const names = new Map<Value, string>();
  for (const [name, { variable }] of state) {
    const value = frozen.get(variable);
    if (value && !names.has(value)) names.set(value, name);
  }
  const graph = await writeGraph(recording, extents, names);
  const bytes = encodeModel({
    irVersion,
    producerName: "seresnet",
    producerVersion: packageVersion(),
    graph: { name: model.constructor.name, ...graph },
    opsetImport: [{ domain: "", version: operatorSet }],
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

/** The model has taken one batch size already: an error now is about the batch. */
function anyBatch<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof SeresnetError)) throw error;
    const what = "a model that takes any batch size (or dynamicBatch: false)";
    throw new ArgumentError(expected(where, what, error.message), { cause: error });
  }
}

/** Turns a recorded graph into the parts of a GraphProto. `names` are those of the model's state. */
async function writeGraph({ input, root }: Recording, extents: Extents, names: ReadonlyMap<Value, string>) {
  const { constants, computed } = findSetup(root, new Set([input]));
  const contents = new Map<Value, HostArray>();
  for (const value of constants) if (value.isLeaf) contents.set(value, await share(value));
  const results = computed.length > 0 ? await evaluate(computed) : [];
  for (const [i, value] of computed.entries()) contents.set(value, results[i]);

  const steps = topological([root], (value) => value === input || contents.has(value));
  const strange = [...new Set(steps.map(({ op }) => op).filter((op) => !Object.hasOwn(writers, op)))];
  if (strange.length > 0) throw new ArgumentError(expected(where, "ops that ONNX has", listed(strange)));

  const graph = new OnnxGraph();
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
    const named = (extent: number, dim: number) => (extent === input.shape[0] ? "N" : `${name}_${dim}`);
    const shape = extents(value).map((extent, dim) => (extent >= 0 ? extent : named(value.shape[dim], dim)));
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
