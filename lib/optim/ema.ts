import { isFloat } from "../dtype.js";
import { expected, listed, WeightsError } from "../errors.js";
import { Node } from "../graph/value.js";
import { zerosLike } from "../lazy/backward.js";
import { submit } from "../lazy/flush.js";
import type { Module } from "../nn/module.js";
import type { Buffer, Parameter } from "../nn/parameter.js";
import { checkOptions, type OptionNames } from "../options.js";
import { checkObject, integer, sameShape } from "../shape.js";
import { Tensor, tensor, VariableTensor } from "../tensor.js";
import { byDtype } from "./gradients.js";
import { inRange, type StepGate, stepNames } from "./optimizer.js";

export interface EMAOptions {
  /** Weight of the past, default 0.9999. */
  readonly decay?: number;
  /** Start with shorter averages: decay `min(decay, (1 + n) / (10 + n))` at update n, default false. */
  readonly warmup?: boolean;
}

const emaNames: OptionNames<EMAOptions> = { decay: true, warmup: true };

/**
 * An exponential moving average of a model's parameters and float buffers (Polyak & Juditsky 1992; timm's ModelEma):
 * `average = decay * average + (1 - decay) * value`. Integer buffers are copied.
 */
export class EMA {
  readonly decay: number;
  readonly warmup: boolean;
  readonly #pairs: readonly { name: string; own: Parameter | Buffer; average: VariableTensor }[];
  #updates = 0;

  /** Starts from the model's weights as they are now. Throws ArgumentError for a decay outside [0, 1). */
  constructor(model: Module, options: EMAOptions = {}) {
    const { decay = 0.9999, warmup = false } = checkOptions("EMA", options, emaNames);
    this.decay = inRange("EMA", "decay", decay, 0, 1);
    this.warmup = warmup;
    this.#pairs = Object.entries(model.stateDict()).map(([name, tensor]) => {
      const own = tensor as Parameter | Buffer;
      const average = new VariableTensor(zerosLike(own.variable, `${name}.average`));
      average.variable.write(own.value);
      return { name, own, average };
    });
    submit(); // before a step reads them: it has then the plan of all later steps
  }

  /**
   * Records one update. Call it after `optimizer.step()`: it runs along with the next flush.
   *
   * @param options `skip`: a scalar that may not be known yet, such as `GradScaler.step` gives. Unless it is 0, the averages
   *   stay as they are.
   */
  update(options: StepGate = {}): void {
    const { skip } = checkOptions("EMA.update", options, stepNames);
    const n = ++this.#updates;
    const decay = this.warmup ? Math.min(this.decay, (1 + n) / (10 + n)) : this.decay;
    const kept = skip && tensor(1).sub(skip);
    const weight = kept ? kept.mul(1 - decay) : tensor(1 - decay);
    const whole = this.#pairs.filter(({ own }) => !isFloat(own.dtype));
    for (const { own, average } of whole) {
      const next = kept ? average.add(own.sub(average).mul(kept.cast(own.dtype))) : own;
      average.variable.write(next.value);
    }
    for (const same of byDtype(
      this.#pairs.filter(({ own }) => isFloat(own.dtype)),
      ({ own }) => own.dtype,
    )) {
      const inputs = [...same.map(({ average }) => average), ...same.map(({ own }) => own), weight];
      const { outputs } = new Node(
        "lerp",
        {},
        inputs.map(({ value }) => value),
        same.map(({ own }) => own),
      );
      for (const [i, { average }] of same.entries()) average.variable.write(outputs[i]);
    }
  }

  /** Exchanges the model's weights and the averages: once to use the averages, and once more to train on. */
  swap(): void {
    for (const { own, average } of this.#pairs) {
      const [mine, averaged] = [own.value, average.value];
      own.variable.write(averaged);
      average.variable.write(mine);
    }
    submit();
  }

  /** The averages under the model's names, live: what to save as the weights to use. */
  stateDict(): Record<string, Tensor> {
    return Object.fromEntries(this.#pairs.map(({ name, average }) => [name, average]));
  }

  /** How many updates there were. */
  get updates(): number {
    return this.#updates;
  }

  /**
   * Takes up averages and the count of updates they come from.
   * @throws WeightsError when a name is missing or unexpected or a shape or dtype differs; then nothing is changed
   */
  loadStateDict(record: Readonly<Record<string, Tensor>>, updates: number): void {
    checkObject("EMA.loadStateDict", "a record of tensors", record);
    const names = new Set(this.#pairs.map(({ name }) => name));
    const unexpected = Object.keys(record).filter((name) => !names.has(name));
    const wrong = this.#pairs.filter(({ name, own }) => {
      const given = record[name];
      return !(given instanceof Tensor) || given.dtype !== own.dtype || !sameShape(given.shape, own.shape);
    });
    if (unexpected.length > 0 || wrong.length > 0) {
      const got = [...wrong.map(({ name }) => `another ${name}`), ...unexpected.map((name) => `also ${name}`)];
      throw new WeightsError(expected("EMA.loadStateDict", "the averages of this model", listed(got)));
    }
    this.#updates = integer("EMA.loadStateDict", "updates", updates, 0);
    for (const { name, average } of this.#pairs) average.variable.write(record[name].value);
    submit();
  }
}
