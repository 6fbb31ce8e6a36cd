import { type nn, type Tensor, tensor } from "seresnet";
import { relativeError } from "./compare.js";

/** 32-bit FNV-1a of a name. */
function fnv1a(text: string): number {
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(text)) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash >>> 0;
}

/** `map` of numbers in [0, 1) that depend on the name and the flat index alone; the rule of test/fixtures/weights.py. */
function uniform(name: string, count: number, map: (u: number) => number): Float32Array {
  const seed = fnv1a(name);
  const numbers = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    let x = (seed + Math.imul(i, 0x9e3779b9)) >>> 0;
    x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
    x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
    numbers[i] = map(((x ^ (x >>> 16)) >>> 0) / 4294967296);
  }
  return numbers;
}

/** How an entry of the state dict follows from its number in [0, 1), by its name and shape. */
function rule(name: string, shape: readonly number[]): (u: number) => number {
  if (name.endsWith("running_var")) return (u) => 0.5 + u;
  if (name.endsWith("running_mean")) return (u) => (u - 0.5) * 0.2;
  if (shape.length >= 2) {
    const fanIn = shape.slice(1).reduce((a, b) => a * b, 1);
    const bound = Math.sqrt(3 / fanIn);
    return (u) => (2 * u - 1) * bound;
  }
  return name.endsWith("weight") ? (u) => 0.5 + u : (u) => (u - 0.5) * 0.1;
}

/** Sets every entry of a model's state dict from its name and shape alone. */
export function fill<M extends nn.Module>(model: M, salt: string): M {
  const record: Record<string, Tensor> = {};
  for (const [name, { shape, dtype }] of Object.entries(model.stateDict())) {
    const count = shape.reduce((a, b) => a * b, 1);
    record[name] =
      dtype === "float32"
        ? tensor(uniform(`${salt}/${name}`, count, rule(name, shape)), shape)
        : tensor(new BigInt64Array(count), shape);
  }
  model.loadStateDict(record);
  return model;
}

/** An input in [-1, 1). The stored ones are called `atlas/ResidualBlock/x`, `atlas/resnet18/x`. */
export function image(name: string, shape: readonly number[]): Tensor {
  const count = shape.reduce((a, b) => a * b, 1);
  return tensor(
    uniform(name, count, (u) => 2 * u - 1),
    shape,
  );
}

/** What the fixtures keep of an array. `std` is the sample's, over n - 1. */
export interface Digest {
  readonly n: number;
  readonly mean: number;
  readonly std: number;
  readonly absmax: number;
  readonly head: readonly number[];
  readonly tail: readonly number[];
}

/** The largest relative error of an array against its digest: of its ends, and of its moments against the deviation. */
export function digestError(got: ArrayLike<number>, want: Digest): number {
  const values = Array.from(got);
  if (values.length !== want.n) return Number.POSITIVE_INFINITY;
  const mean = values.reduce((a, b) => a + b, 0) / want.n;
  const std = Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / (want.n - 1));
  const absmax = values.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
  return Math.max(
    relativeError(values.slice(0, want.head.length), want.head),
    relativeError(values.slice(-want.tail.length), want.tail),
    Math.abs(mean - want.mean) / want.std,
    Math.abs(std - want.std) / want.std,
    Math.abs(absmax - want.absmax) / want.absmax,
  );
}
