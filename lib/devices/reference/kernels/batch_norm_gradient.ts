import { sizeOf } from "../../../shape.js";
import { floats, type Kernel } from "./kernel.js";

/**
 * Gradients of batch norm (Ioffe & Szegedy 2015, section 3). Inputs: x, mean, variance, dy, gamma?; outputs: dx, dgamma,
 * dbeta. With `training` the statistics came from x itself and pass gradients on; otherwise they are constants. With `relu`
 * the last input is what a ReLU made of the result, and dy the gradient behind it; with `residual` what it lets through is the
 * last output.
 */
export const batchNormGradient: Kernel = ({ inputs, outputs, attributes }, share) => {
  const [x, mean, variance, dy] = inputs;
  const gamma = inputs.length === (attributes.relu ? 6 : 5) ? inputs[4] : undefined;
  const activated = attributes.relu ? floats(inputs[inputs.length - 1]) : undefined;
  const [dx, dgamma, dbeta, masked] = outputs;
  const [batch, channels] = x.shape;
  const plane = sizeOf(x.shape.slice(2));
  const count = batch * plane;
  const [from, gradient, out] = [floats(x), floats(dy), floats(dx)];
  const [first, last] = share(channels);
  for (let channel = first; channel < last; channel++) {
    const center = floats(mean)[channel];
    const inverse = 1 / Math.sqrt(floats(variance)[channel] + (attributes.eps as number));
    const scale = (gamma ? floats(gamma)[channel] : 1) * inverse;
    let sum = 0;
    let product = 0;
    for (let n = 0; n < batch; n++) {
      const start = (n * channels + channel) * plane;
      for (let i = start; i < start + plane; i++) {
        if (activated && activated[i] <= 0) continue; // NaN lets through, as in PyTorch
        sum += gradient[i];
        product += gradient[i] * (from[i] - center) * inverse;
      }
    }
    const meanPart = attributes.training ? sum / count : 0;
    const variancePart = attributes.training ? (product / count) * inverse : 0;
    for (let n = 0; n < batch; n++) {
      const start = (n * channels + channel) * plane;
      for (let i = start; i < start + plane; i++) {
        const own = activated && activated[i] <= 0 ? 0 : gradient[i];
        if (masked) floats(masked)[i] = own;
        out[i] = scale * (own - meanPart - (from[i] - center) * variancePart);
      }
    }
    floats(dgamma)[channel] = product;
    floats(dbeta)[channel] = sum;
  }
};
