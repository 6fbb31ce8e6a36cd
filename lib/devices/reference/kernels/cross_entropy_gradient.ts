import { floats, type Kernel } from "./kernel.js";

/** softmax(logits) minus the (smoothed) target, times dL/dloss. Inputs: logits [N, C], targets [N], dy ([] or [N]). */
export const crossEntropyGradient: Kernel = ({ inputs: [logits, targets, dy], outputs: [dx], attributes }, share) => {
  const smoothing = attributes.labelSmoothing as number;
  const [batch, classes] = logits.shape;
  const [from, gradient, out] = [floats(logits), floats(dy), floats(dx)];
  const [first, last] = share(batch);
  for (let n = first; n < last; n++) {
    const row = from.subarray(n * classes, (n + 1) * classes);
    const scale =
      attributes.reduction === "none" ? gradient[n] : gradient[0] / (attributes.reduction === "mean" ? batch : 1);
    let largest = Number.NEGATIVE_INFINITY;
    for (const value of row) largest = Math.max(largest, value);
    let sum = 0;
    for (const value of row) sum += Math.exp(value - largest);
    const target = Number(targets.data[n]);
    for (let c = 0; c < classes; c++) {
      const wanted = smoothing / classes + (c === target ? 1 - smoothing : 0);
      out[n * classes + c] = scale * (Math.exp(row[c] - largest) / sum - wanted);
    }
  }
};
