import type { nn } from "seresnet";
import { placeholder, topological } from "#lib/graph/value.js";
import { inIsolation } from "#lib/lazy/recording.js";
import { Tensor } from "#lib/tensor.js";

/** Every convolution of a model, in order, with the shapes it meets. */
export function convolutionsOf(model: nn.Module, shape: readonly number[]) {
  const input = placeholder([...shape], "float32");
  const output = inIsolation(() => model.eval().forward(new Tensor(input)) as Tensor);
  return topological([output.value], (value) => value.isLeaf)
    .filter(({ op }) => op === "conv2d")
    .map(({ inputs, attributes }) => ({
      input: inputs[0].shape,
      weight: inputs[1].shape,
      stride: attributes.stride as number[],
      padding: attributes.padding as number[],
    }));
}
