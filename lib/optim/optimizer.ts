import { isFloat } from "../dtype.js";
import { ArgumentError, expected } from "../errors.js";
import { zeroGradient } from "../graph/backward.js";
import { submit } from "../graph/flush.js";
import { constantValue, type Value } from "../graph/value.js";
import type { Variable } from "../graph/variable.js";
import { type Tensor, VariableTensor } from "../tensor.js";

/** Updates parameters from their gradients. */
export abstract class Optimizer {
  readonly #variables: readonly Variable[];
  #lr: number;

  /** @throws ArgumentError when there are no parameters, one is no parameter, or a number is out of its range */
  constructor(where: string, parameters: Iterable<Tensor>, lr: number) {
    this.#variables = [...new Set(parameters)].map((parameter) => {
      if (!(parameter instanceof VariableTensor) || !parameter.requiresGrad || !isFloat(parameter.dtype))
        throw new ArgumentError(expected(where, "parameters that want gradients", "a tensor that does not"));
      return parameter.variable;
    });
    if (this.#variables.length === 0) throw new ArgumentError(expected(where, "at least one parameter", "none"));
    this.#lr = inRange(where, "lr", lr, 0);
  }

  /** The learning rate of the next step. Changing it never makes a new plan. */
  get lr(): number {
    return this.#lr;
  }

  set lr(lr: number) {
    this.#lr = inRange("optimizer", "lr", lr, 0);
  }

  /**
   * Records the update of every parameter that has a gradient and submits it, with the backward and forward passes it
   * needs, without waiting. The loss is kept: `await loss.item()` afterwards costs nothing more.
   */
  step(): void {
    this.prepareStep();
    for (const variable of this.#variables) if (variable.gradient) this.update(variable, variable.gradient.read());
    submit();
  }

  /** Forgets all gradients. */
  zeroGrad(): void {
    for (const variable of this.#variables) zeroGradient(variable);
  }

  /** Called once a step, before the updates. */
  protected prepareStep(): void {}

  /** Records the update of one parameter. */
  protected abstract update(parameter: Variable, gradient: Value): void;
}

/** A number as an input of the plan, so that schedules never make a new one. */
export function scalar(value: number): Value {
  return constantValue(Float32Array.of(value), [], "float32");
}

/** A finite number of at least `least` and, where `below` is given, below it. Throws ArgumentError otherwise. */
export function inRange(where: string, name: string, value: number, least: number, below = Number.POSITIVE_INFINITY) {
  if (!(value >= least && value < below))
    throw new ArgumentError(
      expected(where, `${name} from ${least}${Number.isFinite(below) ? ` to below ${below}` : " up"}`, String(value)),
    );
  return value;
}
