import { expected, listed, WeightsError } from "../../errors.js";
import { withUnread } from "../../nn/unread.js";
import type { Tensor } from "../../tensor.js";
import { quoted } from "../json.js";
import { type Candidate, chooseStateDict, commonPrefix } from "../names.js";
import { dictWork, Inert, type PickleFunction, type PickleWorld, unpickle } from "./pickle.js";
import { isCount, type Storage, type StorageType, StoredTensor, storageTypes, TensorReader } from "./tensor.js";
import { openZip, type ZipArchive } from "./zip.js";

/** The first thing in a file that `torch.save` wrote before it wrote zip files, and the version of that format. */
const legacyMagic = 0x1950a86a20f9469cfc6cn;
const legacyVersion = 1001;
const saveStateDict = "(torch.save(model.state_dict(), path) writes one)";

/**
 * The state dict in the bytes of a `.pth` or `.pt` file as `torch.save` writes it: a zip file, or the format before
 * PyTorch 1.6. The pickle inside is read by an unpickler that knows tensors and dicts and refuses all else by name.
 * float64 becomes float32; `path` stands in messages. See `loadWeights` for wrappers and prefixes.
 * Throws WeightsError, one sentence, for everything that is not such a file.
 */
export function parseTorch(bytes: Uint8Array, path: string): Record<string, Tensor> {
  const isZip = bytes[0] === 0x50;
  const { root, bigEndian } = isZip ? readZipFile(bytes, path) : readLegacyFile(bytes, path);
  const reader = new TensorReader(path, bytes.length, bigEndian);
  const stateDict = [...findStateDict(root, path)];
  const prefix = commonPrefix(stateDict.map(([name]) => name));
  const tensors: [string, Tensor][] = [];
  const unread = new Map<string, string>();
  for (const [name, pickled] of stateDict) {
    const own = name.slice(prefix.length);
    const made = pickled instanceof Inert ? unreadable(path, name, pickled) : reader.read(name, pickled);
    if (typeof made === "string") unread.set(own, made);
    else tensors.push([own, made]);
  }
  const [why] = unread.values();
  if (tensors.length === 0) throw new WeightsError(why);
  // fromEntries defines own properties, so a tensor named __proto__ is a tensor and not a prototype
  return withUnread(Object.fromEntries(tensors), unread);
}

function fail(path: string, what: string, got: string): never {
  throw new WeightsError(expected(path, what, got));
}

/** What is said of a tensor that PyTorch makes in a way of its own: quantised, sparse, distributed. */
function unreadable(path: string, name: string, { name: maker }: Inert): string {
  const got = /qtensor|quant/i.test(maker)
    ? `a quantised one, by ${maker} (.dequantize() converts it)`
    : `one that asks for ${maker}, which a weights file has no use for`;
  return expected(path, `tensor ${quoted(name)} to be numbers in rows`, got);
}

interface TorchFile {
  root: unknown;
  bigEndian: boolean;
}

function readZipFile(bytes: Uint8Array, path: string): TorchFile {
  const zip = openZip(bytes, path);
  const folder = findFolder(zip, path);
  const order = zip.names.includes(`${folder}byteorder`)
    ? Buffer.from(zip.read(`${folder}byteorder`).subarray(0, 16)).toString("latin1")
    : "little";
  if (order !== "little" && order !== "big") fail(path, "byte order little or big", quoted(order));
  const pickle = zip.read(`${folder}data.pkl`);
  const storages = new Map<string, Storage>();
  const world = torchWorld(path, pickle, 0, ({ type, key, elements }) => {
    const bytes = () => zip.read(`${folder}data/${key}`);
    return remember(storages, key, { type, elements, bytes }, path);
  });
  return { root: unpickle(pickle, 0, world).value, bigEndian: order === "big" };
}

/** The folder that all entries are in; its name is the file's when it was saved. */
function findFolder({ names }: ZipArchive, path: string): string {
  const pickles = names.filter((name) => /^([^/]+\/)?data\.pkl$/.test(name));
  if (pickles.length !== 1)
    fail(
      path,
      "a zip file that torch.save wrote, with one data.pkl",
      `one of ${listed(names.map((name) => quoted(name))) || "nothing"}`,
    );
  const folder = pickles[0].slice(0, -"data.pkl".length);
  if (names.includes(`${folder}constants.pkl`))
    fail(path, `a state dict ${saveStateDict}`, "a TorchScript archive, which is a program");
  return folder;
}

/**
 * Five pickles one after another (a magic number, the version, facts about the system, the object, the keys of its
 * storages), then for each key the number of elements and the elements, little-endian on every system.
 */
function readLegacyFile(bytes: Uint8Array, path: string): TorchFile {
  const pending = new Map<string, { type: StorageType; elements: number; data?: Uint8Array }>();
  let at = 0;
  const next = (): unknown => {
    const world = torchWorld(path, bytes, at, ({ type, key, elements }) => {
      const record = pending.get(key) ?? { type, elements };
      pending.set(key, record);
      return remember(storages, key, { type, elements, bytes: () => record.data ?? new Uint8Array() }, path);
    });
    const isFirst = at === 0;
    const { value, end, asked } = unpickle(bytes, at, world);
    if (isFirst && asked !== undefined) world.refuse(asked);
    at = end;
    return value;
  };
  const storages = new Map<string, Storage>();
  if (next() !== legacyMagic) fail(path, "a file that torch.save wrote", "a pickle of something else");
  const version = next();
  if (version !== legacyVersion) fail(path, `version ${legacyVersion} of torch.save's old format`, quoted(version));
  next(); // sizes of C types where it was written; the data does not depend on them
  const root = next();
  const keys = next();
  const isComplete = Array.isArray(keys) && keys.length === pending.size && keys.every((key) => pending.has(key));
  if (!isComplete || new Set(keys).size !== keys.length)
    fail(path, `a list of the ${pending.size} storages that its tensors look at`, "another");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (const key of keys as string[]) {
    const record = pending.get(key) as { type: StorageType; elements: number; data?: Uint8Array };
    const start = at + 8;
    const end = start + record.elements * record.type.bytes;
    if (end > bytes.length)
      fail(path, `storage ${quoted(key)} up to byte ${end}`, `a file that ends at byte ${bytes.length}`);
    const elements = view.getBigInt64(at, true);
    if (elements !== BigInt(record.elements))
      fail(path, `storage ${quoted(key)} of ${record.elements} elements`, `${elements}`);
    record.data = bytes.subarray(start, end);
    at = end;
  }
  return { root, bigEndian: false };
}

interface StorageId {
  type: StorageType;
  key: string;
  elements: number;
}

/** Tensors may share a storage, but they must agree on what it is. */
function remember(storages: Map<string, Storage>, key: string, storage: Storage, path: string): Storage {
  const known = storages.get(key);
  if (known === undefined) storages.set(key, storage);
  else if (known.type !== storage.type || known.elements !== storage.elements)
    fail(path, `storage ${quoted(key)} to be of one type and size`, `${known.type.name} and ${storage.type.name}`);
  return known ?? storage;
}

/** A storage, and the element of it that a view in an old file starts at. */
class StorageView {
  constructor(
    readonly storage: Storage,
    readonly start: number,
  ) {}
}

/** What the pickle that starts at byte `start` of `pickle` may name. */
function torchWorld(path: string, pickle: Uint8Array, start: number, open: (id: StorageId) => Storage): PickleWorld {
  return {
    file: path,
    global: (name) => functions.get(name) ?? storageTypes.get(name.replace(/^torch\.cuda\./, "torch.")),
    refuse(name) {
      // an nn.Module keeps its parts in attributes of these names
      const rest = Buffer.from(pickle.buffer, pickle.byteOffset + start, Math.min(pickle.length - start, 2 ** 24));
      if (rest.includes("_parameters") && rest.includes("_modules"))
        fail(path, `a state dict ${saveStateDict}`, `a whole module that asks for ${name}`);
      fail(path, "a state dict of tensors", `a pickle that asks for ${name}, which a weights file has no use for`);
    },
    persistent(id) {
      const [kind, type, key, , elements, view] = Array.isArray(id) ? id : [];
      if (kind === "storage" && type instanceof Inert) return type; // of elements that only PyTorch knows
      if (kind !== "storage" || !isStorageType(type) || typeof key !== "string" || !isCount(elements)) return undefined;
      const storage = open({ type, key, elements });
      const offset: unknown = Array.isArray(view) ? view[1] : 0;
      if (!isCount(offset)) fail(path, `a view of storage ${quoted(key)} to start at an element`, "something else");
      return new StorageView(storage, offset);
    },
  };
}

function isStorageType(value: unknown): value is StorageType {
  return [...storageTypes.values()].some((type) => type === value);
}

const rebuildTensor: PickleFunction = ([view, offset, shape, strides, , , lazy]) => {
  // a view that is conjugated or negated only when it is read: its storage holds other numbers than it
  if (lazy !== undefined && !(lazy instanceof Map && lazy.size === 0)) return undefined;
  if (view instanceof Inert) return new Inert(view.name, []);
  if (!(view instanceof StorageView && isCount(offset) && Array.isArray(shape) && Array.isArray(strides)))
    return undefined;
  // copied, since a hostile pickle could still append to them; no tensor has more dimensions than 64
  return new StoredTensor(view.storage, view.start + offset, shape.slice(0, 65), strides.slice(0, 65));
};

/** The same with the elements' dtype beside the storage: what kinds of numbers are called for which there is no storage. */
const rebuildTypedTensor: PickleFunction = (args, charge) => {
  const [view, offset, shape, strides, , , dtype] = args;
  const made = rebuildTensor([view, offset, shape, strides], charge);
  if (!(made instanceof StoredTensor && dtype instanceof Inert)) return undefined;
  return new StoredTensor(made.storage, made.offset, made.shape, made.strides, dtype.name.replace(/^torch\./, ""));
};

const orderedDict: PickleFunction = ([pairs = []], charge) => {
  if (!Array.isArray(pairs) || !pairs.every((pair) => Array.isArray(pair) && pair.length === 2)) return undefined;
  charge(dictWork + pairs.length);
  return new Map(pairs as [unknown, unknown][]);
};

const first: PickleFunction = ([value]) => value;

/** A tensor with attributes of its own, or of a subclass: what makes it, its class, and that function's arguments. */
const rebuildFromType: PickleFunction = ([make, , args], charge) =>
  typeof make === "function" && Array.isArray(args) ? (make as PickleFunction)(args, charge) : undefined;

/** Every function a pickle may call. Gradients, hooks and attributes, their other arguments, are no part of weights. */
const functions: ReadonlyMap<string, PickleFunction> = new Map([
  ["torch._utils._rebuild_tensor_v2", rebuildTensor],
  ["torch._utils._rebuild_tensor", rebuildTensor],
  ["torch._utils._rebuild_tensor_v3", rebuildTypedTensor],
  ["torch._tensor._rebuild_from_type_v2", rebuildFromType],
  ["torch._utils._rebuild_parameter", first],
  ["torch._utils._rebuild_parameter_with_state", first],
  ["torch.nn.parameter.Parameter", first],
  ["torch.Size", first],
  ["collections.OrderedDict", orderedDict],
]);

type PickledStateDict = Map<string, StoredTensor | Inert>;

/** The deepest that a training script puts the weights into dicts. */
const mostDepth = 3;

/** A dict of tensors, and where in the file it is. */
interface Found extends Candidate {
  readonly dict: ReadonlyMap<unknown, unknown>;
}

/** The one dict of tensors in a file that are the network's weights. */
function findStateDict(root: unknown, path: string): PickledStateDict {
  if (!(root instanceof Map)) {
    if (root instanceof Inert) refuseInert(root, path);
    const kind = root instanceof StoredTensor ? "a single tensor" : Array.isArray(root) ? "a list" : typeof root;
    fail(path, `a state dict ${saveStateDict}`, kind);
  }
  const chosen = chooseStateDict(collect(root), path);
  if (chosen === undefined) {
    const inert = [...root.values()].find((value) => value instanceof Inert);
    if (inert) refuseInert(inert, path);
    const keys = [...root.keys()].map((key) => (typeof key === "string" ? quoted(key, 40) : typeof key));
    fail(
      path,
      `a state dict with at least one tensor`,
      keys.length > 0 ? `a dict of ${listed(keys)}` : "an empty dict",
    );
  }
  const stateDict: PickledStateDict = new Map();
  for (const [name, value] of chosen.dict) {
    if (!isTensor(value)) {
      // made by other people's code in the place of a tensor: not left out in silence
      if (value instanceof Inert) refuseInert(value, path);
      continue;
    }
    if (typeof name !== "string") fail(path, "tensors with names", `one without (${typeof name})`);
    stateDict.set(name, value);
  }
  return stateDict;
}

/**
 * Every dict with tensors in it that names lead to, not numbers, as they do in an optimiser's state. A pickle may have one
 * dict in very many places: two of them are looked at, which is enough to tell that several are meant.
 */
function collect(root: ReadonlyMap<unknown, unknown>): Found[] {
  const found: Found[] = [];
  const places = new Map<ReadonlyMap<unknown, unknown>, number>();
  const queue = [{ dict: root, where: "", depth: 0 }];
  for (const { dict, where, depth } of queue) {
    const place = (places.get(dict) ?? 0) + 1;
    places.set(dict, place);
    if (place > 2) continue;
    const names = [...dict].flatMap(([name, value]) => (isTensor(value) ? [String(name)] : []));
    if (names.length > 0) found.push({ where, names, dict });
    if (depth === mostDepth) continue;
    for (const [key, value] of dict)
      if (typeof key === "string" && value instanceof Map)
        queue.push({ dict: value, where: where === "" ? key : `${where}.${key}`, depth: depth + 1 });
  }
  return found;
}

/** A tensor, or what PyTorch makes one of in a way of its own. */
function isTensor(value: unknown): value is StoredTensor | Inert {
  return value instanceof StoredTensor || (value instanceof Inert && value.args !== undefined && isTorch(value.name));
}

function isTorch(name: string): boolean {
  return /^torch\.(_utils|_tensor|[A-Z]\w*Storage|sparse|distributed|ao)\b/.test(name);
}

function refuseInert({ name }: Inert, path: string): never {
  const isModule = /^(torch\.nn|__main__|torchvision|timm)\b/.test(name);
  if (isModule) fail(path, `a state dict ${saveStateDict}`, `a whole module that asks for ${name}`);
  fail(path, "a state dict of tensors", `a pickle that asks for ${name}, which a weights file has no use for`);
}
