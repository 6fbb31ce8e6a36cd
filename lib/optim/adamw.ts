import { zerosLike } from "../graph/backward.js";
import { Node, type Value } from "../graph/value.js";
import type { Variable } from "../graph/variable.js";
import type { Tensor } from "../tensor.js";
import { inRange, Optimizer, scalar } from "./optimizer.js";

export interface AdamWOptions {
  /** Learning rate, default 1e-3. */
  readonly lr?: number;
  /** Decay of the two moments, default [0.9, 0.999]. */
  readonly betas?: readonly [number, number];
  /** Added to the root of the second moment, default 1e-8. */
  readonly eps?: number;
  /** Decoupled weight decay, default 0.01. */
  readonly weightDecay?: number;
}

interface State {
  readonly first: Variable;
  readonly second: Variable;
  steps: number;
}

/** Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2). */
export class AdamW extends Optimizer {
  readonly betas: readonly [number, number];
  readonly eps: number;
  readonly weightDecay: number;
  readonly #states = new Map<Variable, State>();

  constructor(parameters: Iterable<Tensor>, options: AdamWOptions = {}) {
    super("AdamW", parameters, options.lr ?? 1e-3);
    const [beta1, beta2] = options.betas ?? [0.9, 0.999];
    this.betas = [inRange("AdamW", "betas", beta1, 0, 1), inRange("AdamW", "betas", beta2, 0, 1)];
    this.eps = inRange("AdamW", "eps", options.eps ?? 1e-8, 0);
    this.weightDecay = inRange("AdamW", "weightDecay", options.weightDecay ?? 0.01, 0);
  }

  protected override update(parameter: Variable, gradient: Value): void {
    const { name } = parameter;
    const fresh = () => ({
      first: zerosLike(parameter, `${name}.first_moment`),
      second: zerosLike(parameter, `${name}.second_moment`),
      steps: 0,
    });
    const state: State = this.#states.get(parameter) ?? fresh();
    this.#states.set(parameter, state);
    state.steps++;
    const scalars = [this.lr, ...this.betas, this.eps, this.weightDecay, state.steps].map(scalar);
    const inputs = [parameter.read(), gradient, state.first.read(), state.second.read(), ...scalars];
    const { outputs } = new Node("adamw", {}, inputs, [parameter, parameter, parameter]);
    parameter.write(outputs[0]);
    state.first.write(outputs[1]);
    state.second.write(outputs[2]);
  }
}
