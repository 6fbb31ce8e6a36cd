import { floats, type Kernel, type NumberArray, type Share, type View } from "./kernel.js";

const scalar = (view: View) => floats(view)[0];

/** Whether an update is to change nothing: its last input may say so. */
function stays(skip: View | undefined, state: readonly NumberArray[], results: readonly NumberArray[], share: Share) {
  if (!skip || scalar(skip) === 0) return false;
  const [first, last] = share(results[0].length);
  for (const [i, result] of results.entries()) result.set(state[i].subarray(first, last), first);
  return true;
}

/**
 * One step of SGD (PyTorch's): inputs parameter, gradient, velocity, lr, momentum, weightDecay and, where it may be
 * skipped, whether (0 is no); outputs the new parameter and velocity. `velocity = momentum * velocity + g`, with `g = gradient + weightDecay * parameter`.
 */
export const sgd: Kernel = ({ inputs, outputs, attributes }, share) => {
  const [parameter, gradient, velocity] = inputs.map(floats);
  const [lr, momentum, weightDecay] = inputs.slice(3).map(scalar);
  const [newParameter, newVelocity] = outputs.map(floats);
  if (stays(inputs[6], [parameter, velocity], [newParameter, newVelocity], share)) return;
  const [first, last] = share(parameter.length);
  for (let i = first; i < last; i++) {
    const g = gradient[i] + weightDecay * parameter[i];
    const v = momentum * velocity[i] + g;
    newVelocity[i] = v;
    newParameter[i] = parameter[i] - lr * (attributes.nesterov ? g + momentum * v : v);
  }
};

/**
 * One step of AdamW (Loshchilov & Hutter 2019, algorithm 2): inputs parameter, gradient, first and second moment, lr,
 * beta1, beta2, eps, weightDecay, step (from 1) and, where it may be skipped, whether; outputs the new parameter and moments.
 */
export const adamw: Kernel = ({ inputs, outputs }, share) => {
  const [parameter, gradient, first, second] = inputs.map(floats);
  const [lr, beta1, beta2, eps, weightDecay, step] = inputs.slice(4).map(scalar);
  const [newParameter, newFirst, newSecond] = outputs.map(floats);
  if (stays(inputs[10], [parameter, first, second], [newParameter, newFirst, newSecond], share)) return;
  const correction1 = 1 - beta1 ** step;
  const correction2 = Math.sqrt(1 - beta2 ** step);
  const [from, to] = share(parameter.length);
  for (let i = from; i < to; i++) {
    const g = gradient[i];
    const m = beta1 * first[i] + (1 - beta1) * g;
    const v = beta2 * second[i] + (1 - beta2) * g * g;
    newFirst[i] = m;
    newSecond[i] = v;
    const decayed = parameter[i] * (1 - lr * weightDecay);
    newParameter[i] = decayed - ((lr / correction1) * m) / (Math.sqrt(v) / correction2 + eps);
  }
};

/** 1 where an element of the inputs is not finite, else 0. */
export const foundInf: Kernel = ({ inputs, outputs: [y] }, share) => {
  const [first, last] = share(1);
  if (first < last) floats(y)[0] = inputs.every((x) => (floats(x) as Float32Array).every(Number.isFinite)) ? 0 : 1;
};

/** The Euclidean norm of all elements of the inputs. */
export const globalNorm: Kernel = ({ inputs, outputs: [y] }, share) => {
  const [first, last] = share(1);
  if (first >= last) return;
  let squares = 0;
  for (const x of inputs) for (const value of floats(x)) squares += value * value;
  floats(y)[0] = Math.sqrt(squares);
};

/** Each input times the last one, a scalar. */
export const scale: Kernel = ({ inputs, outputs }, share) => {
  const factor = scalar(inputs[inputs.length - 1]);
  for (const [i, y] of outputs.entries()) {
    const [from, to] = [floats(inputs[i]), floats(y)];
    const [first, last] = share(to.length);
    for (let k = first; k < last; k++) to[k] = from[k] * factor;
  }
};

/** Inputs: any number of tensors, as many others of their shapes and a weight; `x + weight * (other - x)` for each. */
export const lerp: Kernel = ({ inputs, outputs }, share) => {
  const weight = scalar(inputs[inputs.length - 1]);
  for (const [i, y] of outputs.entries()) {
    const [from, other, to] = [floats(inputs[i]), floats(inputs[outputs.length + i]), floats(y)];
    const [first, last] = share(to.length);
    for (let k = first; k < last; k++) to[k] = from[k] + weight * (other[k] - from[k]);
  }
};
