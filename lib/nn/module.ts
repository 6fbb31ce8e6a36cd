import { ArgumentError, expected, listed, ShapeError, WeightsError } from "../errors.js";
import { submit } from "../lazy/flush.js";
import { forcedTraining } from "../lazy/recording.js";
import { checkTensor } from "../ops/record.js";
import { cast } from "../ops/unary.js";
import { checkOptions, type OptionNames } from "../options.js";
import { moduleText } from "../print.js";
import { checkObject, formatShape, sameShape } from "../shape.js";
import { Tensor } from "../tensor.js";
import { Buffer, Parameter } from "./parameter.js";
import { unreadOf } from "./unread.js";

/** What `loadStateDict` left out, which is nothing when it was strict. */
export interface LoadResult {
  /** Names the model has and the record lacks. */
  readonly missingKeys: string[];
  /** Names the record has and the model lacks. */
  readonly unexpectedKeys: string[];
}

export interface LoadStateDictOptions {
  /** Throw when a name is missing or unexpected, default true. */
  readonly strict?: boolean;
}

const loadNames: OptionNames<LoadStateDictOptions> = { strict: true };

/**
 * A layer or a network. Properties that hold a Parameter, a Buffer or a Module register themselves, in the order they
 * were assigned, under the property's name.
 */
export abstract class Module {
  #training = true;

  constructor() {
    classes.add(new.target.name);
  }

  /** Records the computation. */
  abstract forward(x: Tensor): Tensor;

  /** Whether batch norm uses and tracks the batch's statistics. Set by `train()` and `eval()`, true at first. */
  get training(): boolean {
    return forcedTraining() ?? this.#training;
  }

  /** Training mode, for this module and all below. */
  train(mode = true): this {
    for (const [, module] of this.namedModules()) module.#training = mode;
    return this;
  }

  /** Eval mode, for this module and all below. */
  eval(): this {
    return this.train(false);
  }

  /** As PyTorch prints it: its name, what its layers were made with, and the modules it holds. */
  toString(): string {
    const children = [...this.namedChildren()].map(([name, child]) => [name, child.toString()] as const);
    return moduleText(this.constructor.name, this.extraRepr(), children);
  }

  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return this.toString();
  }

  /** What `toString` says of this module itself, in PyTorch's words. */
  protected extraRepr(): string {
    return "";
  }

  /** The modules this one holds, in order. */
  children(): Module[] {
    return [...this.namedChildren()].map(([, child]) => child);
  }

  *namedChildren(): Iterable<[string, Module]> {
    checkFields(this);
    for (const [name, value] of Object.entries(this)) if (value instanceof Module) yield [name, value];
  }

  /** This module (named "") and all below it. */
  *namedModules(prefix = ""): Iterable<[string, Module]> {
    yield [prefix, this];
    for (const [name, child] of this.namedChildren()) yield* child.namedModules(prefix ? `${prefix}.${name}` : name);
  }

  /** All trained tensors, each once. */
  parameters(): Parameter[] {
    return [...new Set([...this.namedParameters()].map(([, parameter]) => parameter))];
  }

  namedParameters(): Iterable<[string, Parameter]> {
    return this.#named((value) => value instanceof Parameter) as Iterable<[string, Parameter]>;
  }

  namedBuffers(): Iterable<[string, Buffer]> {
    return this.#named((value) => value instanceof Buffer) as Iterable<[string, Buffer]>;
  }

  *#named(wanted: (value: unknown) => boolean): Iterable<[string, Parameter | Buffer]> {
    for (const [path, module] of this.namedModules())
      for (const [name, value] of Object.entries(module))
        if (wanted(value)) yield [path ? `${path}.${name}` : name, value];
  }

  /** Every parameter and buffer by name, live: reading one later sees later updates. PyTorch's order. */
  stateDict(): Record<string, Tensor> {
    return Object.fromEntries(this.#state());
  }

  *#state(): Iterable<[string, Parameter | Buffer]> {
    for (const [path, module] of this.namedModules())
      for (const kind of [Parameter, Buffer])
        for (const [name, value] of Object.entries(module))
          if (value instanceof kind) yield [path ? `${path}.${name}` : name, value];
  }

  /**
   * Copies a record of tensors into the parameters and buffers, as PyTorch's load_state_dict does: dtypes are converted, a
   * scalar may have shape [1], and batch norm's counters may be missing (PyTorch before 0.4.1 had none). Nothing is
   * written when anything does not fit.
   *
   * @throws WeightsError naming what is missing, unexpected, or of another shape
   */
  loadStateDict(record: Readonly<Record<string, Tensor>>, options: LoadStateDictOptions = {}): LoadResult {
    const { strict = true } = checkOptions("loadStateDict", options, loadNames);
    checkObject("loadStateDict", "a record of tensors", record);
    const state = new Map(this.#state());
    const missingKeys = [...state.keys()].filter((name) => !Object.hasOwn(record, name) && !isCounter(name));
    const unexpectedKeys = Object.keys(record).filter((name) => !state.has(name));
    const fitting: [Parameter | Buffer, Tensor][] = [];
    const mismatched: string[] = [];
    for (const [name, own] of state) {
      if (!Object.hasOwn(record, name)) continue;
      const given = record[name];
      if (!(given instanceof Tensor)) mismatched.push(expected(name, "a tensor", typeof given));
      else if (!sameShape(own.shape, given.shape) && !(own.shape.length === 0 && sameShape(given.shape, [1])))
        mismatched.push(expected(name, formatShape(own.shape), formatShape(given.shape)));
      else fitting.push([own, given]);
    }
    const faults = [...mismatched];
    const why = missingKeys.map((name) => unreadOf(record).get(name)).find((reason) => reason !== undefined);
    if (strict && missingKeys.length > 0) faults.push(`missing ${listed(missingKeys)}${why ? ` (${why})` : ""}`);
    if (strict && unexpectedKeys.length > 0) faults.push(`unexpected ${listed(unexpectedKeys)}`);
    if (faults.length > 0)
      throw new WeightsError(`loadStateDict: ${listed(faults).replaceAll("loadStateDict: ", "")}`, {
        missingKeys,
        unexpectedKeys,
        mismatched,
      });
    // all values are read before any is written, so a record of the model's own tensors may permute them
    const values = fitting.map(([own, given]) => cast(given.reshape(own.shape), own.dtype).value);
    for (const [i, [own]] of fitting.entries()) own.variable.write(values[i]);
    submit(); // before a step reads them: it has then the plan of all later steps
    return { missingKeys, unexpectedKeys };
  }
}

/** Names of the classes of modules there have been. */
const classes = new Set<string>();
/** For a class, the names of its private fields that its source makes modules or parameters for. */
const privates = new WeakMap<object, string | undefined>();

/**
 * Throws ArgumentError, naming the field, for modules and parameters that would register nothing: those in a list, a Map or a
 * plain object, and, as far as the source of the class tells, those in #private fields, which nobody else can see.
 */
function checkFields(module: Module): void {
  for (const [name, value] of Object.entries(module)) {
    if (Object.prototype.isPrototypeOf.call(Tensor.prototype, value) && !(value instanceof Tensor))
      refuse(module, `a field ${name}`, "a proxy or an imitation of a tensor", "tensors themselves");
    if (holdsState(value))
      refuse(
        module,
        `a field ${name}`,
        Array.isArray(value) ? "a list" : "an object",
        "nn.ModuleList or nn.ModuleDict",
      );
  }
  for (let type = module.constructor; type !== Module; type = Object.getPrototypeOf(type)) {
    if (!privates.has(type)) privates.set(type, privateField(type));
    const name = privates.get(type);
    if (name !== undefined) refuse(module, `a field ${name}`, "a #private one", "a field that others can see");
  }
}

function refuse(module: Module, field: string, got: string, what: string): never {
  throw new ArgumentError(
    expected(
      module.constructor.name,
      `${what} to hold modules and parameters, which register there`,
      `${field}, ${got}`,
    ),
  );
}

function holdsState(value: unknown, depth = 2): boolean {
  if (typeof value !== "object" || value === null || depth < 0 || ArrayBuffer.isView(value)) return false;
  if (value instanceof Module || value instanceof Parameter || value instanceof Buffer) return depth < 2;
  if (Array.isArray(value) || value instanceof Set || value instanceof Map)
    return [...value.values()].some((item) => holdsState(item, depth - 1));
  const isPlain = Object.getPrototypeOf(value) === Object.prototype;
  return isPlain && Object.values(value).some((item) => holdsState(item, depth - 1));
}

/** Its own source says `#conv = new nn.Conv2d(`, or `this.#blocks = [new Block(`, for a class of modules. */
function privateField(type: { toString(): string }): string | undefined {
  for (const [, name, value] of String(type).matchAll(/(#[\w$]+)\s*=(?!=)([^;]*)/g))
    for (const [, made] of value.matchAll(/\bnew\s+(?:[\w$]+\.)*([\w$]+)\s*\(/g))
      if (classes.has(made) || made === "Parameter" || made === "Buffer") return name;
  return undefined;
}

/** Batch norm's `num_batches_tracked`, which old checkpoints lack and inference never reads. */
export function isCounter(name: string): boolean {
  return /(^|\.)num_batches_tracked$/.test(name);
}

/** Throws ShapeError when a module that takes images gets something else. */
export function checkImages(where: string, x: Tensor): void {
  checkTensor(where, x);
  if (x.shape.length !== 4) throw new ShapeError(expected(where, "input [N, C, H, W]", formatShape(x.shape)));
}
