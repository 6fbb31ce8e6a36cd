import { sizeOf } from "../../../shape.js";
import { floats, type Kernel } from "./kernel.js";

/** Normalises every channel with given statistics: x [N, C, ...], mean [C], variance [C], gamma [C]?, beta [C]?. */
export const batchNorm: Kernel = ({ inputs: [x, mean, variance, gamma, beta], outputs: [y], attributes }, share) => {
  const eps = attributes.eps as number;
  const channels = x.shape[1];
  const plane = sizeOf(x.shape.slice(2));
  const from = floats(x);
  const out = floats(y);
  const [first, last] = share(x.shape[0] * channels);
  for (let index = first; index < last; index++) {
    const channel = index % channels;
    const center = floats(mean)[channel];
    const scale = (gamma ? floats(gamma)[channel] : 1) / Math.sqrt(floats(variance)[channel] + eps);
    const shift = beta ? floats(beta)[channel] : 0;
    for (let i = index * plane; i < (index + 1) * plane; i++) out[i] = (from[i] - center) * scale + shift;
  }
};

/**
 * Normalises every channel with its own statistics: x [N, C, ...], gamma [C]?, beta [C]?, residual? give y (+ residual) (+ ReLU), the
 * batch mean [C] and the biased batch variance [C]. Two passes, so that the variance of large values near each other is right.
 */
export const batchNormTrain: Kernel = ({ inputs: [x, ...more], outputs: [y, mean, variance], attributes }, share) => {
  const [gamma, beta] = more.length > 1 ? more : [];
  const residual = attributes.residual ? floats(more[more.length - 1]) : undefined;
  const eps = attributes.eps as number;
  const [batch, channels] = x.shape;
  const plane = sizeOf(x.shape.slice(2));
  const from = floats(x);
  const out = floats(y);
  const [first, last] = share(channels);
  for (let channel = first; channel < last; channel++) {
    let sum = 0;
    for (let n = 0; n < batch; n++) {
      const start = (n * channels + channel) * plane;
      for (let i = start; i < start + plane; i++) sum += from[i];
    }
    const center = sum / (batch * plane);
    let squares = 0;
    for (let n = 0; n < batch; n++) {
      const start = (n * channels + channel) * plane;
      for (let i = start; i < start + plane; i++) squares += (from[i] - center) ** 2;
    }
    const spread = squares / (batch * plane);
    const scale = (gamma ? floats(gamma)[channel] : 1) / Math.sqrt(spread + eps);
    const shift = beta ? floats(beta)[channel] : 0;
    for (let n = 0; n < batch; n++) {
      const start = (n * channels + channel) * plane;
      for (let i = start; i < start + plane; i++) {
        const value = (from[i] - center) * scale + shift + (residual ? residual[i] : 0);
        out[i] = attributes.relu && value < 0 ? 0 : value;
      }
    }
    floats(mean)[channel] = center;
    floats(variance)[channel] = spread;
  }
};

/**
 * Running mean and variance [C] after a batch: inputs they, the batch's mean and biased variance [C] and the momentum;
 * `running = (1 - momentum) * running + momentum * batch`, with the unbiased variance of `count` values.
 */
export const runningStatistics: Kernel = ({ inputs, outputs, attributes }, share) => {
  const [mean, variance, batchMean, batchVariance, momentum] = inputs.map(floats);
  const [newMean, newVariance] = outputs.map(floats);
  const count = attributes.count as number;
  const [first, last] = share(newMean.length);
  for (let c = first; c < last; c++) {
    newMean[c] = (1 - momentum[0]) * mean[c] + momentum[0] * batchMean[c];
    newVariance[c] = (1 - momentum[0]) * variance[c] + momentum[0] * batchVariance[c] * (count / (count - 1));
  }
};
