import { defineGradientOf } from "../passes/differentiate.js";
import { Node } from "../value.js";

// Nobody records a `gate`: in training plans it is squeeze-and-excitation's last product with its tail,
// x [N, C, H, W] * gate [N, C, 1, 1] (+ residual) (+ ReLU), so that its gradients are one pass over the images.
defineGradientOf("gate", ({ attributes: { residual, relu }, inputs: [x, gate] }, dy, y) => {
  const all = residual && relu;
  const inputs = [x, gate, dy, ...(relu ? [y] : [])];
  const [dx, dgate, masked = dy] = new Node("gate_gradient", { residual: all, relu }, inputs, [
    x,
    gate,
    ...(all ? [x] : []),
  ]).outputs;
  return [dx, dgate, ...(residual ? [masked] : [])];
});
