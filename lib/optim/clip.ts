import { ArgumentError, expected } from "../errors.js";
import { keep } from "../lazy/flush.js";
import { Tensor, VariableTensor } from "../tensor.js";
import { overGradients, scaleGradients } from "./gradients.js";
import { inRange, scalar } from "./optimizer.js";

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
  const gradients = [...new Set(parameters)].flatMap(({ grad }) =>
    grad instanceof VariableTensor ? grad.variable : [],
  );
  if (gradients.length === 0)
    throw new ArgumentError(expected("clipGradNorm", "parameters with gradients (after backward)", "none"));
  const norm = new Tensor(overGradients("global_norm", gradients));
  // maxNorm / max(maxNorm, norm + 1e-6), where the smaller case gives exactly 1
  const excess = norm.add(1e-6 - maxNorm).relu();
  scaleGradients(gradients, new Tensor(scalar(maxNorm)).div(excess.add(maxNorm)));
  keep(norm.value);
  return norm;
}
