import { ArgumentError, expected } from "../errors.js";
import type { Tensor } from "../tensor.js";
import { add, type CrossEntropyOptions, crossEntropy, mul, pad, slice } from "./index.js";
import { checkTensor } from "./record.js";

/**
 * Every image mixed with the one before it in the batch (the first with the last), as torchvision's MixUp does:
 * `lambda * x + (1 - lambda) * roll(x, 1)` (Zhang et al. 2018, equation 1).
 *
 * @param x [N, ...], floats
 * @param lambda in [0, 1], usually drawn from Beta(alpha, alpha) for each batch
 */
export function mixup(x: Tensor, lambda: number): Tensor {
  checkTensor("mixup", x);
  checkLambda("mixup", lambda);
  return add(mul(x, lambda), mul(roll(x), 1 - lambda));
}

/**
 * The loss of images that `mixup` mixed: cross-entropy against the classes of both, in their shares.
 *
 * @param logits [N, C]
 * @param targets the classes before mixing, int32 or int64 [N]
 */
export function mixupCrossEntropy(
  logits: Tensor,
  targets: Tensor,
  lambda: number,
  options?: CrossEntropyOptions,
): Tensor {
  checkTensor("mixup", targets);
  checkLambda("mixup", lambda);
  const own = crossEntropy(logits, targets, options);
  return add(mul(own, lambda), mul(crossEntropy(logits, roll(targets), options), 1 - lambda));
}

/** Rows 0 … N-1 as N-1, 0 … N-2. */
function roll(x: Tensor): Tensor {
  const [n, ...rest] = x.shape;
  if (n === 1) return x;
  const zeros = rest.map(() => 0);
  const last = slice(x, { starts: [n - 1, ...zeros] });
  const others = slice(x, { ends: [n - 1, ...rest] });
  return add(pad(last, [0, ...zeros], [n - 1, ...zeros]), pad(others, [1, ...zeros], [0, ...zeros]));
}

function checkLambda(where: string, lambda: number): void {
  if (!(lambda >= 0 && lambda <= 1)) throw new ArgumentError(expected(where, "lambda in [0, 1]", String(lambda)));
}
