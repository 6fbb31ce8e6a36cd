import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { deflateRawSync } from "node:zlib";
import fc from "fast-check";
import { createModel, loadWeights, nn, saveSafetensors, type Tensor, tensor, WeightsError } from "seresnet";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parseTorch } from "../dist/lib/io/torch.js";
import {
  bytesOf,
  dictPickle,
  integer,
  type TensorFields,
  tensorOps,
  text,
  torchFile,
  tuple,
  u32,
  type ZipItem,
  zipFile,
} from "./support/torch_writer.js";

const fixtures = join(__dirname, "fixtures", "torch");
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-torch-"));
});
afterAll(() => rm(folder, { recursive: true }));

/** Name, dtype, shape and values of every tensor, sorted by name. */
async function contents(weights: Record<string, Tensor>) {
  const names = Object.keys(weights).sort();
  return Promise.all(
    names.map(async (name) => [name, weights[name].dtype, weights[name].shape, await weights[name].data()]),
  );
}

async function rejection(promise: Promise<unknown>): Promise<WeightsError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(WeightsError);
  return error as WeightsError;
}

/** The one sentence that `bytes` are refused with, read as a file. */
async function refusal(bytes: Uint8Array, name = "bad.pth"): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, bytes);
  const { message } = await rejection(loadWeights(path));
  expect(message.startsWith(`${path}: expected `) || message.startsWith(`${path}: entry `)).toBe(true);
  expect(message).toMatch(/^[^\n]+: expected [^\n]+, got [^\n]+$/);
  expect(message.length - path.length).toBeLessThan(400);
  return message;
}

describe("files that PyTorch wrote", () => {
  test.each([
    ["dtypes.pth", "every dtype, shape and name"],
    ["dtypes.legacy.pth", "the same before PyTorch 1.6"],
    ["dtypes.protocol4.pth", "pickle protocol 4"],
    ["dtypes.protocol5.pth", "pickle protocol 5"],
    ["dtypes.big_endian.pth", "a big-endian machine's"],
    ["views.pth", "views, permuted and expanded strides, shared storage"],
    ["views.legacy.pth", "the same before PyTorch 1.6"],
    ["training.pth", "a state dict"],
    ["training.parameters.pth", "a dict of parameters and buffers"],
    ["training.state_dict.pth", "a wrapper state_dict, names with module."],
    ["training.model.pth", "a wrapper model"],
    ["training.model_state_dict.pth", "a wrapper model_state_dict, names with model.module."],
    ["training.legacy.pth", "a wrapper before PyTorch 1.6"],
  ])("%s: %s", async (name) => {
    const wanted = await loadWeights(join(fixtures, `${name.slice(0, name.indexOf("."))}.safetensors`));
    expect(await contents(await loadWeights(join(fixtures, name)))).toEqual(await contents(wanted));
  });

  test("tell what they are by their content, not their name", async () => {
    const wanted = await contents(await loadWeights(join(fixtures, "training.safetensors")));
    for (const [from, to] of [
      ["training.pth", "zip.safetensors"],
      ["training.legacy.pth", "legacy"],
      ["training.safetensors", "weights.pth"],
    ]) {
      await copyFile(join(fixtures, from), join(folder, to));
      expect(await contents(await loadWeights(join(folder, to)))).toEqual(wanted);
    }
  });

  test("load into a model; its own order of names is kept", async () => {
    const weights = await loadWeights(join(fixtures, "training.state_dict.pth"));
    const model = new nn.Sequential({
      conv: new nn.Conv2d(1, 2, { kernelSize: 3, bias: false }),
      bn: new nn.BatchNorm2d(2),
      fc: new nn.Linear(2, 3),
    });
    expect(Object.keys(weights)).toEqual(Object.keys(model.stateDict()));
    expect(model.loadStateDict(weights)).toEqual({ missingKeys: [], unexpectedKeys: [] });
    expect(await model.stateDict()["fc.bias"].data()).toEqual(await weights["fc.bias"].data());
  });

  test.each([
    ["module.pth", /got a whole module that asks for torch\.nn\.modules\.container\.Sequential$/],
    ["module.pth", /expected a state dict \(torch\.save\(model\.state_dict\(\), path\) writes one\)/],
    [
      "module_legacy.pth",
      /torch\.save\(model\.state_dict\(\), path\).*got a whole module that asks for torch\.nn\.modules\.activation\.Sigmoid$/,
    ],
    ["script.pth", /torch\.save\(model\.state_dict\(\), path\).*got a TorchScript archive, which is a program$/],
    ["no_tensors.pth", /expected a state dict with at least one tensor, got a dict of "epoch", "arch", "lr"$/],
    ["single.pth", /expected a state dict .*, got a single tensor$/],
    ["list.pth", /expected a state dict .*, got a list$/],
    [
      "bool.pth",
      /expected tensor "mask" of a dtype we read \(Float, Double, Half, BFloat16, Long, Int, Byte\), got Bool$/,
    ],
    ["uint16.pth", /asks for torch\._utils\._rebuild_tensor_v3, which/],
    ["sparse.pth", /asks for torch\._utils\._rebuild_sparse_tensor, which a weights file has no use for$/],
    ["namespace.pth", /asks for argparse\.Namespace, which a weights file has no use for$/],
    ["empty.pth", /expected tensor "none" to have at least one element, got shape \[0, 3\]$/],
    ["two.pth", /expected one state dict, got one each in state_dict, model$/],
    [
      "expanded.pth",
      /expected tensor "w" and those before it to take at most \d+ bytes, got \d+, many times the file$/,
    ],
  ])("%s is refused: %s", async (name, message) => {
    expect(await refusal(await readFile(join(fixtures, name)), name)).toMatch(message);
  });

  test.each(["training.pth", "training.legacy.pth", "views.legacy.pth"])(
    "every truncation of %s is refused",
    async (name) => {
      const bytes = await readFile(join(fixtures, name));
      for (let end = 2; end < bytes.length; end++)
        expect(() => parseTorch(bytes.subarray(0, end), name), `${end} bytes`).toThrow(WeightsError);
      expect(await refusal(bytes.subarray(0, 1000))).toMatch(/truncated/);
    },
  );

  test.each(["training.pth", "dtypes.legacy.pth", "dtypes.protocol4.pth"])(
    "a damaged byte in %s: a file or a WeightsError",
    async (name) => {
      const bytes = await readFile(join(fixtures, name));
      fc.assert(
        fc.property(fc.nat(bytes.length - 1), fc.nat(255), (at, value) => {
          const damaged = Uint8Array.from(bytes);
          damaged[at] = value;
          try {
            parseTorch(damaged, name);
          } catch (error) {
            expect(error).toBeInstanceOf(WeightsError);
          }
        }),
        { numRuns: 2000 },
      );
    },
  );
});

describe("names", () => {
  const load = (...names: string[]) =>
    Object.keys(
      parseTorch(torchFile(dictPickle(Object.fromEntries(names.map((name) => [name, tensorOps()])))), "names.pth"),
    );

  test("a prefix that all have goes, in any number", () => {
    expect(load("module.a", "module.b.c")).toEqual(["a", "b.c"]);
    expect(load("_orig_mod.module.a", "_orig_mod.module.b")).toEqual(["a", "b"]);
  });

  test("stay when one lacks the prefix, or would be left without a name", () => {
    expect(load("module.a", "b")).toEqual(["module.a", "b"]);
    expect(load("model.", "model.b")).toEqual(["model.", "model.b"]);
    expect(load("models.a")).toEqual(["models.a"]);
  });

  test("of prototypes are ordinary names", () => {
    expect(load("__proto__", "constructor")).toEqual(["__proto__", "constructor"]);
  });

  test("that are missing are refused", async () => {
    expect(await refusal(torchFile(bytesOf(0x80, 2, "}", "K", 1, tensorOps(), "s.")))).toMatch(
      /expected tensors with names, got one without \(number\)$/,
    );
  });
});

describe("hostile pickles", () => {
  const call = (module: string, name: string) => bytesOf(`c${module}\n${name}\n`, tuple(text("touch /tmp/x")), "R");
  const proto4 = (module: string, name: string) => {
    const short = (value: string) => bytesOf(0x8c, value.length, value);
    return bytesOf(0x80, 4, short(module), short(name), 0x93, tuple(text("touch /tmp/x")), "R.");
  };
  const use = "which a weights file has no use for";
  const cases: [string, Uint8Array, RegExp | string][] = [
    ["os.system", dictPickle({ a: call("os", "system") }), `a pickle that asks for os.system, ${use}`],
    ["posix.system", dictPickle({ a: call("posix", "system") }), `asks for posix.system, ${use}`],
    ["eval", bytesOf(0x80, 2, call("builtins", "eval"), "."), `asks for builtins.eval, ${use}`],
    ["STACK_GLOBAL", proto4("os", "system"), `asks for os.system, ${use}`],
    ["STACK_GLOBAL from the memo", proto4("nt", "system"), `asks for nt.system, ${use}`],
    ["protocol 0", bytesOf("cos\nsystem\n(S'id'\ntR."), `asks for os.system, ${use}`],
    ["INST", bytesOf("(ios\nsystem\n."), `asks for os.system, ${use}`],
    ["a name with a dot", proto4("torch._utils", "os.system"), `asks for torch._utils.os.system, ${use}`],
    ["a name with line breaks", proto4("os\n\n", "system"), `asks for "os\\n\\n.system", ${use}`],
    ["an endless name", proto4("x".repeat(250), "y".repeat(250)), /asks for "x{79}…, which/],
    ["a name like Object's", proto4("constructor", "constructor"), `asks for constructor.constructor, ${use}`],
    [
      "a function of PyTorch's",
      dictPickle({ a: call("torch.storage", "_load_from_bytes") }),
      `_load_from_bytes, ${use}`,
    ],
    ["NEWOBJ", dictPickle({ a: bytesOf("ccollections\nOrderedDict\n)", 0x81) }), /got opcode 0x81 at byte \d+$/],
    ["an extension", dictPickle({ a: bytesOf(0x82, 1) }), /got opcode 0x82 at byte/],
    ["BUILD on a tensor", dictPickle({ a: bytesOf(tensorOps(), "}b") }), /attributes only on dicts/],
    ["calling a string", dictPickle({ a: bytesOf(text("x"), ")R") }), /calls of functions with tuples/],
    ["calling a storage", dictPickle({ a: bytesOf("ctorch\nFloatStorage\n)R") }), /calls of functions with tuples/],
    [
      "a tensor of nothing",
      dictPickle({ a: bytesOf("ctorch._utils\n_rebuild_tensor_v2\n)R") }),
      /with the arguments they take/,
    ],
    [
      "a persistent id of another kind",
      dictPickle({ a: bytesOf(tuple(text("module"), "N"), "Q") }),
      /references to storages/,
    ],
    ["an empty stack", bytesOf(0x80, 2, "s."), /too few before byte/],
    ["reaching below a mark", bytesOf(0x80, 2, "}(s."), /too few before byte/],
    ["no mark", bytesOf(0x80, 2, "}u."), /none before byte/],
    ["nothing", bytesOf(0x80, 2, "."), /with one object, got 0/],
    ["two objects", bytesOf(0x80, 2, "}}."), /with one object, got 2/],
    [
      "a memo entry that is not there",
      bytesOf(0x80, 2, "j", u32(2 ** 32 - 1), "."),
      /one to 4294967295, which did not/,
    ],
    ["no end", bytesOf(0x80, 2, "}"), /with an end, got a file truncated at byte \d+$/],
    ["a string of 4 GB", bytesOf(0x80, 2, "X", u32(2 ** 32 - 1), "."), /with an end, got a file truncated at byte/],
    ["text that is not", bytesOf(0x80, 2, "U", 2, 0xff, 0xfe, "."), /text in UTF-8/],
    ["protocol 9", bytesOf(0x80, 9, "}."), /protocol 2 to 5, got 9/],
    ["a million dicts", bytesOf(0x80, 2, Buffer.alloc(2e6, "}"), "."), /at most 1000000 operations, got more/],
    ["nesting a million deep", bytesOf(0x80, 2, Buffer.alloc(4e5, "]"), Buffer.alloc(399999, "a"), "."), /got a list/],
    ["a list in itself", bytesOf(0x80, 2, "]q\0h\0a."), /got a list/],
    [
      "copies of one long list",
      bytesOf(
        0x80,
        2,
        "](",
        Buffer.from("NN\x86".repeat(1e5), "latin1"),
        "eq\0",
        Buffer.from("ccollections\nOrderedDict\nh\0\x85R".repeat(9), "latin1"),
      ),
      /at most 1000000 operations, got more/,
    ],
  ];
  test.each(cases)("%s", async (_, pickle, message) => {
    const zipped = await refusal(torchFile(pickle));
    if (typeof message === "string") expect(zipped).toContain(message);
    else expect(zipped).toMatch(message);
    if (pickle[0] === 0x80 && pickle[1] <= 5)
      expect((await rejection(Promise.resolve().then(() => parseTorch(pickle, "old.pth")))).message).toMatch(
        /^old\.pth: /,
      );
  });

  test("nothing of a pickle ever runs", async () => {
    const mark = join(folder, "mark");
    const evil = dictPickle({ a: bytesOf("cos\nsystem\n", tuple(text(`touch ${mark}`)), "R"), w: tensorOps() });
    for (const bytes of [torchFile(evil), evil]) expect(await refusal(bytes)).toMatch(/asks for os\.system/);
    await expect(readFile(mark)).rejects.toThrow(/ENOENT/);
  });
});

describe("hostile tensors", () => {
  const cases: [string, TensorFields, RegExp][] = [
    [
      "past its storage",
      { shape: [3] },
      /expected tensor "w" within the 2 elements of its storage, got elements 0 to 3$/,
    ],
    ["offset past its storage", { offset: 2 }, /got elements 2 to 4/],
    ["a negative offset", { offset: -1 }, /with the arguments they take/],
    ["a negative stride", { strides: [-1] }, /an offset and a stride for each dimension, got \[0, -1\]/],
    ["too few strides", { shape: [1, 2] }, /an offset and a stride for each dimension/],
    ["a negative extent", { shape: [-2] }, /a shape of at most 64 whole numbers, got \[-2\]/],
    ["a stride of 2^60", { strides: [2 ** 60] }, /an offset and a stride for each dimension/],
    ["a stride of 2^50", { strides: [2 ** 50] }, /within the 2 elements of its storage/],
    ["70 dimensions", { shape: Array(70).fill(1), strides: Array(70).fill(1) }, /a shape of at most 64 whole numbers/],
    ["2^120 elements", { shape: Array(4).fill(2 ** 30), strides: [0, 0, 0, 0] }, /many times the file/],
    [
      "a storage that claims more than it has",
      { elements: 2 ** 40 },
      /to have a storage of 4398046511104 bytes, got 8$/,
    ],
    [
      "a storage that is not there",
      { key: "7" },
      /with an entry "a\/data\/7", got one with "a\/data\.pkl", "a\/data\/0"$/,
    ],
    ["a storage outside the folder", { key: "../data.pkl" }, /with an entry "a\/data\/\.\.\/data\.pkl"/],
    ["int16", { storage: "ShortStorage" }, /of a dtype we read .*, got Short$/],
    ["a quantised type", { storage: "QInt8Storage" }, /asks for torch\.QInt8Storage, which/],
  ];
  test.each(cases)("%s", async (_, fields, message) => {
    expect(await refusal(torchFile(dictPickle({ w: tensorOps(fields) })))).toMatch(message);
  });

  test("two ideas of one storage are refused", async () => {
    const pickle = dictPickle({ a: tensorOps(), b: tensorOps({ storage: "IntStorage" }) });
    expect(await refusal(torchFile(pickle))).toMatch(/storage "0" to be of one type and size/);
  });

  test("a thousand copies of one storage are refused before memory is", async () => {
    const many = Object.fromEntries(
      Array.from({ length: 1000 }, (_, i) => [`w${i}`, tensorOps({ elements: 25e4, shape: [25e4] })]),
    );
    expect(await refusal(torchFile(dictPickle(many), { 0: new Uint8Array(1e6) }))).toMatch(/many times the file/);
  });

  test("an honest one is read", async () => {
    const weights = parseTorch(
      torchFile(dictPickle({ w: tensorOps() }), { 0: new Uint8Array(Float32Array.of(3, 4).buffer) }),
      "",
    );
    expect(await contents(weights)).toEqual([["w", "float32", [2], Float32Array.of(3, 4)]]);
  });
});

describe("zip files", () => {
  const pickle = { name: "a/data.pkl", data: dictPickle({ w: tensorOps() }) };
  const storage = { name: "a/data/0", data: new Uint8Array(8) };
  const bomb = deflateRawSync(Buffer.alloc(1e7));
  const cases: [string, ZipItem[], { disk?: number; count?: number } | undefined, RegExp][] = [
    [
      "deflated",
      [{ ...pickle, data: deflateRawSync(pickle.data), method: 8, size: pickle.data.length }, storage],
      undefined,
      /entry "a\/data\.pkl": expected to be stored as it is, as torch\.save does, got deflated bytes/,
    ],
    [
      "a bomb",
      [pickle, { ...storage, data: bomb, method: 8, size: 2 ** 32 - 2 }],
      undefined,
      /got deflated bytes, 4294967294 of them/,
    ],
    ["sizes that differ", [pickle, { ...storage, size: 2 ** 31 }], undefined, /got compressed \(method 0\) bytes/],
    ["encrypted", [{ ...pickle, flags: 1 }, storage], undefined, /got encrypted bytes/],
    ["several disks", [pickle, storage], { disk: 1 }, /a zip file in one piece, got a part of a multi-disk archive/],
    [
      "an entry past the end",
      [pickle, { ...storage, packedSize: 2 ** 30 }],
      undefined,
      /to end before byte \d+, got bytes \d+ to \d+/,
    ],
    [
      "an entry that starts past the end",
      [pickle, { ...storage, offset: 2 ** 31 }],
      undefined,
      /got none at byte 2147483648/,
    ],
    [
      "an entry that starts inside another",
      [pickle, { ...storage, offset: 5 }],
      undefined,
      /with a local header, got none at byte 5/,
    ],
    ["an entry twice", [pickle, pickle, storage], undefined, /got entry "a\/data\.pkl" twice/],
    [
      "more entries than there are",
      [pickle, storage],
      { count: 9 },
      /a table of contents of 9 entries in \d+ bytes, got no entry 2/,
    ],
    ["no pickle", [storage], undefined, /with one data\.pkl, got one of "a\/data\/0"$/],
    ["two pickles", [pickle, { ...pickle, name: "b/data.pkl" }], undefined, /with one data\.pkl, got one of "a/],
    ["nothing", [], undefined, /with one data\.pkl, got one of nothing$/],
    [
      "a byte order of no machine",
      [pickle, { name: "a/byteorder", data: Buffer.from("middle") }],
      undefined,
      /byte order little or big, got "middle"/,
    ],
  ];
  test.each(cases)("%s", async (_, items, end, message) => {
    expect(await refusal(zipFile(items, end))).toMatch(message);
  });

  test("a comment after the end is no harm, one that is cut is", async () => {
    const whole = zipFile([pickle, storage], { comment: "hello PK\x05\x06" });
    expect(Object.keys(parseTorch(whole, ""))).toEqual(["w"]);
    expect(await refusal(whole.subarray(0, -3))).toMatch(/truncated or damaged/);
  });

  test("zip64 numbers that point nowhere", async () => {
    const bytes = await readFile(join(fixtures, "training.pth"));
    const locator = bytes.length - 42;
    bytes.writeBigUInt64LE(2n ** 63n, locator + 8);
    expect(await refusal(bytes)).toMatch(/a zip64 end record where the file says it is/);
  });
});

describe("the old format", () => {
  test("other pickles, other versions and other storages are refused", async () => {
    const bytes = await readFile(join(fixtures, "training.legacy.pth"));
    const version = Buffer.from(bytes);
    version.writeUInt16LE(1002, 18);
    expect(await refusal(version)).toMatch(/version 1001 of torch\.save's old format, got 1002$/);
    expect(await refusal(dictPickle({ w: text("x") }))).toMatch(
      /a file that torch\.save wrote, got a pickle of something else$/,
    );
    const magic = bytes.subarray(0, 15);
    const head = bytesOf(magic, 0x80, 2, "M", 0xe9, 3, ".", 0x80, 2, "}.", dictPickle({ w: tensorOps() }));
    const keys = (...names: string[]) => bytesOf(0x80, 2, "](", ...names.map(text), "e.");
    const count = (elements: number) => bytesOf(u32(elements), u32(0));
    const good = bytesOf(head, keys("0"), count(2), new Uint8Array(8));
    expect(Object.keys(parseTorch(good, ""))).toEqual(["w"]);
    expect(await refusal(good.subarray(0, -1))).toMatch(/storage "0" up to byte \d+, got a file that ends at byte/);
    expect(await refusal(bytesOf(head, keys("0"), count(3), new Uint8Array(8)))).toMatch(
      /storage "0" of 2 elements, got 3/,
    );
    for (const wrong of [keys(), keys("1"), keys("0", "0"), bytesOf(0x80, 2, integer(7), ".")])
      expect(await refusal(bytesOf(head, wrong, count(2), new Uint8Array(8)))).toMatch(
        /list of the 1 storages .*, got another/,
      );
  });
});

describe("several safetensors files", () => {
  const index = "model.safetensors.index.json";
  async function write(name: string, content: unknown): Promise<string> {
    const home = join(folder, name);
    await mkdir(home, { recursive: true });
    await saveSafetensors(join(home, "model-1-of-2.safetensors"), { a: tensor([1, 2]), b: tensor([3]) });
    await saveSafetensors(join(home, "model-2-of-2.safetensors"), { "model.c": tensor(Int32Array.of(4)) });
    await writeFile(join(home, index), typeof content === "string" ? content : JSON.stringify(content));
    return join(home, index);
  }
  const [one, two] = ["model-1-of-2.safetensors", "model-2-of-2.safetensors"];
  const map = { a: one, b: one, "model.c": two };

  test("are read as one, names as they are", async () => {
    const path = await write("whole", { metadata: { total_size: 16 }, weight_map: map });
    expect(await contents(await loadWeights(path))).toEqual([
      ["a", "float32", [2], Float32Array.of(1, 2)],
      ["b", "float32", [1], Float32Array.of(3)],
      ["model.c", "int32", [1], Int32Array.of(4)],
    ]);
  });

  test.each([
    [
      "a shard that is missing",
      { weight_map: { ...map, d: "model-3-of-2.safetensors" } },
      /model-3-of-2\.safetensors: expected a safetensors file, got no such file$/,
    ],
    [
      "a tensor its shard lacks",
      { weight_map: { ...map, d: two } },
      /expected "d" in model-2-of-2\.safetensors, got a file without$/,
    ],
    [
      "a tensor the index lacks",
      { weight_map: { a: one } },
      /model-1-of-2\.safetensors to hold what the index says, got "b" as well$/,
    ],
    [
      "a shard above",
      { weight_map: { a: "../x.safetensors" } },
      /tensor "a" in a \.safetensors file beside the index, got "\.\.\/x\.safetensors"$/,
    ],
    ["a shard anywhere", { weight_map: { a: "/etc/x.safetensors" } }, /beside the index, got "\/etc/],
    ["a shard of Windows", { weight_map: { a: "..\\x.safetensors" } }, /beside the index, got/],
    ["a shard of another format", { weight_map: { a: "x.bin" } }, /beside the index, got "x\.bin"/],
    ["a shard that is no name", { weight_map: { a: 1 } }, /beside the index, got 1/],
    ["no map", { metadata: {} }, /an index of shards with a weight_map, got none$/],
    ["an empty map", { weight_map: {} }, /at least one tensor, got an empty weight_map$/],
    ["not an object", "[1]", /an index of shards with a weight_map, got \[1\]$/],
    ["not JSON", '{"weight_map": {', /an index of shards in JSON without repeated keys, got/],
    ["a name twice", `{"weight_map": {"a": "${one}", "a": "${one}"}}`, /duplicate key "a"/],
  ])("%s", async (name, content, message) => {
    const { message: got } = await rejection(loadWeights(await write(name, content)));
    expect(got).toMatch(message);
    expect(got).toMatch(/^[^\n]+: expected [^\n]+, got [^\n]+$/);
  });
});

test("a file of no known content is refused by its name, an empty one too", async () => {
  expect(await refusal(Buffer.from("<html>"))).toMatch(
    /got \.pth \(convert it .*: its content is not what torch\.save writes\)$/,
  );
  expect(await refusal(Buffer.alloc(0), "empty.pt")).toMatch(/got \.pt \(/);
});

test("a whole network travels through a .pth file", async () => {
  const model = createModel("resnet20_cifar", { seed: 1 });
  const named = Object.entries(model.stateDict());
  const storages: Record<string, Uint8Array> = {};
  const entries: Record<string, Buffer> = {};
  for (const [index, [name, value]] of named.entries()) {
    const data = await value.data();
    const strides = value.shape.map((_, axis) =>
      value.shape.slice(axis + 1).reduce((product, extent) => product * extent, 1),
    );
    const storage = value.dtype === "int64" ? "LongStorage" : "FloatStorage";
    storages[index] = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    entries[`module.${name}`] = tensorOps({
      storage,
      key: `${index}`,
      elements: data.length,
      shape: value.shape,
      strides,
    });
  }
  const path = join(folder, "network.pth");
  await writeFile(path, torchFile(dictPickle(entries), storages));
  const other = createModel("resnet20_cifar", { seed: 2 });
  other.loadStateDict(await loadWeights(path));
  expect(await contents(other.stateDict())).toEqual(await contents(model.stateDict()));
});
