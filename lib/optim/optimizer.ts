import { isFloat } from "../dtype.js";
import { ArgumentError, expected, listed, shown, WeightsError } from "../errors.js";
import { constantValue, op, type Value } from "../graph/value.js";
import { zeroGradient, zerosLike } from "../lazy/backward.js";
import { submit } from "../lazy/flush.js";
import { filled, Variable } from "../lazy/variable.js";
import { checkOptions, type OptionNames } from "../options.js";
import { checkObject, formatShape, sameShape, sizeOf } from "../shape.js";
import { Tensor, tensor, VariableTensor } from "../tensor.js";

/** Parameters with settings of their own. */
export interface ParameterGroup {
  readonly params: Iterable<Tensor>;
  /** In place of the optimiser's weight decay. */
  readonly weightDecay?: number;
  /** Times the optimiser's learning rate, default 1. */
  readonly lrScale?: number;
}

const groupNames: OptionNames<ParameterGroup> = { params: true, weightDecay: true, lrScale: true };

export interface StepGate {
  /** A scalar that may not be known yet: unless it is 0, nothing changes. */
  readonly skip?: Tensor;
}

export const stepNames: OptionNames<StepGate> = { skip: true };

/** What an optimiser updates: parameters, or groups of them (PyTorch's parameter groups). */
export type OptimizedParameters = Iterable<Tensor> | Iterable<ParameterGroup>;

interface Group {
  readonly parameters: readonly Variable[];
  readonly weightDecay: number;
  readonly lrScale: number;
}

/** What an optimiser keeps of one parameter between steps. */
export interface ParameterState {
  readonly variables: Readonly<Record<string, Variable>>;
  steps: number;
}

/** What keeps a step from changing anything, unless it is 0, and how many were kept so before. Both are scalars. */
export interface Gate {
  readonly skip: Value;
  readonly skipped: Value;
}

/** Updates parameters from their gradients. */
export abstract class Optimizer {
  readonly #where: string;
  readonly #groups: readonly Group[];
  readonly #stateNames: readonly string[];
  readonly #states = new Map<Variable, ParameterState>();
  #lr: number;
  /** How many of the steps of all states were skipped, once there may have been one. */
  #skipped?: Variable;

  /**
   * @param stateNames what is kept of every parameter, each of its shape and zero at first
   * @throws ArgumentError when there are no parameters, one is no parameter or in two groups, or a number is out of its range
   */
  constructor(
    where: string,
    parameters: OptimizedParameters,
    { lr, weightDecay, stateNames }: { lr: number; weightDecay: number; stateNames: readonly string[] },
  ) {
    this.#where = where;
    this.#stateNames = stateNames;
    this.#lr = inRange(where, "lr", lr, 0);
    inRange(where, "weightDecay", weightDecay, 0);
    this.#groups = groupsOf(where, parameters, weightDecay);
    const all = this.#groups.flatMap((group) => group.parameters);
    if (all.length === 0) throw new ArgumentError(expected(where, "at least one parameter", "none"));
    if (new Set(all).size !== all.length)
      throw new ArgumentError(expected(where, "every parameter in one group", "one that is in two"));
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
   *
   * @param options `skip`: a scalar that may not be known yet. Unless it is 0, parameters and state stay as they are, and
   *   the step does not count; `GradScaler` says so where gradients have overflowed.
   */
  step(options: StepGate = {}): void {
    const { skip } = checkOptions(`${this.#where}.step`, options, stepNames);
    if (skip && (skip.dtype !== "float32" || sizeOf(skip.shape) !== 1))
      throw new ArgumentError(expected(`${this.#where}.step`, "skip to be a float32 scalar", formatShape(skip.shape)));
    if (skip) this.#skipped ??= new Variable([], "float32", () => filled("float32", 1, 0), `${this.#where}.skipped`);
    const skipped = this.#skipped?.read();
    const gate = skip && skipped && { skip: skip.value, skipped };
    for (const { parameters, weightDecay, lrScale } of this.#groups) {
      const update = this.updater(this.lr * lrScale, weightDecay, gate);
      for (const parameter of parameters) {
        if (!parameter.gradient) continue;
        const state = this.#stateOf(parameter);
        state.steps++;
        update(parameter, parameter.gradient.read(), state);
      }
    }
    if (gate) this.#skipped?.write(op("add", {}, [gate.skipped, gate.skip], gate.skipped));
    submit();
  }

  /** @internal The gradients that the next step will read, in the order of the parameters. */
  gradients(): Variable[] {
    return this.#parameters().flatMap(({ gradient }) => gradient ?? []);
  }

  /** Forgets all gradients. */
  zeroGrad(): void {
    for (const parameter of this.#parameters()) zeroGradient(parameter);
  }

  /**
   * Everything the next step depends on but the parameters and the settings: for the parameter at place `i` of all groups
   * `i.step`, and `i.` with PyTorch's names of what is kept (`i.momentum_buffer`). Live: reading one later sees later steps.
   */
  stateDict(): Record<string, Tensor> {
    const record: Record<string, Tensor> = {};
    for (const [i, parameter] of this.#parameters().entries()) {
      const state = this.#states.get(parameter);
      if (!state) continue;
      record[`${i}.step`] = this.#counted(state.steps);
      for (const [name, variable] of Object.entries(state.variables))
        record[`${i}.${name}`] = new VariableTensor(variable);
    }
    return record;
  }

  /**
   * Takes up the state that `stateDict` gave. Nothing is changed when anything does not fit.
   *
   * @throws WeightsError naming what is missing, unexpected or of another shape
   */
  async loadStateDict(record: Readonly<Record<string, Tensor>>): Promise<void> {
    const where = `${this.#where}.loadStateDict`;
    checkObject(where, "a record of tensors", record);
    const fail = (what: string, got: string): never => {
      throw new WeightsError(expected(where, what, got));
    };
    const parameters = this.#parameters();
    const known = new Set(parameters.flatMap((_, i) => ["step", ...this.#stateNames].map((name) => `${i}.${name}`)));
    const unexpected = Object.keys(record).filter((name) => !known.has(name));
    if (unexpected.length > 0) fail(`the state of ${parameters.length} parameters`, `also ${listed(unexpected)}`);
    const loaded: [Variable, ParameterState, Value[]][] = [];
    for (const [i, parameter] of parameters.entries()) {
      const names = ["step", ...this.#stateNames].map((name) => `${i}.${name}`);
      const missing = names.filter((name) => !(record[name] instanceof Tensor));
      if (missing.length === names.length) continue; // a parameter that never had a gradient
      if (missing.length > 0) fail(`a tensor for each of ${listed(names)}`, `no ${listed(missing)}`);
      const kept = names.slice(1).map((name) => record[name]);
      for (const [k, { shape, dtype }] of kept.entries())
        if (!sameShape(shape, parameter.shape) || dtype !== parameter.dtype)
          fail(
            `${names[k + 1]} to be ${parameter.dtype} ${formatShape(parameter.shape)}`,
            `${dtype} ${formatShape(shape)}`,
          );
      const steps = await record[names[0]].item();
      if (!Number.isSafeInteger(steps) || steps < 0) fail(`${names[0]} to be a count`, String(steps));
      loaded.push([parameter, { ...this.#fresh(parameter), steps }, kept.map(({ value }) => value)]);
    }
    this.#states.clear();
    this.#skipped = undefined; // what was skipped before is not among the steps
    for (const [parameter, state, values] of loaded) {
      this.#states.set(parameter, state);
      for (const [k, variable] of Object.values(state.variables).entries()) variable.write(values[k]);
    }
    submit(); // before a step reads it: it has then the plan of all later steps
  }

  /** How one step updates a parameter, at a learning rate and weight decay; called once a group and step. */
  protected abstract updater(
    lr: number,
    weightDecay: number,
    gate: Gate | undefined,
  ): (parameter: Variable, gradient: Value, state: ParameterState) => void;

  /** So many steps, less those that were skipped. */
  #counted(steps: number): Tensor {
    const all = tensor(Int32Array.of(steps));
    return this.#skipped ? all.sub(new VariableTensor(this.#skipped).cast("int32")) : all;
  }

  #parameters(): Variable[] {
    return this.#groups.flatMap(({ parameters }) => parameters);
  }

  #stateOf(parameter: Variable): ParameterState {
    const state = this.#states.get(parameter) ?? this.#fresh(parameter);
    this.#states.set(parameter, state);
    return state;
  }

  #fresh(parameter: Variable): ParameterState {
    const zeros = this.#stateNames.map((name) => [name, zerosLike(parameter, `${parameter.name}.${name}`)] as const);
    return { variables: Object.fromEntries(zeros), steps: 0 };
  }
}

function groupsOf(where: string, parameters: OptimizedParameters, weightDecay: number): Group[] {
  if (typeof parameters !== "object" || parameters === null || !(Symbol.iterator in parameters))
    throw new ArgumentError(expected(where, "parameters, or groups of them", shown(parameters)));
  const items: (Tensor | ParameterGroup)[] = [...parameters];
  const isGroup = (item: Tensor | ParameterGroup): item is ParameterGroup =>
    typeof item === "object" && item !== null && "params" in item;
  const groups = items.some(isGroup) ? items : [{ params: items as Tensor[] }];
  return groups.map((group) => {
    if (!isGroup(group)) throw new ArgumentError(expected(where, "groups only, or parameters only", "both"));
    const { params, lrScale = 1 } = checkOptions(where, group, groupNames, "settings of a group");
    return {
      parameters: [...new Set(params)].map((parameter) => {
        if (!(parameter instanceof VariableTensor) || !parameter.requiresGrad || !isFloat(parameter.dtype))
          throw new ArgumentError(expected(where, "parameters that want gradients", "a tensor that does not"));
        return parameter.variable;
      }),
      weightDecay: inRange(where, "weightDecay", group.weightDecay ?? weightDecay, 0),
      lrScale: inRange(where, "lrScale", lrScale, 0),
    };
  });
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
