import type { Node } from "../graph/value.js";
import type { Writer } from "./onnx_ops.js";

/*
 * ONNX's ceil_mode has changed its meaning over the versions, and runtimes differ. The extents are known here, so every
 * pool is written in floor mode, with as much padding at the end as its last window takes.
 */

interface Window {
  readonly kernelSize: readonly number[];
  readonly stride: readonly number[];
  readonly padding: readonly number[];
  /** Rows and columns of padding behind the image: what the last window reaches, and at least `padding`. */
  readonly after: readonly number[];
}

function windowOf({ attributes, inputs: [x], outputs: [y] }: Node): Window {
  const { kernelSize, stride, padding, dilation = [1, 1] } = attributes as Readonly<Record<string, readonly number[]>>;
  const after = padding.map((before, i) => {
    const reach = (y.shape[2 + i] - 1) * stride[i] + dilation[i] * (kernelSize[i] - 1) + 1;
    return Math.max(before, reach - x.shape[2 + i] - before);
  });
  return { kernelSize, stride, padding, after };
}

const padImages = (before: readonly number[], after: readonly number[]) => [0, 0, ...before, 0, 0, ...after];

export const maxPool2d: Writer = ({ node, inputs: [x], graph }) => {
  const { kernelSize, stride, padding, after } = windowOf(node);
  const attributes = { kernel_shape: kernelSize, strides: stride, dilations: node.attributes.dilation as number[] };
  // a dilated window may reach further over the edge than runtimes allow padding to
  if (after.every((width, i) => width < kernelSize[i]))
    return graph.add("MaxPool", [x], { ...attributes, pads: [...padding, ...after] });
  const nothing = graph.constant(`${graph.scope}.border`, Float32Array.of(Number.NEGATIVE_INFINITY), [], "float32");
  const padded = graph.add("Pad", [x, graph.integers(...padImages(padding, after)), nothing]);
  return graph.add("MaxPool", [padded], attributes);
};

/** PyTorch counts the padding's zeros where asked to, but never what a ceil-mode window has beyond the padding. */
export const avgPool2d: Writer = ({ node, inputs: [x], graph }) => {
  const { kernelSize, stride, padding, after } = windowOf(node);
  const attributes = { kernel_shape: kernelSize, strides: stride };
  const counted = node.attributes.countIncludePad === true && padding.some((width) => width > 0);
  if (!counted || after.every((width, i) => width === padding[i]))
    return graph.add("AveragePool", [x], {
      ...attributes,
      pads: [...padding, ...after],
      count_include_pad: Number(counted),
    });
  const padded = graph.add("Pad", [x, graph.integers(...padImages(padding, padding))]);
  const beyond = after.map((width, i) => width - padding[i]);
  return graph.add("AveragePool", [padded], { ...attributes, pads: [0, 0, ...beyond], count_include_pad: 0 });
};
