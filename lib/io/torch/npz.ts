import { expected, WeightsError } from "../../errors.js";
import type { Tensor } from "../../tensor.js";
import { quoted } from "../json.js";
import { type Storage, type StorageType, StoredTensor, storageTypes, TensorReader } from "./tensor.js";
import { openZip } from "./zip.js";

/** All arrays of a file together, unpacked, where nobody says more. */
const defaultMost = 2 ** 30;
const magic = "\x93NUMPY";

/** Element types by numpy's names, without the byte order. */
const kinds: Readonly<Record<string, string>> = {
  f4: "Float",
  f8: "Double",
  f2: "Half",
  i8: "Long",
  i4: "Int",
  u1: "Byte",
};

/**
 * The arrays of an `.npz` file, as `numpy.savez` and `numpy.savez_compressed` write it, by name. float64 becomes float32.
 * `path` stands in messages. Throws WeightsError for a truncated or damaged file, for other dtypes (arrays of Python
 * objects among them, which nothing here could run), and for more than `mostBytes` when unpacked, default 1 GiB.
 */
export function parseNpz(bytes: Uint8Array, path: string, mostBytes = defaultMost): Record<string, Tensor> {
  const zip = openZip(bytes, path, { unpacked: mostBytes, checksums: true });
  const arrays = zip.names.map((entry) => {
    if (!entry.endsWith(".npy")) fail(path, "a file that numpy.savez wrote, of .npy entries alone", quoted(entry));
    const name = entry.slice(0, -".npy".length);
    const packed = zip.read(entry);
    const { stored, bigEndian } = parseNpy(packed, `${path}: array ${quoted(name)}`);
    const tensor = new TensorReader(path, packed.length, bigEndian).read(name, stored);
    if (typeof tensor === "string") throw new WeightsError(tensor);
    return [name, tensor] as const;
  });
  if (arrays.length === 0) fail(path, "at least one array", "none");
  return Object.fromEntries(arrays);
}

function fail(where: string, what: string, got: string): never {
  throw new WeightsError(expected(where, what, got));
}

/** One array in the format of numpy.lib.format: a magic word, a version, a header that is a Python dict, the elements. */
function parseNpy(bytes: Uint8Array, where: string): { stored: StoredTensor; bigEndian: boolean } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const start = bytes.length >= 12 && bytes[6] === 1 ? 10 : 12;
  if (bytes.length < start || Buffer.from(bytes.subarray(0, 6)).toString("latin1") !== magic || bytes[6] > 3)
    fail(where, "numpy's format, version 1 to 3", "something else");
  const data = start + (start === 10 ? view.getUint16(8, true) : view.getUint32(8, true));
  if (data > bytes.length) fail(where, `a header of ${data - start} bytes`, `${bytes.length - start}`);
  const header = Buffer.from(bytes.subarray(start, data)).toString("latin1");
  const { type, bigEndian } = parseType(/'descr': *('[^']*'|\[)/.exec(header)?.[1] ?? "none", where);
  const order = /'fortran_order': *(True|False)/.exec(header)?.[1];
  const extents = /'shape': *\(([\d, ]*)\)/.exec(header)?.[1];
  if (order === undefined || extents === undefined)
    fail(where, "a header with fortran_order and shape", quoted(header));
  const shape = extents
    .split(",")
    .filter((extent) => extent.trim() !== "")
    .map(Number);
  const elements = Math.floor((bytes.length - data) / type.bytes);
  const count = shape.reduce((product, extent) => product * extent, 1);
  if (count !== elements || (bytes.length - data) % type.bytes !== 0)
    fail(where, `${count} elements of ${type.bytes} bytes`, `${bytes.length - data} bytes`);
  const storage: Storage = { type, elements, bytes: () => bytes.subarray(data) };
  return { stored: new StoredTensor(storage, 0, shape, strides(shape, order === "True")), bigEndian };
}

/** `'<f4'`: byte order and element type. */
function parseType(text: string, where: string): { type: StorageType; bigEndian: boolean } {
  const [, order, kind = ""] = /^'([<>|=])(\w+)'$/.exec(text) ?? [];
  const type = storageTypes.get(`torch.${Object.hasOwn(kinds, kind) ? kinds[kind] : ""}Storage`);
  const got = text === "[" ? "structures" : text === "'|O'" ? "Python objects" : text;
  if (!type) fail(where, `a dtype we read (${Object.keys(kinds).join(", ")})`, got);
  return { type, bigEndian: order === ">" };
}

/** Steps in elements: the last axis is dense, in Fortran's order the first. */
function strides(shape: readonly number[], isFortran: boolean): number[] {
  const axes = [...shape.keys()];
  const steps = new Array<number>(shape.length);
  let step = 1;
  for (const axis of isFortran ? axes : axes.reverse()) {
    steps[axis] = step;
    step *= shape[axis];
  }
  return steps;
}
