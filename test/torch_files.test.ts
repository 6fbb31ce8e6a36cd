import { copyFile, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { createModel, loadWeights, nn, WeightsError } from "seresnet";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { loadClassifier } from "#lib/classifier/source.js";
import { parseTorch } from "#lib/io/torch/state_dict.js";
import { bytesOf, dictPickle, integer, tensorOps, text, torchFile, u32 } from "./support/torch_writer.js";
import { contents, refusal } from "./support/weights_files.js";

const fixtures = join(__dirname, "fixtures", "torch");
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-torch-"));
});
afterAll(() => rm(folder, { recursive: true }));

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
      /torch\.save\(model\.state_dict\(\), path\).*got a whole module that asks for __main__\.Net$/,
    ],
    ["script.pth", /torch\.save\(model\.state_dict\(\), path\).*got a TorchScript archive, which is a program$/],
    ["no_tensors.pth", /expected a state dict with at least one tensor, got a dict of "epoch", "arch", "lr"$/],
    ["single.pth", /expected a state dict .*, got a single tensor$/],
    ["list.pth", /expected a state dict .*, got a list$/],
    [
      "bool.pth",
      /expected tensor "mask" of a dtype we read \(Float, Double, Half, BFloat16, Long, Int, Byte\), got Bool$/,
    ],
    ["uint16.pth", /expected tensor "w" of a dtype we read .*, got uint16$/],
    ["sparse.pth", /asks for torch\._utils\._rebuild_sparse_tensor, which a weights file has no use for$/],
    ["empty.pth", /expected tensor "none" to have at least one element, got shape \[0, 3\]$/],
    ["two.pth", /expected one state dict, got one each in state_dict, model$/],
    [
      "expanded.pth",
      /expected tensor "w" and those before it to take at most \d+ bytes, got \d+, many times the file$/,
    ],
  ])("%s is refused: %s", async (name, message) => {
    expect(await refusal(folder, await readFile(join(fixtures, name)), name)).toMatch(message);
  });

  test.each(["training.pth", "training.legacy.pth", "views.legacy.pth"])(
    "every truncation of %s is refused",
    async (name) => {
      const bytes = await readFile(join(fixtures, name));
      for (let end = 2; end < bytes.length; end++)
        expect(() => parseTorch(bytes.subarray(0, end), name), `${end} bytes`).toThrow(WeightsError);
      expect(await refusal(folder, bytes.subarray(0, 1000))).toMatch(/truncated/);
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
    expect(await refusal(folder, torchFile(bytesOf(0x80, 2, "}", "K", 1, tensorOps(), "s.")))).toMatch(
      /expected tensors with names, got one without \(number\)$/,
    );
  });
});

describe("the old format", () => {
  test("other pickles, other versions and other storages are refused", async () => {
    const bytes = await readFile(join(fixtures, "training.legacy.pth"));
    const version = Buffer.from(bytes);
    version.writeUInt16LE(1002, 18);
    expect(await refusal(folder, version)).toMatch(/version 1001 of torch\.save's old format, got 1002$/);
    expect(await refusal(folder, dictPickle({ w: text("x") }))).toMatch(
      /a file that torch\.save wrote, got a pickle of something else$/,
    );
    const magic = bytes.subarray(0, 15);
    const head = bytesOf(magic, 0x80, 2, "M", 0xe9, 3, ".", 0x80, 2, "}.", dictPickle({ w: tensorOps() }));
    const keys = (...names: string[]) => bytesOf(0x80, 2, "](", ...names.map(text), "e.");
    const count = (elements: number) => bytesOf(u32(elements), u32(0));
    const good = bytesOf(head, keys("0"), count(2), new Uint8Array(8));
    expect(Object.keys(parseTorch(good, ""))).toEqual(["w"]);
    expect(await refusal(folder, good.subarray(0, -1))).toMatch(
      /storage "0" up to byte \d+, got a file that ends at byte/,
    );
    expect(await refusal(folder, bytesOf(head, keys("0"), count(3), new Uint8Array(8)))).toMatch(
      /storage "0" of 2 elements, got 3/,
    );
    for (const wrong of [keys(), keys("1"), keys("0", "0"), bytesOf(0x80, 2, integer(7), ".")])
      expect(await refusal(folder, bytesOf(head, wrong, count(2), new Uint8Array(8)))).toMatch(
        /list of the 1 storages .*, got another/,
      );
  });
});

test("a file of no known content is refused with what it begins with, an empty one too", async () => {
  expect(await refusal(folder, Buffer.from("<html>"))).toMatch(
    /expected a file that torch\.save wrote, got one that begins "<html>"$/,
  );
  expect(await refusal(folder, Buffer.alloc(0), "empty.pt")).toMatch(/wrote, got an empty file$/);
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
  const { network } = await loadClassifier({ weights: path, model: "resnet20_cifar" });
  expect(network.options.numClasses).toBe(10);
  // they fit no other network of the zoo
  expect((await loadClassifier({ weights: path })).info.model).toBe("resnet20_cifar");
});
