import { checkThreads } from "../devices/check.js";
import type { Executor, LoadedPlan, RunRequest } from "../devices/executor.js";
import { type DeviceChoice, executorFor, type ResolvedDevice, resolveDevice } from "../devices/resolve.js";
import type { DType, HostArray } from "../dtype.js";
import { ArgumentError, DisposedError, DtypeError, expected, shown } from "../errors.js";
import { findSetup } from "../graph/passes/constants.js";
import { fold } from "../graph/passes/fold.js";
import { expand, fuse } from "../graph/passes/fuse.js";
import { constantValue, leavesUnder, type Node, placeholder, type Value } from "../graph/value.js";
import { checkNormalization, type Normalization, normalized } from "../image/normalize.js";
import { share } from "../lazy/flush.js";
import { inIsolation } from "../lazy/recording.js";
import type { Variable } from "../lazy/variable.js";
import { LeastRecentlyUsed } from "../lru.js";
import { Module } from "../nn/module.js";
import { checkTensor } from "../ops/record.js";
import { checkOptions, type OptionNames } from "../options.js";
import { lower } from "../plan/lower.js";
import { checkExtents, formatShape } from "../shape.js";
import { Tensor } from "../tensor.js";
import { evaluate } from "./evaluate_constants.js";
import { Profile } from "./profile.js";
import { snapshot } from "./snapshot.js";

const computeTypes = ["float32", "tf32", "bfloat16", "float16"] as const;

const dtypesOf = {
  reference: ["float32"],
  cpu: ["float32", "bfloat16"],
  cuda: computeTypes,
  "cuda-sim": computeTypes,
} as const;

export interface CompileOptions {
  /** Default "auto": the first usable of cuda, cpu, reference. */
  readonly device?: DeviceChoice;
  /**
   * Arithmetic of the whole network, default "float32". The reference has no other. In "bfloat16" on the cpu device images
   * between steps and weights of convolutions are rounded (after batch norms are folded), sums are taken in float32, and
   * so is what else the network does; the output is float32. A CPU without AVX-512 gives the same numbers, but computes
   * them in float32: it is no faster there.
   */
  readonly dtype?: (typeof computeTypes)[number];
  /** Threads on the CPU devices, at most 64 or four for each core, whichever is more. Default: every core. */
  readonly threads?: number;
  /** [N, C, H, W] to get ready for at once; other shapes are planned when they first come. */
  readonly inputShape?: readonly number[];
  /** Lets `run` take uint8 images and normalise them inside the plan. */
  readonly normalize?: Normalization;
  /**
   * Time algorithms of convolutions on the cpu device and take the fastest, default true (PyTorch has the like in
   * torch.backends.cudnn.benchmark). The choice, and with it rounding (about 1e-6), may differ from process to process;
   * false decides by the shapes alone.
   */
  readonly benchmark?: boolean;
  /** Fold batch norms and fuse chains of ops, default true. Turn off to compare the two. */
  readonly fuse?: boolean;
}

const compileNames: OptionNames<CompileOptions> = {
  device: true,
  dtype: true,
  threads: true,
  inputShape: true,
  normalize: true,
  benchmark: true,
  fuse: true,
};

export interface RunOptions {
  /** Drops the run if it has not started. */
  readonly signal?: AbortSignal;
}

const runNames: OptionNames<RunOptions> = { signal: true };

interface Ready {
  readonly plan: LoadedPlan;
  readonly shape: readonly number[];
  readonly dtype: DType;
}

/**
 * Makes a model ready to run: its weights as they are now, eval behaviour, one plan per input shape.
 *
 * @throws DeviceError when the device does not work; DtypeError when it cannot compute in `dtype`
 */
export async function compile(model: Module, options: CompileOptions = {}): Promise<CompiledModel> {
  if (!(model instanceof Module)) throw new ArgumentError(expected("compile", "a model (nn.Module)", shown(model)));
  const { dtype = "float32", threads, normalize, inputShape } = checkOptions("compile", options, compileNames);
  checkThreads("compile", threads);
  if (inputShape !== undefined) checkExtents("compile", "inputShape", inputShape);
  if (normalize !== undefined) checkNormalization("compile", normalize);
  const device = resolveDevice(options.device);
  if (!computeTypes.includes(dtype))
    throw new DtypeError(expected("compile", `dtype ${computeTypes.join(", ")}`, shown(dtype)));
  const known: readonly string[] = dtypesOf[device.name];
  if (!known.includes(dtype))
    throw new DtypeError(expected("compile", `${known.join(" or ")} on the ${device.name} device`, dtype));

  const frozen = await snapshot(model);
  const compiled = new CompiledModel(model, device, executorFor(device), frozen, options);
  if (inputShape) await compiled.prepare(inputShape, "float32");
  return compiled;
}

/** A model made ready by `compile`. Runs are first in, first out. */
export class CompiledModel {
  readonly #model: Module;
  readonly #executor: Executor;
  readonly #frozen: ReadonlyMap<Variable, Value>;
  readonly #options: CompileOptions;
  /** Folded weights, computed once and shared by the plans of all shapes. */
  readonly #folded = new Map<string, Promise<HostArray>>();
  /** Runs, plans being made ready and plans being freed. None of these promises rejects. */
  readonly #underWay = new Set<Promise<unknown>>();
  readonly #plans = new LeastRecentlyUsed<Promise<Ready>>(8, (ready) => {
    // a run that was handed this plan may still have to start
    const before = Promise.all(this.#underWay);
    this.#track(before.then(async () => (await ready).plan.dispose())); // a plan that failed to load has nothing to free
  });
  #disposed = false;

  /** @internal Use `compile`. */
  constructor(
    model: Module,
    /** The device the model runs on, and why it was chosen. */
    readonly device: ResolvedDevice,
    executor: Executor,
    frozen: ReadonlyMap<Variable, Value>,
    options: CompileOptions,
  ) {
    this.#model = model;
    this.#executor = executor;
    this.#frozen = frozen;
    this.#options = options;
  }

  /**
   * Runs the model.
   *
   * @param x [N, C, H, W], float32, or uint8 where `normalize` was given
   * @throws ShapeError, DtypeError, DisposedError; the signal's reason when it was aborted in the queue
   */
  run(x: Tensor, options: RunOptions = {}): Promise<Tensor> {
    return this.#track(this.#run(x, options));
  }

  /**
   * Runs the model twice and tells where the time of the second run went: layer, op, implementation, milliseconds and
   * bytes of every kernel, as an object whose text form is a table and that gives a trace for Chrome and Perfetto.
   *
   * @param x as for `run`
   * @throws what `run` throws
   */
  profile(x: Tensor, options: RunOptions = {}): Promise<Profile> {
    return this.#track(this.#profile(x, options));
  }

  async #run(x: Tensor, options: RunOptions): Promise<Tensor> {
    const { plan, shape, dtype, request } = await this.#request("run", x, options);
    const { outputs } = await plan.run(request);
    return new Tensor(constantValue(outputs[0], shape, dtype));
  }

  async #profile(x: Tensor, options: RunOptions): Promise<Profile> {
    const { plan, request } = await this.#request("profile", x, options);
    await plan.run(request);
    return new Profile(this.device.name, await plan.profile(request));
  }

  async #request(where: string, x: Tensor, options: RunOptions): Promise<Ready & { request: RunRequest }> {
    checkTensor(where, x);
    const { signal } = checkOptions(where, options, runNames);
    if (signal !== undefined && !(signal instanceof AbortSignal))
      throw new ArgumentError(expected(where, "signal to be an AbortSignal", shown(signal)));
    signal?.throwIfAborted();
    const [ready, input] = await Promise.all([this.prepare(x.shape, x.dtype), share(x.value)]);
    return { ...ready, request: { inputs: [input], variables: [], signal } };
  }

  /** Gets ready for inputs of a shape, so that the first run is as fast as the others. */
  async prepare(shape: readonly number[], dtype: DType = "float32"): Promise<Ready> {
    if (this.#disposed) throw new DisposedError("run: this compiled model has been disposed");
    checkExtents("prepare", "a shape", shape);
    const key = `${dtype} ${shape}`;
    const known = this.#plans.get(key);
    if (known) return known;
    const ready = this.#track(this.#load(shape, dtype));
    this.#plans.set(key, ready);
    ready.catch(() => this.#plans.delete(key));
    return ready;
  }

  /** Frees the device's memory once the runs under way are done. Later calls of `run` throw DisposedError. */
  async dispose(): Promise<void> {
    this.#disposed = true;
    await Promise.all(this.#underWay);
    this.#plans.clear();
    await Promise.all(this.#underWay);
    this.#folded.clear();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }

  #track<T>(work: Promise<T>): Promise<T> {
    const forget = () => {
      this.#underWay.delete(settled);
    };
    const settled: Promise<void> = work.then(forget, forget);
    this.#underWay.add(settled);
    return work;
  }

  async #load(shape: readonly number[], dtype: DType): Promise<Ready> {
    const input = placeholder(shape, dtype);
    const output = inIsolation(() => this.#model.forward(this.#pixels(new Tensor(input))), { frozen: this.#frozen });
    checkTensor("compile", output, "a model whose forward returns one tensor");
    const [root] =
      this.#options.fuse === false ? [output.value] : expand(fuse(fold([output.value])), this.#executor.fused);
    const { constants: fixed, computed } = findSetup(root, new Set([input]));
    const loose = leavesUnder([root]).find(({ variable, kept }) => variable !== undefined && kept === undefined);
    if (loose)
      throw new ArgumentError(
        expected(
          "compile",
          "all that the model reads to be fields of its modules, which register there",
          `a ${loose.variable?.name} of shape ${formatShape(loose.shape)} that is none (in a #private field, or from outside)`,
        ),
      );
    const constants = this.#executor.folds ? leavesUnder([root]) : fixed;
    if (!this.#executor.folds) await this.#fold(computed);
    const contents = await Promise.all(constants.map((value) => value.kept ?? this.#folded.get(nameOf(value))));
    const role = (leaf: Value) => (leaf === input ? "inputs" : "constants");
    const plan = lower([input, ...constants], role, [root], [], this.#layersOf(fixed));
    const { threads, dtype: compute, benchmark = true } = this.#options;
    const names = constants.map(nameOf);
    const loaded = await this.#executor.load(plan, contents as HostArray[], {
      threads,
      compute,
      names,
      ...(!benchmark && { convolution: "rule" }),
    });
    return { plan: loaded, shape: root.shape, dtype: root.dtype };
  }

  /** Names the layer of a node that reads some of `constants`: what the owners of their first weights share. */
  #layersOf(constants: readonly Value[]): (node: Node) => string | undefined {
    const owners = new Map<Value, string>();
    for (const [name, { variable }] of [...this.#model.namedParameters(), ...this.#model.namedBuffers()]) {
      const leaf = this.#frozen.get(variable);
      if (leaf) owners.set(leaf, name.slice(0, Math.max(name.lastIndexOf("."), 0)));
    }
    const layers = new Map<Value, string>();
    for (const value of constants) {
      let first = value;
      while (!first.isLeaf) first = first.node.inputs[0];
      const owner = owners.get(first);
      if (owner !== undefined) layers.set(value, owner);
    }
    return ({ inputs }) => {
      const paths = inputs.flatMap((value) => (layers.has(value) ? [layers.get(value)?.split(".") as string[]] : []));
      const [shortest] = [...paths].sort((a, b) => a.length - b.length);
      const parts = shortest?.findIndex((part, i) => paths.some((path) => path[i] !== part));
      return shortest && (parts < 0 ? shortest : shortest.slice(0, parts)).join(".");
    };
  }

  /** Computes, on the reference and in one plan, the constants that no earlier shape has computed. */
  async #fold(computed: readonly Value[]): Promise<void> {
    const fresh = computed.filter((value) => !this.#folded.has(nameOf(value)));
    if (fresh.length === 0) return;
    const results = evaluate(fresh);
    for (const [i, value] of fresh.entries()) {
      const contents = results.then((outputs) => outputs[i]);
      contents.catch(() => this.#folded.delete(nameOf(value))); // another run may have better luck
      this.#folded.set(nameOf(value), contents);
    }
    await results;
  }

  /** uint8 pixels become normalised floats inside the plan. */
  #pixels(x: Tensor): Tensor {
    if (x.dtype === "float32") return x;
    const { normalize } = this.#options;
    if (x.dtype !== "uint8" || !normalize)
      throw new DtypeError(
        expected("run", normalize ? "float32 or uint8" : "float32 (or compile with normalize)", x.dtype),
      );
    return normalized("run", x, normalize);
  }
}

const leafNames = new WeakMap<Value, number>();
let leafCount = 0;

/** Tells values computed from the same leaves in the same way apart from all others. */
function nameOf(value: Value): string {
  if (value.isLeaf) {
    let name = leafNames.get(value);
    if (name === undefined) {
      name = leafCount++;
      leafNames.set(value, name);
    }
    return String(name);
  }
  const { op, attributes, inputs } = value.node;
  return `${op}${JSON.stringify(attributes)}(${inputs.map(nameOf)})${value.shape}.${value.index}`;
}
