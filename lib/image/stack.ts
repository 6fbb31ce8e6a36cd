import { type Tensor, tensor } from "../tensor.js";

/** Float32 tensors [1, …] of one shape as one [N, …]. */
export async function stack(tensors: readonly Tensor[]): Promise<Tensor> {
  const [, ...shape] = tensors[0].shape;
  const size = shape.reduce((product, extent) => product * extent, 1);
  const values = new Float32Array(tensors.length * size);
  for (const [i, item] of tensors.entries()) values.set((await item.data()) as Float32Array, i * size);
  return tensor(values, [tensors.length, ...shape]);
}
