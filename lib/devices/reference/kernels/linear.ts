import { floats, type Kernel } from "./kernel.js";

/** y [..., O] = x [..., I] · weight [O, I]ᵀ + bias [O]?. */
export const linear: Kernel = ({ inputs: [x, weight, bias], outputs: [y] }, share) => {
  const [features, depth] = weight.shape;
  const from = floats(x);
  const matrix = floats(weight);
  const out = floats(y);
  const [first, last] = share(out.length);
  for (let index = first; index < last; index++) {
    const feature = index % features;
    const row = ((index - feature) / features) * depth;
    const column = feature * depth;
    let sum = 0;
    for (let k = 0; k < depth; k++) sum += from[row + k] * matrix[column + k];
    out[index] = sum + (bias ? floats(bias)[feature] : 0);
  }
};
