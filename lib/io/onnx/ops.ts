import { ArgumentError, expected } from "../../errors.js";
import type { ConvAttributes } from "../../ops/conv2d.js";
import type { OnnxGraph } from "./graph.js";
import { avgPool2d, maxPool2d } from "./pool.js";
import { elementTypes } from "./schema.js";
import { padWith, type Site, type Writer } from "./writer.js";

/** An op that ONNX has as it is. */
const same =
  (opType: string): Writer =>
  ({ inputs, graph }) =>
    graph.add(opType, inputs);

const numbers = (site: Site, name: string) => site.node.attributes[name] as readonly number[];

const floats = (site: Site, name: string, value: number, length: number) =>
  site.graph.constant(`${site.graph.scope}.${name}`, new Float32Array(length).fill(value), [length], "float32");

const conv2d: Writer = ({ node, inputs, graph }) => {
  const { stride, padding, dilation, groups } = node.attributes as ConvAttributes;
  return graph.add("Conv", inputs, {
    kernel_shape: node.inputs[1].shape.slice(2),
    strides: stride,
    pads: [...padding, ...padding],
    dilations: dilation,
    group: groups,
  });
};

const batchNorm: Writer = (site) => {
  const { node, inputs, graph } = site;
  const [x, mean, variance] = inputs;
  const channels = node.inputs[0].shape[1];
  const [gamma, beta] =
    inputs.length > 3 ? inputs.slice(3) : [floats(site, "weight", 1, channels), floats(site, "bias", 0, channels)];
  return graph.add("BatchNormalization", [x, gamma, beta, mean, variance], {
    epsilon: { float: node.attributes.eps as number },
  });
};

/** A batch norm without running statistics: ONNX has none that normalises with the batch's own, so it is spelled out. */
const batchNormTrain: Writer = (site) => {
  const { node, inputs, graph } = site;
  const [x, gamma, beta] = inputs;
  const { shape } = node.inputs[0];
  const axes = shape.flatMap((_, dim) => (dim === 1 ? [] : [dim]));
  const target = graph.integers(1, shape[1], ...shape.slice(2).map(() => 1));
  const channelwise = (vector: string) => graph.add("Reshape", [vector, target]);
  const centred = graph.add("Sub", [x, reduceMean(graph, x, axes, 1)]);
  const variance = reduceMean(graph, graph.add("Mul", [centred, centred]), axes, 1);
  const eps = floats(site, "eps", node.attributes.eps as number, 1);
  const y = graph.add("Div", [centred, graph.add("Sqrt", [graph.add("Add", [variance, eps])])]);
  return gamma ? graph.add("Add", [graph.add("Mul", [y, channelwise(gamma)]), channelwise(beta)]) : y;
};

/** A reduction's axes are an attribute in older operator sets and an input in newer ones. */
function reduceMean(graph: OnnxGraph, x: string, axes: readonly number[], keepdims: number): string {
  if (graph.opset < 18) return graph.add("ReduceMean", [x], { axes, keepdims });
  return graph.add("ReduceMean", [x, graph.integers(...axes)], { keepdims });
}

const linear: Writer = ({ node, inputs, graph }) => {
  const [x, weight, bias] = inputs;
  const isGemm = node.inputs[0].shape.length === 2 && (bias !== undefined || graph.opset >= 11);
  if (isGemm) return graph.add("Gemm", inputs, { transB: 1 });
  const product = graph.add("MatMul", [x, graph.add("Transpose", [weight], { perm: [1, 0] })]);
  return bias ? graph.add("Add", [product, bias]) : product;
};

const mean: Writer = (site) => {
  const { node, inputs, graph } = site;
  const axes = numbers(site, "dims");
  const keepdims = node.attributes.keepDims === true;
  // runtimes are faster at this than at the general case
  const global = node.inputs[0].shape.length === 4 && `${axes}` === "2,3";
  if (!global) return reduceMean(graph, inputs[0], axes, Number(keepdims));
  const pooled = graph.add("GlobalAveragePool", inputs);
  return keepdims ? pooled : graph.add("Flatten", [pooled], { axis: 1 });
};

const sum: Writer = (site) => {
  const { node, inputs, graph } = site;
  const axes = numbers(site, "dims");
  const keepdims = Number(node.attributes.keepDims);
  if (graph.opset < 13) return graph.add("ReduceSum", inputs, { axes, keepdims });
  return graph.add("ReduceSum", [...inputs, graph.integers(...axes)], { keepdims });
};

const reshape: Writer = ({ node, inputs, graph, extents }) => {
  const shape = extents(node.outputs[0]);
  if (shape.filter((extent) => extent < 0).length > 1)
    throw new ArgumentError(
      expected("exportOnnx", "at most one extent of a reshape to follow the batch or the image", "several"),
    );
  return graph.add("Reshape", [...inputs, graph.integers(...shape)]);
};

const pad: Writer = (site) => {
  const { inputs, graph } = site;
  return padWith(graph, inputs[0], [...numbers(site, "before"), ...numbers(site, "after")], 0);
};

/** As far as there is something: ONNX's way to say "to the end". */
const toTheEnd = 2n ** 63n - 1n;

const slice: Writer = (site) => {
  const { node, inputs, graph, extents } = site;
  const [starts, steps] = [numbers(site, "starts"), numbers(site, "steps")];
  const [from, to] = [node.inputs[0].shape, node.outputs[0].shape];
  const ends = extents(node.outputs[0]).map((extent, dim) => {
    if (extent >= 0) return starts[dim] + (extent - 1) * steps[dim] + 1;
    if (to[dim] !== Math.ceil((from[dim] - starts[dim]) / steps[dim]))
      throw new ArgumentError(
        expected("exportOnnx", "slices along what may differ to go to its end", "one that stops before"),
      );
    return toTheEnd;
  });
  if (graph.opset < 10) {
    if (steps.some((step) => step !== 1))
      throw new ArgumentError(
        expected("exportOnnx", "operator set 10 or later for slices with steps", `${graph.opset}`),
      );
    return graph.add("Slice", inputs, { starts, ends: ends.map(Number), axes: [...to.keys()] });
  }
  const operands = [starts, ends, [...to.keys()], steps].map((values) => graph.integers(...values));
  return graph.add("Slice", [...inputs, ...operands]);
};

const along =
  (opType: string): Writer =>
  ({ node, inputs, graph }) => {
    const axis = node.attributes.dim as number;
    // before 13 all dimensions from the axis on were taken together
    if (graph.opset < 13 && axis !== node.inputs[0].shape.length - 1)
      throw new ArgumentError(
        expected(
          "exportOnnx",
          `operator set 13 or later for ${opType} over another than the last dimension`,
          `${graph.opset}`,
        ),
      );
    return graph.add(opType, inputs, { axis });
  };

const cast: Writer = ({ node, inputs, graph }) =>
  graph.add("Cast", inputs, { to: elementTypes[node.outputs[0].dtype] });

const transpose: Writer = ({ node, inputs, graph }) => {
  const perm = [...node.inputs[0].shape.keys()];
  return graph.add("Transpose", inputs, { perm: [...perm.slice(0, -2), perm.length - 1, perm.length - 2] });
};

const alias: Writer = ({ inputs }) => inputs[0];

/** Table of contents: what each recorded op is in ONNX. */
export const writers: Readonly<Record<string, Writer>> = {
  add: same("Add"),
  avg_pool2d: avgPool2d,
  batch_norm: batchNorm,
  batch_norm_train: batchNormTrain,
  cast,
  conv2d,
  detach: alias,
  div: same("Div"),
  exp: same("Exp"),
  linear,
  log: same("Log"),
  log_softmax: along("LogSoftmax"),
  matmul: same("MatMul"),
  max_pool2d: maxPool2d,
  mean,
  mul: same("Mul"),
  neg: same("Neg"),
  pad,
  relu: same("Relu"),
  reshape,
  sigmoid: same("Sigmoid"),
  slice,
  softmax: along("Softmax"),
  sqrt: same("Sqrt"),
  sub: same("Sub"),
  sum,
  transpose,
  variable: alias,
};
