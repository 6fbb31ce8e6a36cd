import { ArgumentError, expected } from "../../../errors.js";
import { floats, type Kernel } from "./kernel.js";

/** Cross-entropy of logits [N, C] and class indices [N]; `labelSmoothing` s moves the share s of each target evenly to all classes. */
export const crossEntropy: Kernel = ({ inputs: [logits, targets], outputs: [y], attributes }, share) => {
  const smoothing = attributes.labelSmoothing as number;
  const [batch, classes] = logits.shape;
  const from = floats(logits);
  const out = floats(y);
  const [first, last] = share(1); // too little work to share, and the total has one order
  if (first === last) return;
  let total = 0;
  for (let n = 0; n < batch; n++) {
    const target = Number(targets.data[n]);
    if (target < 0 || target >= classes)
      throw new ArgumentError(
        expected("crossEntropy", `targets from 0 to ${classes - 1}`, `${target} at position ${n}`),
      );
    const row = from.subarray(n * classes, (n + 1) * classes);
    let largest = Number.NEGATIVE_INFINITY;
    for (const value of row) largest = Math.max(largest, value);
    let sum = 0;
    let shifted = 0;
    for (const value of row) {
      sum += Math.exp(value - largest);
      shifted += value - largest;
    }
    const logSum = Math.log(sum);
    const hit = logSum - (row[target] - largest);
    const loss = smoothing === 0 ? hit : (1 - smoothing) * hit + smoothing * (logSum - shifted / classes);
    total += loss;
    if (attributes.reduction === "none") out[n] = loss;
  }
  if (attributes.reduction === "sum") out[0] = total;
  if (attributes.reduction === "mean") out[0] = total / batch;
};
