import { constantValue } from "../graph/value.js";
import { share } from "../lazy/flush.js";
import { Tensor } from "../tensor.js";

/** Float32 tensors [1, …] of one shape as one [N, …]. */
export async function stack(tensors: readonly Tensor[]): Promise<Tensor> {
  const [, ...shape] = tensors[0].shape;
  const parts = await Promise.all(tensors.map(({ value }) => share(value)));
  const size = parts[0].length;
  const values = new Float32Array(parts.length * size);
  for (const [i, part] of parts.entries()) values.set(part as Float32Array, i * size);
  return new Tensor(constantValue(values, Object.freeze([tensors.length, ...shape]), "float32"));
}
