import { ArgumentError, DtypeError, expected, MemoryError, shown } from "./errors.js";

/** Element types of tensors. */
export type DType = "float32" | "float16" | "bfloat16" | "int32" | "int64" | "uint8";

/** What holds a tensor's elements on the host. Every float dtype is held as Float32Array, rounded to the dtype's precision. */
export type HostArray = Float32Array | Int32Array | BigInt64Array | Uint8Array;

const bytes: Record<DType, number> = { float32: 4, float16: 2, bfloat16: 2, int32: 4, int64: 8, uint8: 1 };

/** Every dtype, in the order they are listed to people. */
export const dtypes = Object.keys(bytes) as DType[];

/** Bytes of one element as stored in a file or on a device. */
export function byteSize(dtype: DType): number {
  return bytes[dtype];
}

export function isFloat(dtype: DType): boolean {
  return dtype === "float32" || dtype === "float16" || dtype === "bfloat16";
}

/** A zero-filled host array for `length` elements, over `buffer` when one is given. Throws MemoryError where there is no room. */
export function hostArray(dtype: DType, length: number, buffer?: ArrayBufferLike, byteOffset = 0): HostArray {
  const over = (buffer ?? allocated(length * hostBytes(dtype))) as ArrayBuffer;
  switch (dtype) {
    case "int32":
      return new Int32Array(over, byteOffset, length);
    case "int64":
      return new BigInt64Array(over, byteOffset, length);
    case "uint8":
      return new Uint8Array(over, byteOffset, length);
    default:
      return new Float32Array(over, byteOffset, length);
  }
}

function allocated(bytes: number): ArrayBuffer {
  try {
    return new ArrayBuffer(bytes);
  } catch (error) {
    const { message } = error as RangeError;
    throw new MemoryError(expected("host memory", `room for ${bytes} bytes`, message), { cause: error });
  }
}

/** Bytes of one element in its host array (floats are always held as float32). */
export function hostBytes(dtype: DType): number {
  return isFloat(dtype) ? 4 : bytes[dtype];
}

const tagOf = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(Uint8Array.prototype), Symbol.toStringTag)?.get as (
  this: unknown,
) => string | undefined;

/**
 * Which of JavaScript's typed arrays something is ("Uint8Array" for a Buffer and other subclasses), also one of another realm
 * (Jest's tests, `vm`), of which instanceof knows nothing; undefined for everything else, proxies among it.
 */
export function arrayKind(value: unknown): string | undefined {
  return tagOf.call(value);
}

/** Bytes, a Buffer among them, whatever realm they are of. */
export function isBytes(value: unknown): value is Uint8Array {
  return arrayKind(value) === "Uint8Array";
}

const kinds: Readonly<Record<string, DType>> = {
  Float32Array: "float32",
  Float64Array: "float32",
  Int32Array: "int32",
  BigInt64Array: "int64",
  Uint8Array: "uint8",
  Uint8ClampedArray: "uint8",
};

/** The dtype a typed array stands for; throws DtypeError for arrays that stand for none. */
export function dtypeOf(array: ArrayBufferView): DType {
  const kind = arrayKind(array);
  if (kind !== undefined && Object.hasOwn(kinds, kind)) return kinds[kind];
  throw new DtypeError(
    expected(
      "tensor",
      "a Float32Array, Float64Array, Int32Array, BigInt64Array, Uint8Array or numbers",
      kind ?? "a DataView",
    ),
  );
}

/** Throws DtypeError unless `dtype` is one of ours (for values that come from untyped code). */
export function checkDtype(where: string, dtype: unknown): asserts dtype is DType {
  if (typeof dtype !== "string" || !Object.hasOwn(bytes, dtype))
    throw new DtypeError(expected(where, `a dtype (${dtypes.join(", ")})`, shown(dtype)));
}

/** The least whole number that an integer dtype takes, and the first that is too large; bytes wrap below zero, as PyTorch's do. */
const ranges: Partial<Record<DType, readonly [least: number, end: number]>> = {
  uint8: [-255, 2 ** 8],
  int32: [-(2 ** 31), 2 ** 31],
  int64: [-(2 ** 63), 2 ** 63],
};

/** Throws ArgumentError for a number that an integer dtype cannot hold, NaN and infinity among them; fractions are cut off. */
export function checkHolds(where: string, dtype: DType, values: ArrayLike<number | bigint>): void {
  const range = ranges[dtype];
  if (!range) return;
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    const whole = typeof value === "bigint" ? value : Math.trunc(value);
    if (!(whole >= range[0] && whole < range[1]))
      throw new ArgumentError(expected(where, `numbers that ${dtype} can hold`, String(value)));
  }
}

const f32 = new Float32Array(1);
const u32 = new Uint32Array(f32.buffer);

/** The 16 bits of the bfloat16 nearest to `value` (ties to even). */
export function toBfloat16Bits(value: number): number {
  f32[0] = value;
  const bits = u32[0];
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40; // NaN stays NaN
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

export function fromBfloat16Bits(bits: number): number {
  u32[0] = bits << 16;
  return f32[0];
}

/** The 16 bits of the IEEE half nearest to `value` (ties to even; overflow becomes infinity). */
export function toFloat16Bits(value: number): number {
  f32[0] = value;
  const bits = u32[0];
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    // subnormal half: units of 2^-24; Math.round is not ties-to-even, so round by hand
    const scaled = Math.abs(f32[0]) * 16777216;
    const floor = Math.floor(scaled);
    const rest = scaled - floor;
    return sign | (floor + (rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? 1 : 0));
  }
  const rebased = magnitude - 0x38000000;
  return sign | ((rebased + 0xfff + ((rebased >>> 13) & 1)) >>> 13);
}

export function fromFloat16Bits(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Rounds elements [from, to) of `data` to what `dtype` can hold, in place, ties to even. float32 and integers are left alone. */
export function roundTo(dtype: DType, data: HostArray, from = 0, to = data.length): void {
  if (!(data instanceof Float32Array) || dtype === "float32") return;
  const bits = new Uint32Array(data.buffer, data.byteOffset, data.length);
  if (dtype === "bfloat16") {
    for (let i = from; i < to; i++) {
      const b = bits[i];
      if ((b & 0x7fffffff) <= 0x7f800000) bits[i] = (b + 0x7fff + ((b >>> 16) & 1)) & 0xffff0000;
    }
  } else if (dtype === "float16") {
    for (let i = from; i < to; i++) {
      const b = bits[i];
      const magnitude = b & 0x7fffffff;
      // halves below 2^-14 are multiples of 2^-24; those at or above it keep 10 bits of fraction
      if (magnitude < 0x38800000) data[i] = fromFloat16Bits(toFloat16Bits(data[i]));
      else if (magnitude < 0x477ff000) bits[i] = (b + 0xfff + ((b >>> 13) & 1)) & 0xffffe000;
      else if (magnitude <= 0x7f800000) data[i] = data[i] < 0 ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
    }
  }
}
