import { isRecordingWrites } from "../lazy/recording.js";
import type { Tensor } from "../tensor.js";
import { checkTensor, record } from "./record.js";

/**
 * Records a function whose intermediate results are not kept for the backward pass but computed again there, from its
 * inputs: less memory for more time (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"; PyTorch's
 * torch.utils.checkpoint). Every number stays what it was, and running statistics are tracked once.
 *
 * @param run what to compute. What it reads beside `inputs` should be parameters and buffers: of anything else it reads,
 *   the history is computed again, too.
 * @throws DtypeError when `run` returns no tensor
 */
export function checkpoint(run: (...inputs: Tensor[]) => Tensor, ...inputs: Tensor[]): Tensor {
  const y = run(...inputs);
  checkTensor("checkpoint", y, "a function that returns a tensor");
  if (!isRecordingWrites() || !y.value.node.differentiable) return y; // there will be no backward pass
  return record("checkpoint", {}, [y, ...inputs], y);
}
