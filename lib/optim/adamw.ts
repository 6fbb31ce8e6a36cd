import { Node, op, type Value } from "../graph/value.js";
import type { Variable } from "../lazy/variable.js";
import { checkOptions, type OptionNames } from "../options.js";
import { type Gate, inRange, type OptimizedParameters, Optimizer, type ParameterState, scalar } from "./optimizer.js";

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

const adamwNames: OptionNames<AdamWOptions> = { lr: true, betas: true, eps: true, weightDecay: true };

/** Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2). */
export class AdamW extends Optimizer {
  readonly betas: readonly [number, number];
  readonly eps: number;
  readonly weightDecay: number;

  constructor(parameters: OptimizedParameters, options: AdamWOptions = {}) {
    const {
      lr = 1e-3,
      betas = [0.9, 0.999],
      eps = 1e-8,
      weightDecay = 0.01,
    } = checkOptions("AdamW", options, adamwNames);
    super("AdamW", parameters, { lr, weightDecay, stateNames: ["exp_avg", "exp_avg_sq"] });
    const [beta1, beta2] = betas;
    this.betas = [inRange("AdamW", "betas", beta1, 0, 1), inRange("AdamW", "betas", beta2, 0, 1)];
    this.eps = inRange("AdamW", "eps", eps, 0);
    this.weightDecay = weightDecay;
  }

  protected override updater(lr: number, weightDecay: number, gate?: Gate) {
    const scalars = [lr, ...this.betas, this.eps, weightDecay].map(scalar);
    // the counts of parameters that have stepped together are one input
    const counts = new Map<number, Value>();
    return (parameter: Variable, gradient: Value, { variables: { exp_avg, exp_avg_sq }, steps }: ParameterState) => {
      const all = scalar(steps);
      const count = counts.get(steps) ?? (gate ? op("sub", {}, [all, gate.skipped], all) : all);
      counts.set(steps, count);
      const inputs = [parameter.read(), gradient, exp_avg.read(), exp_avg_sq.read(), ...scalars, count];
      if (gate) inputs.push(gate.skip);
      const { outputs } = new Node("adamw", {}, inputs, [parameter, parameter, parameter]);
      parameter.write(outputs[0]);
      exp_avg.write(outputs[1]);
      exp_avg_sq.write(outputs[2]);
    };
  }
}
