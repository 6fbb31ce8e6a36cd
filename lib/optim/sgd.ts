import { ArgumentError, expected } from "../errors.js";
import { zerosLike } from "../graph/backward.js";
import { Node, type Value } from "../graph/value.js";
import type { Variable } from "../graph/variable.js";
import type { Tensor } from "../tensor.js";
import { inRange, Optimizer, scalar } from "./optimizer.js";

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

/** Stochastic gradient descent with momentum (Sutskever et al. 2013, PyTorch's form). */
export class SGD extends Optimizer {
  readonly momentum: number;
  readonly weightDecay: number;
  readonly nesterov: boolean;
  readonly #velocities = new Map<Variable, Variable>();
  #scalars: readonly Value[] = [];

  constructor(parameters: Iterable<Tensor>, options: SGDOptions = {}) {
    super("SGD", parameters, options.lr ?? 1e-3);
    this.momentum = inRange("SGD", "momentum", options.momentum ?? 0, 0);
    this.weightDecay = inRange("SGD", "weightDecay", options.weightDecay ?? 0, 0);
    this.nesterov = options.nesterov ?? false;
    if (this.nesterov && this.momentum === 0)
      throw new ArgumentError(expected("SGD", "momentum above 0 where nesterov is set", "0"));
  }

  protected override prepareStep(): void {
    this.#scalars = [this.lr, this.momentum, this.weightDecay].map(scalar);
  }

  protected override update(parameter: Variable, gradient: Value): void {
    const velocity = this.#velocities.get(parameter) ?? zerosLike(parameter, `${parameter.name}.velocity`);
    this.#velocities.set(parameter, velocity);
    const inputs = [parameter.read(), gradient, velocity.read(), ...this.#scalars];
    const { outputs } = new Node("sgd", { nesterov: this.nesterov }, inputs, [parameter, parameter]);
    parameter.write(outputs[0]);
    velocity.write(outputs[1]);
  }
}
