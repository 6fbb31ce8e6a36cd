import { ArgumentError, expected } from "../errors.js";
import { Node, type Value } from "../graph/value.js";
import type { Variable } from "../lazy/variable.js";
import { checkOptions, type OptionNames } from "../options.js";
import { type Gate, inRange, type OptimizedParameters, Optimizer, type ParameterState, scalar } from "./optimizer.js";

export interface SGDOptions {
  /** Learning rate, default 1e-3. */
  readonly lr?: number;
  /** Default 0. */
  readonly momentum?: number;
  /** L2 penalty added to the gradient, default 0. */
  readonly weightDecay?: number;
  /** Nesterov's momentum, default false. */
  readonly nesterov?: boolean;
}

const sgdNames: OptionNames<SGDOptions> = { lr: true, momentum: true, weightDecay: true, nesterov: true };

/** Stochastic gradient descent with momentum (Sutskever et al. 2013, PyTorch's form). */
export class SGD extends Optimizer {
  readonly momentum: number;
  readonly weightDecay: number;
  readonly nesterov: boolean;

  constructor(parameters: OptimizedParameters, options: SGDOptions = {}) {
    const { lr = 1e-3, momentum = 0, weightDecay = 0, nesterov = false } = checkOptions("SGD", options, sgdNames);
    super("SGD", parameters, { lr, weightDecay, stateNames: ["momentum_buffer"] });
    this.momentum = inRange("SGD", "momentum", momentum, 0);
    this.weightDecay = weightDecay;
    this.nesterov = nesterov;
    if (this.nesterov && this.momentum === 0)
      throw new ArgumentError(expected("SGD", "momentum above 0 where nesterov is set", "0"));
  }

  protected override updater(lr: number, weightDecay: number, gate?: Gate) {
    const scalars = [...[lr, this.momentum, weightDecay].map(scalar), ...(gate ? [gate.skip] : [])];
    return (parameter: Variable, gradient: Value, { variables: { momentum_buffer } }: ParameterState) => {
      const inputs = [parameter.read(), gradient, momentum_buffer.read(), ...scalars];
      const { outputs } = new Node("sgd", { nesterov: this.nesterov }, inputs, [parameter, parameter]);
      parameter.write(outputs[0]);
      momentum_buffer.write(outputs[1]);
    };
  }
}
