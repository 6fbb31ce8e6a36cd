import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { deflateRawSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parseTorch } from "#lib/io/torch/state_dict.js";
import {
  bytesOf,
  dictPickle,
  type TensorFields,
  tensorOps,
  text,
  torchFile,
  tuple,
  u32,
  type ZipItem,
  zipFile,
} from "./support/torch_writer.js";
import { contents, refusal, rejection } from "./support/weights_files.js";

const fixtures = join(__dirname, "fixtures", "torch");
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-hostile-"));
});
afterAll(() => rm(folder, { recursive: true }));

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
    const zipped = await refusal(folder, torchFile(pickle));
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
    for (const bytes of [torchFile(evil), evil]) expect(await refusal(folder, bytes)).toMatch(/asks for os\.system/);
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
    ["a view negated when read", { lazy: bytesOf("}", text("neg"), 0x88, "s") }, /with the arguments they take/],
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
    expect(await refusal(folder, torchFile(dictPickle({ w: tensorOps(fields) })))).toMatch(message);
  });

  test("two ideas of one storage are refused", async () => {
    const pickle = dictPickle({ a: tensorOps(), b: tensorOps({ storage: "IntStorage" }) });
    expect(await refusal(folder, torchFile(pickle))).toMatch(/storage "0" to be of one type and size/);
  });

  test("a thousand copies of one storage are refused before memory is", async () => {
    const many = Object.fromEntries(
      Array.from({ length: 1000 }, (_, i) => [`w${i}`, tensorOps({ elements: 25e4, shape: [25e4] })]),
    );
    expect(await refusal(folder, torchFile(dictPickle(many), { 0: new Uint8Array(1e6) }))).toMatch(
      /many times the file/,
    );
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
    ["no names but many entries", [], { count: 65535 }, /of 65535 entries in 0 bytes, got no entry 0/],
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
    expect(await refusal(folder, zipFile(items, end))).toMatch(message);
  });

  test("a comment after the end is no harm, one that is cut is", async () => {
    const whole = zipFile([pickle, storage], { comment: "hello PK\x05\x06" });
    expect(Object.keys(parseTorch(whole, ""))).toEqual(["w"]);
    expect(await refusal(folder, whole.subarray(0, -3))).toMatch(/truncated or damaged/);
  });

  test("zip64 numbers that point nowhere", async () => {
    const bytes = await readFile(join(fixtures, "training.pth"));
    const locator = bytes.length - 42;
    bytes.writeBigUInt64LE(2n ** 63n, locator + 8);
    expect(await refusal(folder, bytes)).toMatch(/a zip64 end record where the file says it is/);
  });
});
