import { byteSize, type DType, fromFloat16Bits, type HostArray, toBfloat16Bits, toFloat16Bits } from "../dtype.js";
import { expected, WeightsError } from "../errors.js";
import { isLfsPointer, lfsPointer, type RegularFile, reason, withRegularFile, writeFileAtomic } from "../files.js";
import { constantValue } from "../graph/value.js";
import { share } from "../lazy/flush.js";
import { withUnread } from "../nn/unread.js";
import { Tensor } from "../tensor.js";
import { isObject, parseStrictJson, quoted } from "./json.js";

/** What a safetensors file holds. */
export interface SafetensorsContent {
  tensors: Record<string, Tensor>;
  metadata: Record<string, string>;
}

/**
 * Bytes of a header where nobody allows more: names of a hundred thousand tensors. It is parsed on this thread, some 5 MB a
 * second.
 */
const defaultHeader = 2 ** 24;
/** The format's own limit. */
export const mostHeader = 100_000_000;
const metadataKey = "__metadata__";

/** Names in the file, in the order in which Python's safetensors sorts tensors when it writes: widest first. */
const stored: readonly (readonly [name: string, dtype: DType])[] = [
  ["I64", "int64"],
  ["F32", "float32"],
  ["I32", "int32"],
  ["BF16", "bfloat16"],
  ["F16", "float16"],
  ["U8", "uint8"],
];
const dtypeByName = new Map<string, DType>([...stored, ["F64", "float32"]]); // the widest float here
const rank = new Map(stored.map(([, dtype], index) => [dtype, index]));

/** Bytes of an element of the format's other dtypes, of tensors that are passed over. */
const otherBytes = new Map([
  ["BOOL", 1],
  ["I8", 1],
  ["F8_E4M3", 1],
  ["F8_E5M2", 1],
  ["F8_E8M0", 1],
  ["I16", 2],
  ["U16", 2],
  ["U32", 4],
  ["C64", 8],
  ["U64", 8],
]);

interface Entry {
  name: string;
  /** What it becomes here, or why we cannot hold it. */
  dtype: DType | undefined;
  unread: string | undefined;
  isDouble: boolean;
  shape: number[];
  begin: number;
  end: number;
}

/**
 * Reads a `.safetensors` file: F32, F16, BF16, I64, I32 and U8 tensors (half precisions arrive as Float32Array).
 * Throws WeightsError for a missing, damaged or hostile file, saying what and where; nothing is half-loaded.
 */
export async function readSafetensors(path: string, maxHeader = defaultHeader): Promise<SafetensorsContent> {
  try {
    return await withRegularFile(path, (file) => read(file, path, maxHeader));
  } catch (error) {
    if (error instanceof WeightsError) throw error;
    throw new WeightsError(expected(path, "a safetensors file", reason(error)), { cause: error });
  }
}

/** Each tensor straight into memory of its own: a file is never in memory as a whole beside them. */
async function read(file: RegularFile, path: string, maxHeader: number): Promise<SafetensorsContent> {
  const start = new Uint8Array(Math.min(file.size, 8));
  await file.read([start], 0);
  const json = new Uint8Array(headerLength(start, file.size, path, maxHeader));
  await file.read([json], 8);
  const bodyStart = 8 + json.length;
  const { entries, metadata } = parseHeader(json, file.size - bodyStart, path);
  const bodies = new Map(entries.map((entry) => [entry, new Uint8Array(entry.unread ? 0 : entry.end - entry.begin)]));
  const inOrder = [...bodies].sort(([a], [b]) => a.begin - b.begin);
  // what lies between passed-over tensors is one stretch
  for (let first = 0; first < inOrder.length; ) {
    let last = first;
    while (last < inOrder.length && inOrder[last][0].unread === undefined) last++;
    const pieces = inOrder.slice(first, last).map(([, body]) => body);
    if (pieces.length > 0) await file.read(pieces, bodyStart + inOrder[first][0].begin);
    first = last + 1;
  }
  return { tensors: tensorsOf([...bodies]), metadata };
}

/** The same for bytes already in memory, which are copied; `name` stands in messages where the path would. */
export function parseSafetensors(
  bytes: Uint8Array,
  name = "safetensors",
  maxHeader = defaultHeader,
): SafetensorsContent {
  const bodyStart = 8 + headerLength(bytes, bytes.length, name, maxHeader);
  const { entries, metadata } = parseHeader(bytes.subarray(8, bodyStart), bytes.length - bodyStart, name);
  const body = bytes.subarray(bodyStart);
  // a copy each, so that every tensor owns its bytes and they are aligned, which in the file they need not be
  const copies = entries.map((entry): Body => [entry, new Uint8Array(body.subarray(entry.begin, entry.end))]);
  return { tensors: tensorsOf(copies), metadata };
}

/** An entry of the header, and its bytes in a buffer of their own. */
type Body = readonly [Entry, Uint8Array<ArrayBuffer>];

/** Past `tensor()`, which would copy and round once more what is exact already. */
function tensorsOf(bodies: readonly Body[]): Record<string, Tensor> {
  const tensors: [string, Tensor][] = [];
  const unread = new Map<string, string>();
  for (const [{ name, dtype, shape, isDouble, unread: why }, { buffer }] of bodies) {
    if (why !== undefined || dtype === undefined) {
      unread.set(name, why ?? "");
      continue;
    }
    const data = isDouble ? Float32Array.from(new Float64Array(buffer)) : decodeElements(dtype, buffer);
    tensors.push([name, new Tensor(constantValue(data, Object.freeze(shape), dtype))]);
  }
  const [why] = unread.values();
  if (tensors.length === 0 && why !== undefined) throw new WeightsError(why);
  // fromEntries defines own properties, so a tensor named __proto__ is a tensor and not a prototype
  return withUnread(Object.fromEntries(tensors), unread);
}

function fail(name: string, what: string, got: string, cause?: unknown): never {
  throw new WeightsError(expected(name, what, got), { cause });
}

/** Of the JSON after the first 8 bytes of a file of `size` bytes. */
function headerLength(start: Uint8Array, size: number, name: string, most: number): number {
  if (size < 8) fail(name, "a safetensors file that starts with 8 bytes of header length", `${size} bytes in all`);
  if (isLfsPointer(start)) fail(name, "a safetensors file", lfsPointer);
  const length = new DataView(start.buffer, start.byteOffset, 8).getBigUint64(0, true);
  if (length > most)
    fail(name, `a header of at most ${most} bytes${most < mostHeader ? " (maxHeaderBytes)" : ""}`, `${length}`);
  if (Number(length) > size - 8)
    fail(name, `a header of ${length} bytes`, `a file that ends ${size - 8} bytes after the header length`);
  return Number(length);
}

function parseHeader(json: Uint8Array, bodyBytes: number, name: string) {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(json);
  } catch (error) {
    fail(name, "a header in UTF-8", "bytes that are not", error);
  }
  if (!text.startsWith("{")) fail(name, "a header that starts with {", text === "" ? "nothing" : quoted(text[0]));
  let header: unknown;
  try {
    header = parseStrictJson(text);
  } catch (error) {
    fail(name, "a header in JSON without repeated keys", oneLine(error), error);
  }
  if (!isObject(header)) fail(name, "a header that is a JSON object", quoted(header));
  const metadata = checkMetadata(header[metadataKey], name);
  const entries = Object.entries(header)
    .filter(([key]) => key !== metadataKey)
    .map(([key, value]) => checkEntry(key, value, name));
  checkLayout(entries, bodyBytes, name);
  return { entries, metadata };
}

/** JSON.parse quotes what it could not read, line breaks and all. */
function oneLine(error: unknown): string {
  return reason(error).replace(/\s+/g, " ").slice(0, 160);
}

function checkMetadata(value: unknown, name: string): Record<string, string> {
  if (value === undefined) return {};
  if (!isObject(value)) fail(name, `${metadataKey} to be an object of strings`, quoted(value));
  for (const [key, item] of Object.entries(value))
    if (typeof item !== "string") fail(name, `${metadataKey} entry ${quoted(key)} to be a string`, quoted(item));
  return value as Record<string, string>;
}

function checkEntry(key: string, value: unknown, file: string): Entry {
  const name = quoted(key);
  if (!isObject(value)) fail(file, `tensor ${name} to be an object with dtype, shape and data_offsets`, quoted(value));
  const { dtype: dtypeName, shape, data_offsets: offsets } = value;
  const dtype = typeof dtypeName === "string" ? dtypeByName.get(dtypeName) : undefined;
  const isDouble = dtypeName === "F64";
  const width = dtype ? (isDouble ? 8 : byteSize(dtype)) : otherBytes.get(String(dtypeName));
  const known = [...dtypeByName.keys()].join(", ");
  if (width === undefined) fail(file, `tensor ${name} of a dtype we read (${known})`, quoted(dtypeName));
  let unread = dtype ? undefined : expected(file, `tensor ${name} of a dtype we read (${known})`, quoted(dtypeName));
  if (!Array.isArray(shape) || !shape.every(isCount))
    fail(file, `tensor ${name} to have a shape of whole numbers from 0 to 2^53`, quoted(shape));
  if (shape.includes(0))
    unread ??= expected(file, `tensor ${name} to have at least one element`, `shape ${quoted(shape)}`);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount) || offsets[0] > offsets[1])
    fail(file, `tensor ${name} to have data_offsets [begin, end]`, quoted(offsets));
  const [begin, end] = offsets as number[];
  // a product past 2^53 is inexact but still far from any byte count a file can have
  const bytes = shape.reduce((product: number, extent: number) => product * extent, width);
  if (bytes !== end - begin && unread !== undefined) throw new WeightsError(unread);
  if (bytes !== end - begin)
    fail(file, `tensor ${name} to hold ${bytes} bytes (${dtypeName} ${quoted(shape)})`, `${end - begin} bytes`);
  return { name: key, dtype, unread, isDouble, shape, begin, end };
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** The tensors must cover the body exactly once: no overlap, no hole, nothing past the end, nothing left over. */
function checkLayout(entries: readonly Entry[], bodyBytes: number, file: string): void {
  let cursor = 0;
  let before = "the header";
  for (const { name, begin, end } of [...entries].sort((a, b) => a.begin - b.begin)) {
    const at = `tensor ${quoted(name)}`;
    if (end > bodyBytes) fail(file, `${at} to end within the ${bodyBytes} bytes of data`, `bytes ${begin} to ${end}`);
    if (begin < cursor) fail(file, `${at} to start after ${before}, at byte ${cursor}`, `an overlap at byte ${begin}`);
    if (begin > cursor)
      fail(file, `${at} to start right after ${before}, at byte ${cursor}`, `a hole up to byte ${begin}`);
    cursor = end;
    before = at;
  }
  if (cursor !== bodyBytes)
    fail(file, `data that ends with the last tensor, at byte ${cursor}`, `${bodyBytes - cursor} trailing bytes`);
}

/** The host array of `dtype` for little-endian bytes; half precisions become float32. */
export function decodeElements(dtype: DType, buffer: ArrayBuffer): HostArray {
  switch (dtype) {
    case "float32":
      return new Float32Array(buffer);
    case "int32":
      return new Int32Array(buffer);
    case "int64":
      return new BigInt64Array(buffer);
    case "uint8":
      return new Uint8Array(buffer);
    case "float16":
      return decodeFloat16(new Uint16Array(buffer));
    case "bfloat16":
      return decodeBfloat16(new Uint16Array(buffer));
  }
}

let halves: Float32Array | undefined;

/** All 65,536 halves are computed once: a table is some ten times faster than arithmetic on each element. */
function decodeFloat16(bits: Uint16Array): Float32Array {
  if (halves === undefined) halves = Float32Array.from({ length: 65536 }, (_, half) => fromFloat16Bits(half));
  const table = halves;
  const values = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) values[i] = table[bits[i]];
  return values;
}

/** bfloat16 is the upper half of a float32. */
function decodeBfloat16(bits: Uint16Array): Float32Array {
  const words = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) words[i] = bits[i] << 16;
  return new Float32Array(words.buffer);
}

/**
 * Writes a state dict as one `.safetensors` file, laid out as Python's `safetensors` does and readable by it.
 * The write is atomic: when it fails, an older file at `path` is untouched. Tensors still pending are computed first.
 * Throws WeightsError for a name or metadata that the format cannot hold, and when the file cannot be written.
 */
export async function saveSafetensors(
  path: string,
  stateDict: Record<string, Tensor>,
  metadata: Record<string, string> = {},
): Promise<void> {
  const where = "saveSafetensors";
  if (typeof stateDict !== "object" || stateDict === null) fail(where, "a record of tensors", String(stateDict));
  for (const [key, value] of Object.entries(metadata ?? {}))
    if (typeof value !== "string" || !isWellFormed(key) || !isWellFormed(value))
      fail(where, `metadata ${quoted(key)} to be a well-formed string`, quoted(value));
  const named = Object.entries(stateDict);
  for (const [name, value] of named) {
    if (!(value instanceof Tensor)) fail(where, `a tensor as ${quoted(name)}`, value === null ? "null" : typeof value);
    if (name === metadataKey) fail(where, `tensor names other than ${metadataKey}`, quoted(name));
    if (!isWellFormed(name)) fail(where, "tensor names in well-formed Unicode", quoted(name));
  }
  // asked for in one tick, so that whatever is pending runs as one plan; shared, since nothing here changes them
  const arrays = await Promise.all(named.map(([, { value }]) => share(value)));
  const items = named.map(([name, value], index) => ({ name, value, data: arrays[index] }));
  items.sort((a, b) => order(a.value.dtype) - order(b.value.dtype) || compareUtf8(a.name, b.name));

  let offset = 0;
  const entries = items.map(({ name, value, data }): [string, unknown] => {
    const begin = offset;
    offset += data.length * byteSize(value.dtype);
    return [name, { dtype: stored[order(value.dtype)][0], shape: value.shape, data_offsets: [begin, offset] }];
  });
  if (Object.keys(metadata).length > 0) entries.unshift([metadataKey, metadata]);
  const header = encodeHeader(entries);
  if (header.length - 8 > defaultHeader)
    fail(where, `a header of at most ${defaultHeader} bytes`, `${header.length - 8} (names and metadata together)`);
  try {
    await writeFileAtomic(path, chunks(header, items));
  } catch (error) {
    fail(where, `to write ${path}`, reason(error), error);
  }
}

function* chunks(header: Uint8Array, items: readonly { value: Tensor; data: HostArray }[]): Generator<Uint8Array> {
  yield header;
  for (const { value, data } of items) yield encodeElements(value.dtype, data);
}

/**
 * The 8 bytes of length and the JSON, padded with spaces so that the data starts at a multiple of 8. The JSON is put
 * together entry by entry because an object literal would move names that look like numbers to the front.
 */
function encodeHeader(entries: readonly [string, unknown][]): Uint8Array {
  const fields = entries.map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`);
  const json = Buffer.from(`{${fields.join(",")}}`);
  const header = Buffer.alloc(8 + Math.ceil(json.length / 8) * 8, " ");
  header.writeBigUInt64LE(BigInt(header.length - 8));
  header.set(json, 8);
  return header;
}

/** The little-endian bytes of a host array, as files store `dtype`. */
export function encodeElements(dtype: DType, data: HostArray): Uint8Array {
  if (dtype !== "float16" && dtype !== "bfloat16") return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  const toBits = dtype === "float16" ? toFloat16Bits : toBfloat16Bits;
  const bits = new Uint16Array(data.length);
  for (let i = 0; i < data.length; i++) bits[i] = toBits(data[i] as number);
  return new Uint8Array(bits.buffer);
}

function order(dtype: DType): number {
  return rank.get(dtype) as number;
}

function compareUtf8(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

/** Whether UTF-8 can hold `text`: a surrogate without its partner would come back as another character. */
function isWellFormed(text: string): boolean {
  return Buffer.from(text).toString() === text;
}
