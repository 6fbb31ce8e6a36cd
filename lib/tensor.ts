import { checkDtype, checkHolds, type DType, dtypeOf, type HostArray, hostArray, isFloat, roundTo } from "./dtype.js";
import { DtypeError, expected, ShapeError } from "./errors.js";
import { constantValue, type Value } from "./graph/value.js";
import { backward as recordBackward } from "./lazy/backward.js";
import { read } from "./lazy/flush.js";
import { Variable } from "./lazy/variable.js";
import { checkOptions, type OptionNames } from "./options.js";
import { tensorText } from "./print.js";
import { checkExtents, formatShape, sizeOf } from "./shape.js";

/** Numbers nested to any depth; every level must be as long as its siblings. */
export type NestedNumbers = readonly (number | NestedNumbers)[];

/** A tensor on the right of an arithmetic method, or a number that is broadcast. */
export type Operand = Tensor | number;

/** A tensor's elements where they are known without computing anything. */
function knownElements({ value: { kept, version } }: Tensor): HostArray | undefined {
  if (kept) return kept;
  return ArrayBuffer.isView(version?.contents) ? (version.contents as HostArray) : undefined;
}

/**
 * An own property of every tensor, so that what compares structures (`toEqual` of Vitest and Jest, `assert.deepEqual`)
 * compares the elements. Those that are not known are equal to nothing.
 */
const contents = {
  enumerable: true,
  get(this: Tensor): HostArray | symbol {
    return knownElements(this) ?? Symbol("not computed: await data()");
  },
};

/**
 * A lazy, immutable, row-major array. Methods record; nothing is computed until `data()` or `item()` is awaited.
 * Images are N,C,H,W. Tensors have no device and need no dispose. The ops are methods, too: lib/ops/methods.ts adds them.
 */
export class Tensor {
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly #value: Value | undefined;

  /** @internal Use `tensor()`. */
  constructor(source: Value | { readonly shape: readonly number[]; readonly dtype: DType }) {
    this.shape = source.shape;
    this.dtype = source.dtype;
    this.#value = "node" in source ? source : undefined;
    Object.defineProperty(this, "contents", contents);
  }

  /**
   * What `instanceof` goes by, for subclasses too: a tensor is what a constructor of ours made. A proxy of one, or an object
   * that only inherits from one, is none.
   */
  static [Symbol.hasInstance](value: unknown): boolean {
    const isMade = typeof value === "object" && value !== null && #value in value;
    // biome-ignore lint/complexity/noThisInStatic: the class asked about, which may be a subclass
    return isMade && Function.prototype[Symbol.hasInstance].call(this, value);
  }

  /** As PyTorch prints it, with its values where they are known; `await data()` makes them known. */
  toString(): string {
    return tensorText(knownElements(this), this);
  }

  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return this.toString();
  }

  /** @internal The graph value a reader records. Variables override this with their current version. */
  get value(): Value {
    return this.#value as Value;
  }

  /** Computes the tensor and resolves to the caller's own copy: Float32Array for every float dtype, Int32Array, BigInt64Array or Uint8Array. */
  data(): Promise<HostArray> {
    return read(this.value);
  }

  /** The single element of a one-element tensor. Throws ShapeError for more elements. */
  item(): Promise<number> {
    if (sizeOf(this.shape) !== 1)
      return Promise.reject(new ShapeError(expected("item", "a tensor of one element", formatShape(this.shape))));
    return this.data().then(([element]) => Number(element));
  }

  /**
   * Records the gradients of this scalar with respect to everything it was computed from that wants one, and adds them
   * to what `grad` holds. Nothing is computed until a flush: `optimizer.step()`, or asking for a value.
   *
   * @throws ShapeError when this is not a scalar; StaleTensorError when a parameter it reads was overwritten since
   */
  backward(): void {
    if (sizeOf(this.shape) !== 1) throw new ShapeError(expected("backward", "a scalar", formatShape(this.shape)));
    recordBackward(this.value);
  }

  /** What `backward` has accumulated for a tensor that wants gradients; undefined for all others, and before the first one. */
  get grad(): Tensor | undefined {
    return undefined;
  }
}

/** A tensor whose contents can be overwritten by recorded writes: a parameter, a buffer, an input that wants a gradient. */
export class VariableTensor extends Tensor {
  readonly #variable: Variable;

  constructor(variable: Variable) {
    super(variable);
    this.#variable = variable;
  }

  /** @internal */
  get variable(): Variable {
    return this.#variable;
  }

  override get value(): Value {
    return this.variable.read();
  }

  override get grad(): Tensor | undefined {
    const { gradient } = this.variable;
    return gradient && new VariableTensor(gradient);
  }

  /** Whether `backward` gives it a gradient. Set to false on parameters to freeze them: what leads only to them is not computed. */
  get requiresGrad(): boolean {
    return this.variable.requiresGrad;
  }

  set requiresGrad(requiresGrad: boolean) {
    this.variable.requiresGrad = requiresGrad;
  }
}

export interface TensorOptions {
  /** The dtype to hold. Default: float32 for numbers, the array's own for typed arrays. */
  readonly dtype?: DType;
  /** Marks a float tensor as a leaf that gets a gradient. Default false. */
  readonly requiresGrad?: boolean;
}

const tensorNames: OptionNames<TensorOptions> = { dtype: true, requiresGrad: true };

/**
 * A tensor from numbers or a typed array, which is copied.
 *
 * @param data numbers (nested too), or a typed array in row-major order.
 * @param shape extents, all at least 1; taken from the nesting, or one-dimensional, when left out. `[]` is a scalar.
 * @throws ShapeError when the data does not fill the shape; DtypeError for arrays of no dtype of ours;
 *   ArgumentError for a number that an integer dtype cannot hold.
 */
export function tensor(
  data: number | NestedNumbers | ArrayBufferView,
  shape?: readonly number[],
  options: TensorOptions = {},
): Tensor {
  const { dtype, requiresGrad = false } = checkOptions("tensor", options, tensorNames);
  if (shape !== undefined) checkExtents("tensor", "a shape", shape);
  const flat = flatten(data);
  const extents = Object.freeze([...(shape ?? flat.shape)]);
  for (const extent of extents)
    if (!Number.isSafeInteger(extent) || extent < 1)
      throw new ShapeError(expected("tensor", "every extent to be an integer of at least 1", formatShape(extents)));
  const size = sizeOf(extents);
  if (size !== flat.values.length)
    throw new ShapeError(
      expected("tensor", `${size} elements for shape ${formatShape(extents)}`, `${flat.values.length}`),
    );
  const type = dtype ?? flat.dtype;
  checkDtype("tensor", type);
  if (requiresGrad && !isFloat(type))
    throw new DtypeError(expected("tensor", "a float dtype where requiresGrad is set", type));
  const host = toHost(flat.values, type);
  return requiresGrad
    ? new VariableTensor(new Variable(extents, type, host, "tensor", true))
    : new Tensor(constantValue(host, extents, type));
}

type Flat = { values: ArrayLike<number | bigint>; shape: readonly number[]; dtype: DType };

function flatten(data: number | NestedNumbers | ArrayBufferView): Flat {
  if (typeof data === "number") return { values: [data], shape: [], dtype: "float32" };
  if (ArrayBuffer.isView(data)) {
    const dtype = dtypeOf(data);
    const values = data as unknown as ArrayLike<number | bigint>;
    return { values, shape: [values.length], dtype };
  }
  if (!Array.isArray(data)) throw new DtypeError(expected("tensor", "numbers or a typed array", typeof data));
  const shape: number[] = [];
  for (let level: number | NestedNumbers = data; Array.isArray(level); level = level[0]) {
    shape.push(level.length);
    if (shape.length > 32) throw new ShapeError(expected("tensor", "at most 32 levels of nesting", "more"));
  }
  const values: number[] = [];
  const walk = (level: number | NestedNumbers, depth: number) => {
    if (!Array.isArray(level)) {
      if (depth !== shape.length) throw new ShapeError(expected("tensor", "rows of equal depth", "a ragged array"));
      if (typeof level !== "number") throw new DtypeError(expected("tensor", "numbers", typeof level));
      values.push(level);
    } else if (level.length !== shape[depth]) {
      throw new ShapeError(expected("tensor", `rows of ${shape[depth]} elements`, `a row of ${level.length}`));
    } else for (const item of level) walk(item, depth + 1);
  };
  walk(data, 0);
  return { values, shape, dtype: "float32" };
}

function toHost(values: ArrayLike<number | bigint>, dtype: DType): HostArray {
  const host = hostArray(dtype, values.length);
  if (values.constructor !== host.constructor) checkHolds("tensor", dtype, values);
  if (host instanceof BigInt64Array)
    for (let i = 0; i < values.length; i++) {
      const value = values[i];
      host[i] = typeof value === "bigint" ? value : BigInt(Math.trunc(value));
    }
  else if (values.length > 0 && typeof values[0] === "bigint")
    for (let i = 0; i < values.length; i++) host[i] = Number(values[i]);
  else host.set(values as ArrayLike<number>);
  roundTo(dtype, host);
  return host;
}
