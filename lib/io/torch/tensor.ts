import { type DType, hostBytes } from "../../dtype.js";
import { expected, WeightsError } from "../../errors.js";
import { constantValue } from "../../graph/value.js";
import { sizeOf } from "../../shape.js";
import { Tensor } from "../../tensor.js";
import { quoted } from "../json.js";
import { decodeElements } from "../safetensors.js";

/** An element type of PyTorch's: `dtype` is what it becomes here, undefined where nothing of ours holds it. */
export interface StorageType {
  readonly name: string;
  readonly bytes: number;
  readonly dtype?: DType;
}

/** Every storage class by its name in a pickle. float64 becomes float32, the widest float here. */
export const storageTypes: ReadonlyMap<string, StorageType> = new Map<string, StorageType>(
  (
    [
      ["Float", 4, "float32"],
      ["Double", 8, "float32"],
      ["Half", 2, "float16"],
      ["BFloat16", 2, "bfloat16"],
      ["Long", 8, "int64"],
      ["Int", 4, "int32"],
      ["Byte", 1, "uint8"],
      ["Short", 2],
      ["Char", 1],
      ["Bool", 1],
      ["ComplexFloat", 8],
      ["ComplexDouble", 16],
    ] as const
  ).map(([kind, bytes, dtype]) => [`torch.${kind}Storage`, { name: `torch.${kind}Storage`, bytes, dtype }]),
).set("torch.storage.UntypedStorage", { name: "torch.storage.UntypedStorage", bytes: 1 });

/** Elements in the file that any number of tensors may look at. */
export interface Storage {
  readonly type: StorageType;
  readonly elements: number;
  /** Their bytes, a view of the file. */
  bytes(): Uint8Array;
}

/** A tensor as a file describes it; nothing is checked until it is read. */
export class StoredTensor {
  constructor(
    readonly storage: Storage,
    readonly offset: unknown,
    readonly shape: readonly unknown[],
    readonly strides: readonly unknown[],
    /** Of elements that no kind of storage is named after (float8, uint16): what PyTorch calls them. */
    readonly dtypeName?: string,
  ) {}
}

const mostRank = 64;

/**
 * Makes tensors of their descriptions: each a row-major copy of its own, whatever its strides and whoever shares its
 * storage. What all of them may take is bounded, because strides of 0 make a large tensor of one element.
 */
export class TensorReader {
  readonly #file: string;
  readonly #bigEndian: boolean;
  readonly #limit: number;
  readonly #done = new Map<StoredTensor, Tensor>();
  #spent = 0;

  constructor(file: string, fileBytes: number, bigEndian: boolean) {
    this.#file = file;
    this.#bigEndian = bigEndian;
    this.#limit = 8 * fileBytes + 16 * 2 ** 20;
  }

  /**
   * A tensor, or in a sentence why we cannot hold it: a dtype that is not ours, or no elements. Throws WeightsError for one
   * that is not within its storage.
   */
  read(name: string, described: StoredTensor): Tensor | string {
    const known = this.#done.get(described);
    if (known) return known;
    const complaint = (what: string, got: string) => expected(this.#file, `tensor ${quoted(name)} ${what}`, got);
    const fail = (what: string, got: string): never => {
      throw new WeightsError(complaint(what, got));
    };
    const { storage, offset, shape, strides, dtypeName } = described;
    const { bytes: width } = storage.type;
    const dtype = dtypeName === undefined ? storage.type.dtype : undefined;
    if (dtype === undefined) {
      const known = [...storageTypes.values()].filter((type) => type.dtype).map((type) => type.name.slice(6, -7));
      const got = dtypeName ?? storage.type.name.slice(6, -7);
      const hint = /^(float|complex)/i.test(got)
        ? ` (${got.startsWith("float") ? ".float()" : ".real"} converts it)`
        : "";
      return complaint(`of a dtype we read (${known.join(", ")})`, `${got}${hint}`);
    }
    if (!areCounts(shape) || shape.length > mostRank)
      return fail(`to have a shape of at most ${mostRank} whole numbers`, plainList(shape));
    if (shape.includes(0)) return complaint("to have at least one element", `shape ${plainList(shape)}`);
    if (!areCounts(strides) || strides.length !== shape.length || !isCount(offset))
      return fail("to have an offset and a stride for each dimension", plainList([offset, ...strides]));
    // sums and products past 2^53 are inexact but still far from any count a file can have
    const span = shape.reduce((sum, extent, axis) => sum + (extent - 1) * strides[axis], 1);
    if (offset + span > storage.elements)
      return fail(`within the ${storage.elements} elements of its storage`, `elements ${offset} to ${offset + span}`);
    const count = sizeOf(shape);
    this.#spent += span * width + count * (width + hostBytes(dtype));
    if (this.#spent > this.#limit)
      return fail(`and those before it to take at most ${this.#limit} bytes`, `${this.#spent}, many times the file`);
    const stored = storage.bytes();
    if (stored.length !== storage.elements * width)
      return fail(`to have a storage of ${storage.elements * width} bytes`, `${stored.length}`);
    // a copy, which is aligned as the part of the file need not be
    const { buffer } = new Uint8Array(stored.subarray(offset * width, (offset + span) * width));
    const rows = isRowMajor(shape, strides) ? buffer : gather(buffer, width, shape, strides, count);
    if (this.#bigEndian) swapBytes(rows, width);
    const values = width === 8 && dtype === "float32" ? Float32Array.from(new Float64Array(rows)) : undefined;
    const data = values ?? decodeElements(dtype, rows);
    const tensor = new Tensor(constantValue(data, Object.freeze([...shape]), dtype));
    this.#done.set(described, tensor);
    return tensor;
  }
}

/** A whole number of elements or bytes. */
export function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function areCounts(values: readonly unknown[]): values is readonly number[] {
  return values.every(isCount);
}

/** A list out of a pickle, for a message: it may hold what JSON has no words for. */
function plainList(values: readonly unknown[]): string {
  const items = values.slice(0, 8).map((value) => (isPlain(value) ? String(value).slice(0, 24) : typeof value));
  return `[${items.join(", ")}${values.length > 8 ? ", …" : ""}]`;
}

function isPlain(value: unknown): boolean {
  return typeof value === "number" || typeof value === "bigint";
}

function isRowMajor(shape: readonly number[], strides: readonly number[]): boolean {
  let stride = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] === 1) continue;
    if (strides[axis] !== stride) return false;
    stride *= shape[axis];
  }
  return true;
}

/** Bit patterns are moved, not numbers, so every NaN stays as it is. */
function gather(
  from: ArrayBuffer,
  width: number,
  shape: readonly number[],
  strides: readonly number[],
  count: number,
): ArrayBuffer {
  const to = new ArrayBuffer(count * width);
  const args = [shape, strides] as const;
  if (width === 8) permute(new BigUint64Array(from), new BigUint64Array(to), ...args);
  else if (width === 4) permute(new Uint32Array(from), new Uint32Array(to), ...args);
  else if (width === 2) permute(new Uint16Array(from), new Uint16Array(to), ...args);
  else permute(new Uint8Array(from), new Uint8Array(to), ...args);
  return to;
}

function permute<T>(
  from: { readonly [index: number]: T },
  to: { [index: number]: T; readonly length: number },
  shape: readonly number[],
  strides: readonly number[],
): void {
  const index = new Array<number>(shape.length).fill(0);
  const last = shape.length - 1;
  let source = 0;
  for (let target = 0; target < to.length; ) {
    for (let i = 0, at = source; i < shape[last]; i++, at += strides[last]) to[target++] = from[at];
    let axis = last - 1;
    for (; axis >= 0; axis--) {
      source += strides[axis];
      if (++index[axis] < shape[axis]) break;
      source -= index[axis] * strides[axis];
      index[axis] = 0;
    }
  }
}

function swapBytes(buffer: ArrayBuffer, width: number): void {
  const bytes = Buffer.from(buffer);
  if (width === 8) bytes.swap64();
  else if (width === 4) bytes.swap32();
  else if (width === 2) bytes.swap16();
}
