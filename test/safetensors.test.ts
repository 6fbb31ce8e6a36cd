import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { functional, loadWeights, saveSafetensors, type Tensor, tensor, WeightsError } from "seresnet";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { writeFileAtomic } from "#lib/files.js";
import { type CheckpointInfo, parseCheckpointInfo, readCheckpoint, writeCheckpoint } from "#lib/io/checkpoint.js";
import { parseSafetensors, readSafetensors } from "#lib/io/safetensors.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-safetensors-"));
});
afterAll(() => rm(folder, { recursive: true }));

/** The bytes of a file: the length, the header as given (text, bytes, or a value written as JSON), the data. */
function file(header: unknown, data: Uint8Array | number = 0, length?: number | bigint): Uint8Array {
  const json =
    header instanceof Uint8Array ? header : Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(length ?? json.length));
  return Buffer.concat([prefix, json, typeof data === "number" ? Buffer.alloc(data) : data]);
}

function f32(shape: unknown, begin: unknown, end: unknown): Record<string, unknown> {
  return { dtype: "F32", shape, data_offsets: [begin, end] };
}

async function rejection(promise: Promise<unknown>): Promise<WeightsError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(WeightsError);
  return error as WeightsError;
}

// What Python's safetensors 0.8.0 writes:
//   save({"b.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array([1.5, -2], np.float16),
//         "n": np.array(7, np.int64), "i": np.array([[-1]], np.int32), "u": np.array([1, 2, 255], np.uint8),
//         "é": np.array([0.1], np.float32)}, metadata={"format": "np"})
const golden = Buffer.from(
  "eAEAAAAAAAB7Il9fbWV0YWRhdGFfXyI6eyJmb3JtYXQiOiJucCJ9LCJuIjp7ImR0eXBlIjoiSTY0Iiwic2hhcGUiOltdLCJkYXRhX29mZnNldHMi" +
    "OlswLDhdfSwiYi53ZWlnaHQiOnsiZHR5cGUiOiJGMzIiLCJzaGFwZSI6WzIsM10sImRhdGFfb2Zmc2V0cyI6WzgsMzJdfSwiw6kiOnsiZHR5cGUi" +
    "OiJGMzIiLCJzaGFwZSI6WzFdLCJkYXRhX29mZnNldHMiOlszMiwzNl19LCJpIjp7ImR0eXBlIjoiSTMyIiwic2hhcGUiOlsxLDFdLCJkYXRhX29m" +
    "ZnNldHMiOlszNiw0MF19LCJhIjp7ImR0eXBlIjoiRjE2Iiwic2hhcGUiOlsyXSwiZGF0YV9vZmZzZXRzIjpbNDAsNDRdfSwidSI6eyJkdHlwZSI6" +
    "IlU4Iiwic2hhcGUiOlszXSwiZGF0YV9vZmZzZXRzIjpbNDQsNDddfX0gICAgICAgBwAAAAAAAAAAAAAAAACAPwAAAEAAAEBAAACAQAAAoEDNzMw9" +
    "/////wA+AMABAv8=",
  "base64",
);

describe("reading", () => {
  test("Python's file: every dtype, shape and value, whatever the alignment", async () => {
    for (let shift = 0; shift < 8; shift++) {
      const room = shift % 2 ? Buffer.alloc(golden.length + 8) : new Uint8Array(golden.length + 8);
      room.set(golden, shift);
      const { tensors, metadata } = parseSafetensors(room.subarray(shift, shift + golden.length), "golden");
      expect(metadata).toEqual({ format: "np" });
      expect(Object.keys(tensors)).toEqual(["n", "b.weight", "é", "i", "a", "u"]);
      const held = Object.entries(tensors).map(async ([name, t]) => [name, t.dtype, t.shape, await t.data()]);
      expect(await Promise.all(held)).toEqual([
        ["n", "int64", [], BigInt64Array.of(7n)],
        ["b.weight", "float32", [2, 3], Float32Array.of(0, 1, 2, 3, 4, 5)],
        ["é", "float32", [1], Float32Array.of(0.1)],
        ["i", "int32", [1, 1], Int32Array.of(-1)],
        ["a", "float16", [2], Float32Array.of(1.5, -2)],
        ["u", "uint8", [3], Uint8Array.of(1, 2, 255)],
      ]);
    }
  });

  test("half precisions: normal, subnormal, infinite, not a number", async () => {
    const halves = Uint16Array.of(0x3c00, 0x0001, 0x8000, 0xfc00, 0x7e00, 0x7bff);
    const brains = Uint16Array.of(0x3f80, 0x0001, 0x8000, 0xff80, 0x7fc0, 0x7f7f);
    const header = {
      half: { dtype: "F16", shape: [6], data_offsets: [0, 12] },
      brain: { dtype: "BF16", shape: [6], data_offsets: [12, 24] },
    };
    const data = Buffer.concat([new Uint8Array(halves.buffer), new Uint8Array(brains.buffer)]);
    const { half, brain } = parseSafetensors(file(header, data)).tensors;
    expect([half.dtype, brain.dtype]).toEqual(["float16", "bfloat16"]);
    expect(await half.data()).toEqual(Float32Array.of(1, 2 ** -24, -0, Number.NEGATIVE_INFINITY, Number.NaN, 65504));
    expect(await brain.data()).toEqual(
      Float32Array.of(1, 2 ** -133, -0, Number.NEGATIVE_INFINITY, Number.NaN, 255 * 2 ** 120),
    );
  });

  test("a tensor named __proto__ is a tensor, and so are constructor and a number", async () => {
    const header =
      '{"__proto__":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"constructor":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},"7":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}';
    const { tensors } = parseSafetensors(file(header, Uint8Array.of(5, 6, 7)));
    expect(Object.keys(tensors).sort()).toEqual(["7", "__proto__", "constructor"]);
    expect(Object.getPrototypeOf(tensors)).toBe(Object.prototype);
    const own = Object.getOwnPropertyDescriptor(tensors, "__proto__")?.value as Tensor;
    expect(await own.data()).toEqual(Uint8Array.of(5));
    expect(({} as Record<string, unknown>).dtype).toBeUndefined();
  });

  test("no tensors at all, and tensors listed in another order than they are stored", async () => {
    expect(parseSafetensors(file({}))).toEqual({ tensors: {}, metadata: {} });
    const { a, b } = parseSafetensors(
      file({ b: f32([1], 4, 8), a: f32([1], 0, 4) }, new Uint8Array(Float32Array.of(1, 2).buffer)),
    ).tensors;
    expect([await a.item(), await b.item()]).toEqual([1, 2]);
  });
});

test("a header's limit is an option", async () => {
  const path = join(folder, "header.safetensors");
  await writeFile(path, file(JSON.stringify({ a: f32([2], 0, 8), __metadata__: { note: "x".repeat(1000) } }), 8));
  expect(Object.keys(await loadWeights(path, { maxHeaderBytes: 2000 }))).toEqual(["a"]);
  await expect(loadWeights(path, { maxHeaderBytes: 1000 })).rejects.toThrow(
    /a header of at most 1000 bytes \(maxHeaderBytes\), got 1\d+$/,
  );
  await expect(loadWeights(path, { maxHeaderBytes: 2e8 })).rejects.toThrow("maxHeaderBytes to be at most 100000000");
});

describe("bad files are refused, saying what and where", () => {
  const two = (second: Record<string, unknown>) => ({ first: f32([2], 0, 8), second });
  const cases: [name: string, bytes: Uint8Array, message: RegExp][] = [
    ["empty", new Uint8Array(), /8 bytes of header length, got 0 bytes/],
    ["shorter than the length", new Uint8Array(7), /got 7 bytes/],
    ["header over the limit", file("{}", 0, 2 ** 24 + 1), /at most 16777216 bytes \(maxHeaderBytes\), got 16777217/],
    ["header length of 2^64 - 1", file("{}", 0, 2n ** 64n - 1n), /got 18446744073709551615/],
    ["header past the end", file("{}", 0, 3), /a header of 3 bytes, got a file that ends 2 bytes/],
    ["header of no bytes", file(""), /starts with \{, got nothing/],
    ["not UTF-8", file(Buffer.from([0x7b, 0xff, 0xfe, 0x7d])), /header in UTF-8/],
    ["a byte order mark", file("\ufeff{}"), /starts with \{/],
    ["leading space", file(" {}"), /starts with \{, got " "/],
    ["an array", file("[]"), /starts with \{, got "\["/],
    ["not JSON", file("{no json\n}"), /header in JSON/],
    ["an open string", file('{"a'), /header in JSON/],
    ["JSON cut short", file('{"a":{"dtype":"F32"'), /header in JSON/],
    ["nested beyond reason", file(`{"a":${"[".repeat(100_000)}`), /nesting deeper than 64/],
    [
      "two tensors of one name",
      file(
        '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        1,
      ),
      /duplicate key "a" at position 53/,
    ],
    ["one name spelled twice", file('{"a":1,"\\u0061":1}'), /duplicate key "a"/],
    ["__proto__ twice", file('{"__proto__":1,"__proto__":1}'), /duplicate key "__proto__"/],
    [
      "a key twice in an entry",
      file('{"a":{"dtype":"U8","shape":[1],"shape":[2],"data_offsets":[0,1]}}', 1),
      /duplicate key "shape"/,
    ],
    ["a key twice in the metadata", file('{"__metadata__":{"k":"1","k":"2"}}'), /duplicate key "k"/],
    ["metadata that is a list", file({ __metadata__: [] }), /__metadata__ to be an object of strings, got \[\]/],
    ["metadata that is null", file('{"__metadata__":null}'), /__metadata__ to be an object of strings, got null/],
    ["metadata with a number", file({ __metadata__: { epoch: 3 } }), /entry "epoch" to be a string, got 3/],
    ["an entry that is no object", file({ a: 3 }), /tensor "a" to be an object .*, got 3/],
    ["an entry that is null", file({ a: null }), /tensor "a" to be an object .*, got null/],
    [
      "an unknown dtype",
      file({ a: { ...f32([1], 0, 4), dtype: "F8_E4M3" } }, 4),
      /tensor "a" of a dtype we read .*, got "F8_E4M3"/,
    ],
    ["float64 of other bytes", file({ a: { ...f32([1], 0, 4), dtype: "F64" } }, 4), /to hold 8 bytes \(F64/],
    ["no dtype", file({ a: { shape: [1], data_offsets: [0, 4] } }, 4), /got undefined/],
    ["a dtype named like a method", file({ a: { ...f32([1], 0, 4), dtype: "constructor" } }, 4), /got "constructor"/],
    ["a negative extent", file({ a: f32([-1], 0, 4) }, 4), /tensor "a" to have a shape .*, got \[-1\]/],
    ["a fractional extent", file({ a: f32([1.5], 0, 6) }, 6), /got \[1.5\]/],
    ["an extent past 2^53", file({ a: f32([2 ** 60], 0, 4) }, 4), /from 0 to 2\^53, got \[1152921504606847000\]/],
    ["an extent in a string", file({ a: f32(["1"], 0, 4) }, 4), /got \["1"\]/],
    ["a shape that is no list", file({ a: f32(1, 0, 4) }, 4), /tensor "a" to have a shape .*, got 1/],
    [
      "huge extents",
      file({ a: f32([2 ** 50, 2 ** 50], 0, 4) }, 4),
      /tensor "a" to hold 5.07\S+e\+30 bytes .*, got 4 bytes/,
    ],
    [
      "a tensor without elements",
      file({ a: f32([3, 0], 0, 0) }),
      /tensor "a" to have at least one element, got shape \[3,0\]/,
    ],
    [
      "too few bytes for the shape",
      file({ a: f32([3], 0, 8) }, 8),
      /tensor "a" to hold 12 bytes \(F32 \[3\]\), got 8 bytes/,
    ],
    ["too many bytes for the shape", file({ a: f32([], 0, 8) }, 8), /to hold 4 bytes \(F32 \[\]\), got 8 bytes/],
    ["offsets backwards", file({ a: f32([1], 4, 0) }, 4), /data_offsets \[begin, end\], got \[4,0\]/],
    ["a negative offset", file({ a: f32([1], -4, 0) }, 4), /got \[-4,0\]/],
    ["a fractional offset", file({ a: f32([1], 0.5, 4.5) }, 8), /got \[0.5,4.5\]/],
    ["three offsets", file({ a: { dtype: "F32", shape: [1], data_offsets: [0, 4, 8] } }, 4), /got \[0,4,8\]/],
    ["no offsets", file({ a: { dtype: "F32", shape: [1] } }, 4), /data_offsets \[begin, end\], got undefined/],
    [
      "data cut short",
      file({ a: f32([4], 0, 16) }, 12),
      /tensor "a" to end within the 12 bytes of data, got bytes 0 to 16/,
    ],
    [
      "out of range",
      file(two(f32([1], 800, 804)), 12),
      /tensor "second" to end within the 12 bytes of data, got bytes 800 to 804/,
    ],
    [
      "overlap",
      file(two(f32([2], 4, 12)), 12),
      /tensor "second" to start after tensor "first", at byte 8, got an overlap at byte 4/,
    ],
    ["the same bytes twice", file(two(f32([2], 0, 8)), 8), /got an overlap at byte 0/],
    [
      "a hole",
      file(two(f32([1], 12, 16)), 16),
      /tensor "second" to start right after tensor "first", at byte 8, got a hole up to byte 12/,
    ],
    [
      "a hole at the start",
      file({ a: f32([1], 4, 8) }, 8),
      /right after the header, at byte 0, got a hole up to byte 4/,
    ],
    ["trailing bytes", file({ a: f32([1], 0, 4) }, 7), /at byte 4, got 3 trailing bytes/],
    ["data without tensors", file({}, 2), /got 2 trailing bytes/],
  ];
  test.each(cases)("%s", async (_, bytes, message) => {
    expect(() => parseSafetensors(bytes, "bad.safetensors")).toThrow(WeightsError);
    expect(() => parseSafetensors(bytes, "bad.safetensors")).toThrow(/^bad\.safetensors: expected [^\n]+, got [^\n]+$/);
    expect(() => parseSafetensors(bytes, "bad.safetensors")).toThrow(message);
    const path = join(folder, "bad.safetensors");
    await writeFile(path, bytes);
    expect((await rejection(loadWeights(path))).message).toMatch(message);
  });

  test("a name of a megabyte is cut short in the message", () => {
    const bytes = file({ ["x".repeat(1e6)]: 0 });
    const message = (() => {
      try {
        parseSafetensors(bytes, "bad");
      } catch (error) {
        return (error as Error).message;
      }
    })();
    expect(message?.length).toBeLessThan(250);
  });

  test("any single damaged byte of the header gives the file or a WeightsError", () => {
    fc.assert(
      fc.property(fc.nat(golden.length - 1), fc.nat(255), (at, value) => {
        const bytes = Uint8Array.from(golden);
        bytes[at] = value;
        try {
          parseSafetensors(bytes, "damaged");
        } catch (error) {
          expect(error).toBeInstanceOf(WeightsError);
        }
      }),
      { numRuns: 500 },
    );
  });

  test("every truncation is refused", () => {
    for (let end = 0; end < golden.length; end++)
      expect(() => parseSafetensors(golden.subarray(0, end), "cut"), `${end} bytes`).toThrow(WeightsError);
  });
});

describe("loadWeights", () => {
  test.each([
    ["nowhere.safetensors", /nowhere\.safetensors: expected a safetensors file, got no such file/],
    ["nowhere.pth", /nowhere\.pth: expected a weights file, got no such file/],
    [".", /expected a weights file, got a folder/],
    ["folder.safetensors", /expected a safetensors file, got a folder/],
    ["model.pth", /expected a file that torch\.save wrote, got one that begins "x"$/],
    ["empty.pth", /expected a file that torch\.save wrote, got an empty file$/],
    ["pointer.pth", /expected a file that torch\.save wrote, got a Git LFS pointer \(git lfs pull brings the file/],
    ["pointer.safetensors", /expected a safetensors file, got a Git LFS pointer \(git lfs pull brings the file/],
    ["model.onnx", /expected a \.safetensors file, got \.onnx/],
    ["model", /expected a \.safetensors file, got no extension/],
  ])("%s", async (name, message) => {
    await mkdir(join(folder, "folder.safetensors"), { recursive: true });
    for (const plain of ["model.pth", "model.onnx", "model"]) await writeFile(join(folder, plain), "x");
    await writeFile(join(folder, "empty.pth"), "");
    for (const pointer of ["pointer.pth", "pointer.safetensors"])
      await writeFile(join(folder, pointer), "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n");
    expect((await rejection(loadWeights(join(folder, name)))).message).toMatch(message);
  });

  test("not a path", async () => {
    expect((await rejection(loadWeights(""))).message).toMatch(
      /^loadWeights: expected the path of a weights file, got ""$/,
    );
  });
});

describe("writing", () => {
  const stateDict = () => ({
    u: tensor(Uint8Array.of(1, 2, 255)),
    é: tensor([0.1]),
    "b.weight": tensor([0, 1, 2, 3, 4, 5], [2, 3]),
    i: tensor(Int32Array.of(-1), [1, 1]),
    n: tensor(BigInt64Array.of(7n), []),
    a: tensor([1.5, -2], [2], { dtype: "float16" }),
  });

  test("gives byte for byte what Python's safetensors writes", async () => {
    const path = join(folder, "same.safetensors");
    await saveSafetensors(path, stateDict(), { format: "np" });
    expect((await readFile(path)).equals(golden)).toBe(true);
  });

  test("computes tensors that are still pending", async () => {
    const path = join(folder, "pending.safetensors");
    await saveSafetensors(path, { sum: tensor([1, 2]).add(tensor([10, 20])) });
    expect(await (await loadWeights(path)).sum.data()).toEqual(Float32Array.of(11, 22));
  });

  test("round trip of any names, dtypes, shapes, bits and metadata", async () => {
    const name = fc.string({ unit: "binary", maxLength: 12 }).filter((text) => text !== "__metadata__");
    const shape = fc.array(fc.integer({ min: 1, max: 4 }), { maxLength: 4 });
    const item = fc
      .tuple(shape, fc.constantFrom("float32", "float16", "bfloat16", "int32", "int64", "uint8"), fc.nat())
      .map(([extents, dtype, seed]) => {
        const size = extents.reduce((a, b) => a * b, 1);
        const values = Array.from({ length: size }, (_, i) => ((seed % 1009) * (i + 1)) / 7 - 300);
        if (dtype === "int32") return tensor(Int32Array.from(values), extents);
        if (dtype === "int64")
          return tensor(
            BigInt64Array.from(values, (v) => BigInt(Math.trunc(v)) << 32n),
            extents,
          );
        if (dtype === "uint8") return tensor(Uint8Array.from(values), extents);
        return tensor(values, extents, { dtype: dtype as "float32" | "float16" | "bfloat16" });
      });
    const path = join(folder, "round.safetensors");
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(name, item), { maxLength: 6 }),
        fc.array(fc.tuple(name, fc.string({ unit: "binary" })), { maxLength: 3 }),
        async (tensors, entries) => {
          const stateDict: Record<string, Tensor> = Object.fromEntries(tensors);
          const metadata: Record<string, string> = Object.fromEntries(entries);
          await saveSafetensors(path, stateDict, metadata);
          const read = await readSafetensors(path);
          expect(read.metadata).toEqual(metadata);
          expect(Object.keys(read.tensors).sort()).toEqual(Object.keys(stateDict).sort());
          for (const [key, value] of Object.entries(read.tensors)) {
            const original = Object.getOwnPropertyDescriptor(stateDict, key)?.value as Tensor;
            expect([value.dtype, value.shape, await value.data()]).toEqual([
              original.dtype,
              original.shape,
              await original.data(),
            ]);
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  test("refuses what the format cannot hold", async () => {
    const path = join(folder, "never.safetensors");
    const one = tensor([1]);
    expect((await rejection(saveSafetensors(path, { __metadata__: one }))).message).toMatch(
      /names other than __metadata__/,
    );
    expect((await rejection(saveSafetensors(path, { "\ud800": one }))).message).toMatch(/well-formed/);
    const untyped = { epoch: 3 } as unknown as Record<string, string>;
    expect((await rejection(saveSafetensors(path, { one }, untyped))).message).toMatch(/metadata "epoch" .*, got 3/);
    expect(await readdir(folder)).not.toContain("never.safetensors");
  });

  test("a write that fails leaves the old file and no temporary one", async () => {
    const home = await mkdtemp(join(folder, "atomic-"));
    const path = join(home, "weights.safetensors");
    await saveSafetensors(path, { old: tensor([1]) });
    const before = await readFile(path);

    function* broken(): Generator<Uint8Array> {
      yield new Uint8Array(100_000);
      throw new Error("the power went");
    }
    await expect(writeFileAtomic(path, broken())).rejects.toThrow("the power went");
    const failing = functional.crossEntropy(tensor([[1, 2]]), tensor(Int32Array.of(9))); // no class 9
    await expect(saveSafetensors(path, { failing })).rejects.toThrow("9 at position 0");
    expect(await readdir(home)).toEqual(["weights.safetensors"]);
    expect((await readFile(path)).equals(before)).toBe(true);
  });

  test("a path that cannot be written is a WeightsError, and nothing is left behind", async () => {
    const home = await mkdtemp(join(folder, "unwritable-"));
    await mkdir(join(home, "taken", "inside"), { recursive: true });
    const one = { one: tensor([1]) };
    expect((await rejection(saveSafetensors(join(home, "taken"), one))).message).toMatch(
      /^saveSafetensors: expected to write .*taken, got a folder$/,
    );
    expect((await rejection(saveSafetensors(join(home, "no", "x.safetensors"), one))).message).toMatch(
      /got no such file/,
    );
    expect(await readdir(home)).toEqual(["taken"]);
  });
});

describe("checkpoints", () => {
  const info: CheckpointInfo = {
    model: "seresnet14_cifar",
    options: { numClasses: 2, inChannels: 1 },
    classes: ["cat", "dog"],
    inputSize: [1, 28, 28],
    mean: [0.286],
    std: [0.353],
    interpolation: "bilinear",
    cropPct: 1,
  };

  test("weights and what belongs to them come back", async () => {
    const path = join(folder, "checkpoint.safetensors");
    await writeCheckpoint(path, { w: tensor([1, 2]) }, info);
    const read = await readCheckpoint(path);
    expect(read.info).toEqual(info);
    expect(await read.weights.w.data()).toEqual(Float32Array.of(1, 2));
    expect(read.metadata.format).toBe("pt");
  });

  test("foreign weights have none", async () => {
    const path = join(folder, "foreign.safetensors");
    await writeFile(path, golden);
    expect((await readCheckpoint(path)).info).toBeUndefined();
  });

  test("a broken entry in a file is refused", async () => {
    const path = join(folder, "broken.safetensors");
    await saveSafetensors(path, { w: tensor([1]) }, { seresnet: "{" });
    expect((await rejection(readCheckpoint(path))).message).toMatch(
      /broken\.safetensors: expected metadata "seresnet" in JSON/,
    );
  });

  const broken: [name: string, change: Record<string, unknown>, message: RegExp][] = [
    ["no model", { model: undefined }, /to have a model name, got undefined/],
    ["options that are a list", { options: [] }, /to have options \(an object\), got \[\]/],
    ["classes that are numbers", { classes: [1, 2] }, /to have classes \(a list of labels\), got \[1,2\]/],
    ["no classes", { classes: [], options: {} }, /to have classes/],
    ["too few classes", { classes: ["cat"] }, /as many classes as options.numClasses \(2\), got 1/],
    ["inputSize of two", { inputSize: [28, 28] }, /to have inputSize \[C, H, W\], got \[28,28\]/],
    ["inputSize of zero", { inputSize: [1, 0, 28] }, /inputSize/],
    ["a mean too many", { mean: [0, 0] }, /to have a mean for each of 1 channels, got \[0,0\]/],
    ["a mean in a string", { mean: ["0"] }, /mean/],
    ["a std of zero", { std: [0] }, /positive std .*, got \[0\]/],
    ["interpolation", { interpolation: "nearest" }, /an interpolation \(bilinear, bicubic\), got "nearest"/],
    ["cropPct", { cropPct: 1.5 }, /a cropPct in \(0, 1\], got 1.5/],
  ];
  test.each(broken)("broken: %s", async (_, change, message) => {
    const text = JSON.stringify({ ...info, ...change });
    expect(() => parseCheckpointInfo(text, "x")).toThrow(WeightsError);
    expect(() => parseCheckpointInfo(text, "x")).toThrow(message);
    const bad = { ...info, ...change } as CheckpointInfo;
    const error = await rejection(writeCheckpoint(join(folder, "no.safetensors"), { w: tensor([1]) }, bad));
    expect(error.message).toMatch(message);
  });

  test("text that is no object, and repeated keys", () => {
    expect(() => parseCheckpointInfo("[]", "x")).toThrow(/^x: expected metadata "seresnet" to be an object, got \[\]$/);
    expect(() => parseCheckpointInfo('{"model":"a","model":"b"}', "x")).toThrow(/duplicate key "model"/);
  });
});

test("what is no tensor is refused before anything is written", async () => {
  const path = join(folder, "no_tensor.safetensors");
  const bad = { fine: tensor([1]), wrong: 1 as unknown as Tensor };
  await expect(saveSafetensors(path, bad)).rejects.toThrow('saveSafetensors: expected a tensor as "wrong", got number');
  await expect(saveSafetensors(path, null as unknown as Record<string, Tensor>)).rejects.toThrow(WeightsError);
  expect(existsSync(path)).toBe(false);
});
