import type { Module } from "../nn/module.js";
import type { Parameter } from "../nn/parameter.js";
import type { ParameterGroup } from "./optimizer.js";

/**
 * The parameters of a model that want gradients, in two groups: `weightDecay` for kernels and matrices, none for the
 * scales and shifts of norms and for biases, whose decay regularises nothing (He et al. 2019, "Bag of Tricks", 3.1).
 */
export function withoutNormDecay(model: Module, weightDecay: number): ParameterGroup[] {
  const trained = model.parameters().filter(({ requiresGrad }) => requiresGrad);
  const isVector = ({ shape }: Parameter) => shape.length <= 1;
  const groups = [
    { params: trained.filter((parameter) => !isVector(parameter)), weightDecay },
    { params: trained.filter(isVector), weightDecay: 0 },
  ];
  return groups.filter(({ params }) => params.length > 0);
}
