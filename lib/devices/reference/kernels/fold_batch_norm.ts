import { floats, type Kernel } from "./kernel.js";

/**
 * Makes the weight and bias of a convolution that does what convolution and batch norm did: inputs weight [O, ...],
 * bias [O]?, mean [O], variance [O], gamma [O]?, beta [O]?; outputs weight and bias. One rounding, at the end.
 */
export const foldBatchNorm: Kernel = ({ inputs, outputs, attributes }, share) => {
  const eps = attributes.eps as number;
  const rest = inputs.slice(attributes.bias ? 2 : 1).map(floats);
  const [mean, variance, gamma, beta] = rest;
  const weight = floats(inputs[0]);
  const bias = attributes.bias ? floats(inputs[1]) : undefined;
  const outWeight = floats(outputs[0]);
  const outBias = floats(outputs[1]);
  const channels = inputs[0].shape[0];
  const fan = weight.length / channels;
  const [first, last] = share(channels);
  for (let channel = first; channel < last; channel++) {
    const scale = (attributes.affine ? gamma[channel] : 1) / Math.sqrt(variance[channel] + eps);
    for (let i = channel * fan; i < (channel + 1) * fan; i++) outWeight[i] = weight[i] * scale;
    const shift = attributes.affine ? beta[channel] : 0;
    outBias[channel] = ((bias ? bias[channel] : 0) - mean[channel]) * scale + shift;
  }
};
