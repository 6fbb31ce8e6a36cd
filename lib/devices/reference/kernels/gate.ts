import { sizeOf } from "../../../shape.js";
import { floats, type Kernel } from "./kernel.js";

/** x [N, C, H, W] times gate [N, C, 1, 1] (+ residual) (+ ReLU). Inputs: x, gate, residual?. */
export const gate: Kernel = ({ inputs: [x, by, residual], outputs: [y], attributes }, share) => {
  const [from, factors, out] = [floats(x), floats(by), floats(y)];
  const other = residual && floats(residual);
  const plane = sizeOf(x.shape.slice(2));
  const [first, last] = share(factors.length);
  for (let index = first; index < last; index++)
    for (let i = index * plane; i < (index + 1) * plane; i++) {
      const value = from[i] * factors[index] + (other ? other[i] : 0);
      out[i] = attributes.relu && value < 0 ? 0 : value;
    }
};

/**
 * Its gradients. Inputs: x, gate, dy and, with `relu`, what that made of the result; outputs: dx, that of the gate and,
 * with `residual`, what the ReLU lets through.
 */
export const gateGradient: Kernel = ({ inputs: [x, by, dy, activated], outputs: [dx, dgate, masked] }, share) => {
  const [from, factors, gradient, out] = [floats(x), floats(by), floats(dy), floats(dx)];
  const plane = sizeOf(x.shape.slice(2));
  const [first, last] = share(factors.length);
  for (let index = first; index < last; index++) {
    let sum = 0;
    for (let i = index * plane; i < (index + 1) * plane; i++) {
      const own = activated && floats(activated)[i] <= 0 ? 0 : gradient[i];
      if (masked) floats(masked)[i] = own;
      out[i] = own * factors[index];
      sum += own * from[i];
    }
    floats(dgate)[index] = sum;
  }
};
