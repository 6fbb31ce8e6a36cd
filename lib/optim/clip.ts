import { ArgumentError, expected } from "../errors.js";
import { keep } from "../graph/flush.js";
import { Tensor, VariableTensor } from "../tensor.js";
import { inRange } from "./optimizer.js";

/**
 * Scales the gradients of all parameters together so that their global L2 norm is at most `maxNorm` (Pascanu et al. 2013;
 * PyTorch's `clip_grad_norm_`: the scale is `maxNorm / (norm + 1e-6)` where that is below 1). Recorded: call it between
 * `backward` and `step`, and all three run as one plan.
 *
 * @returns the norm before the clipping, a scalar that may be asked for after the step
 * @throws ArgumentError when no parameter has a gradient, or `maxNorm` is negative or no number
 */
export function clipGradNorm(parameters: Iterable<Tensor>, maxNorm: number): Tensor {
  inRange("clipGradNorm", "maxNorm", maxNorm, 0);
  const gradients: VariableTensor[] = [];
  for (const parameter of new Set(parameters)) {
    const { grad } = parameter;
    if (grad instanceof VariableTensor) gradients.push(grad);
  }
  if (gradients.length === 0)
    throw new ArgumentError(expected("clipGradNorm", "parameters with gradients (after backward)", "none"));
  const norm = gradients
    .map((gradient) => new Tensor(gradient.value))
    .map((gradient) => gradient.mul(gradient).sum())
    .reduce((sum, square) => sum.add(square))
    .sqrt();
  // maxNorm / max(maxNorm, norm + 1e-6), of which the smaller case gives exactly 1
  const excess = norm.add(1e-6 - maxNorm).relu();
  const scale = excess.add(maxNorm).div(maxNorm === 0 ? 1 : maxNorm);
  for (const gradient of gradients)
    gradient.variable.write((maxNorm === 0 ? gradient.mul(0) : gradient.div(scale)).value);
  keep(norm.value);
  return norm;
}
