import { ArgumentError, expected } from "../../errors.js";
import type { Node } from "../../graph/value.js";
import { padWith, type Site, type Writer } from "./writer.js";

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

/** In ceil mode the padding behind the image depends on its size. */
function checkSize({ node, extents }: Site): void {
  if (
    node.attributes.ceilMode === true &&
    extents(node.inputs[0])
      .slice(2)
      .some((extent) => extent < 0)
  )
    throw new ArgumentError(expected("exportOnnx", "pools in floor mode where any size is taken", "one in ceil mode"));
}

export const maxPool2d: Writer = (site) => {
  checkSize(site);
  const { node, graph } = site;
  const [x] = site.inputs;
  const { kernelSize, stride, padding, after } = windowOf(node);
  const dilation = node.attributes.dilation as number[];
  const isDilated = dilation.some((step) => step !== 1);
  if (isDilated && graph.opset < 10)
    throw new ArgumentError(expected("exportOnnx", "operator set 10 or later for a dilated pool", `${graph.opset}`));
  const attributes = { kernel_shape: kernelSize, strides: stride, ...(graph.opset >= 10 && { dilations: dilation }) };
  // a dilated window may reach further over the edge than runtimes allow padding to
  if (after.every((width, i) => width < kernelSize[i]))
    return graph.add("MaxPool", [x], { ...attributes, pads: [...padding, ...after] });
  const padded = padWith(graph, x, padImages(padding, after), Number.NEGATIVE_INFINITY);
  return graph.add("MaxPool", [padded], attributes);
};

/** PyTorch counts the padding's zeros where asked to, but never what a ceil-mode window has beyond the padding. */
export const avgPool2d: Writer = (site) => {
  checkSize(site);
  const { node, graph } = site;
  const [x] = site.inputs;
  const { kernelSize, stride, padding, after } = windowOf(node);
  const attributes = { kernel_shape: kernelSize, strides: stride };
  const counted = node.attributes.countIncludePad === true && padding.some((width) => width > 0);
  if (!counted || after.every((width, i) => width === padding[i]))
    return graph.add("AveragePool", [x], {
      ...attributes,
      pads: [...padding, ...after],
      count_include_pad: Number(counted),
    });
  const padded = padWith(graph, x, padImages(padding, padding), 0);
  const beyond = after.map((width, i) => width - padding[i]);
  return graph.add("AveragePool", [padded], { ...attributes, pads: [0, 0, ...beyond], count_include_pad: 0 });
};
