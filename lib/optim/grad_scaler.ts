import { ArgumentError, expected, WeightsError } from "../errors.js";
import { keep, submit } from "../lazy/flush.js";
import { filled, Variable } from "../lazy/variable.js";
import { checkOptions, type OptionNames } from "../options.js";
import { checkObject, integer, sizeOf } from "../shape.js";
import { Tensor, VariableTensor } from "../tensor.js";
import { overGradients, scaleGradients } from "./gradients.js";
import { inRange, type Optimizer, scalar } from "./optimizer.js";

export interface GradScalerOptions {
  /** What the first losses are multiplied by, default 65536. */
  readonly initScale?: number;
  /** What the scale is multiplied by after `growthInterval` steps without overflow, default 2. */
  readonly growthFactor?: number;
  /** What the scale is multiplied by after an overflow, default 0.5. */
  readonly backoffFactor?: number;
  /** Steps in a row without overflow, default 2000. */
  readonly growthInterval?: number;
}

const gradScalerNames: OptionNames<GradScalerOptions> = {
  initScale: true,
  growthFactor: true,
  backoffFactor: true,
  growthInterval: true,
};

/**
 * Dynamic loss scaling (Micikevicius et al. 2018, section 3.2; PyTorch's torch.amp.GradScaler): the loss is multiplied by a
 * scale so that small gradients do not vanish in float16, the gradients are divided by it, and a step whose gradients have
 * overflowed changes nothing but the scale. As in PyTorch, a step is
 *
 *     scaler.scale(loss).backward();
 *     scaler.step(optimizer);
 *     scaler.update();
 *
 * with `scaler.unscale(optimizer)` before `step` where gradients are looked at or clipped. Whether a step is skipped is
 * decided inside its plan, on the device; the scale's update runs with the next one.
 */
export class GradScaler {
  readonly growthFactor: number;
  readonly backoffFactor: number;
  readonly growthInterval: number;
  readonly #scale: VariableTensor;
  readonly #growthTracker: VariableTensor;
  /** For each optimiser since the last update: 1 where its gradients have overflowed, else 0. */
  readonly #found = new Map<Optimizer, Tensor>();

  /** Throws ArgumentError for a number out of its range. */
  constructor(options: GradScalerOptions = {}) {
    const where = "GradScaler";
    const {
      initScale = 65536,
      growthFactor = 2,
      backoffFactor = 0.5,
      growthInterval = 2000,
    } = checkOptions(where, options, gradScalerNames);
    inRange(where, "initScale", initScale, Number.MIN_VALUE);
    this.growthFactor = inRange(where, "growthFactor", growthFactor, 1);
    this.backoffFactor = inRange(where, "backoffFactor", backoffFactor, Number.MIN_VALUE, 1);
    this.growthInterval = integer(where, "growthInterval", growthInterval, 1);
    this.#scale = scalarState("scale", initScale);
    this.#growthTracker = scalarState("growth_tracker", 0);
  }

  /** The loss to call `backward` on. The one given is kept, as `backward` keeps a loss. */
  scale(loss: Tensor): Tensor {
    keep(loss.value);
    return loss.mul(this.#scale);
  }

  /**
   * Multiplies the gradients of an optimiser's parameters by 1 / scale. Called once a step, after `backward`; `step` calls it
   * where nobody has.
   * @throws ArgumentError when it was called before since the last update, or there are no gradients
   */
  unscale(optimizer: Optimizer): void {
    if (this.#found.has(optimizer))
      throw new ArgumentError(expected("unscale", "one call between two updates", "a second one"));
    const gradients = optimizer.gradients();
    if (gradients.length === 0)
      throw new ArgumentError(expected("unscale", "parameters with gradients (after backward)", "none"));
    const found = overGradients("found_inf", gradients);
    keep(found);
    this.#found.set(optimizer, new Tensor(found));
    scaleGradients(gradients, new Tensor(scalar(1)).div(this.#scale));
  }

  /**
   * `optimizer.step()` that does nothing where a gradient is not finite.
   * @returns a scalar, 1 when the step was skipped and 0 when not, that may be asked for after the step
   */
  step(optimizer: Optimizer): Tensor {
    if (!this.#found.has(optimizer)) this.unscale(optimizer);
    const skip = this.#found.get(optimizer) as Tensor;
    optimizer.step({ skip });
    return skip;
  }

  /**
   * Records the scale of the next step: times `backoffFactor` after an overflow, times `growthFactor` after
   * `growthInterval` steps in a row without one. It runs along with the next flush.
   * @throws ArgumentError when no step was made since the last update
   */
  update(): void {
    const [first, ...others] = this.#found.values();
    if (!first) throw new ArgumentError(expected("update", "a step since the last one", "none"));
    this.#found.clear();
    // all of these are 0 or 1, but for the count
    const fine = others.reduce((product, found) => product.mul(found.neg().add(1)), first.neg().add(1));
    const count = this.#growthTracker.add(1);
    const grows = count
      .sub(this.growthInterval - 1)
      .relu()
      .mul(fine);
    const growth = grows.mul(this.growthFactor - 1).add(1);
    const backoff = fine.mul(1 - this.backoffFactor).add(this.backoffFactor);
    this.#scale.variable.write(this.#scale.mul(growth).mul(backoff).value);
    this.#growthTracker.variable.write(count.mul(grows.neg().add(1)).mul(fine).value);
  }

  /** The scale of the next step. */
  getScale(): Promise<number> {
    return this.#scale.item();
  }

  /** `scale`, and `growth_tracker`: steps since the last overflow or growth. Live: reading one later sees later steps. */
  stateDict(): Record<string, Tensor> {
    return { scale: this.#scale, growth_tracker: this.#growthTracker };
  }

  /** Takes up what `stateDict` gave. Throws WeightsError for anything else, and changes nothing then. */
  loadStateDict(record: Readonly<Record<string, Tensor>>): void {
    const where = "GradScaler.loadStateDict";
    checkObject(where, "a record of tensors", record);
    const given = [record.scale, record.growth_tracker];
    if (!given.every((t) => t instanceof Tensor && t.dtype === "float32" && sizeOf(t.shape) === 1))
      throw new WeightsError(expected(where, "float32 scalars scale and growth_tracker", "something else"));
    const [scale, tracker] = given.map((t) => t.reshape([]).value);
    this.#scale.variable.write(scale);
    this.#growthTracker.variable.write(tracker);
    submit(); // before a step reads them: it has then the plan of all later steps
  }
}

function scalarState(name: string, value: number): VariableTensor {
  return new VariableTensor(new Variable([], "float32", () => filled("float32", 1, value), name));
}
