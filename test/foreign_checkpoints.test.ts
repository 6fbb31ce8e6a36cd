import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  adaptWeights,
  createModel,
  ImageClassifier,
  loadWeights,
  nn,
  saveSafetensors,
  type Tensor,
  tensor,
  WeightsError,
} from "seresnet";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { unwrap } from "#lib/io/names.js";
import { parseSafetensors } from "#lib/io/safetensors.js";
import { contents } from "./support/weights_files.js";

// Checkpoints as people have them. What each must give is what torch.load and load_state_dict of PyTorch 2.13 make of it,
// and of averages beside weights what timm's load_checkpoint takes. test/fixtures/torch/make.py made the files.

const fixtures = join(__dirname, "fixtures", "torch");
let folder: string;
let plain: Awaited<ReturnType<typeof contents>>;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-foreign-"));
  plain = await contents(await loadWeights(join(fixtures, "training.safetensors")));
});
afterAll(() => rm(folder, { recursive: true }));

describe("the weights in a checkpoint", () => {
  test.each([
    ["the only dict of tensors, whatever its name", "net.pth"],
    ["deeper down, beside an optimiser's state", "nested.pth"],
    ["the average, beside the weights it is of", "ema.pth"],
    ["the average, with a prefix that the weights have not", "ema_prefix.pth"],
    ["the average alone", "only_ema.pth"],
    ["beside a scheduler's collections.Counter and AdamW's state", "counter.pth"],
    ["beside argparse.Namespace", "namespace.pth"],
    ["tensors with attributes of their own", "marked.pth"],
    ["beside a Namespace, NumPy's numbers, sets, paths, devices and a defaultdict", "inert.pth"],
    ["the same in pickle protocol 4", "inert.protocol4.pth"],
  ])("%s", async (_, file) => {
    expect(await contents(await loadWeights(join(fixtures, file)))).toEqual(plain);
  });

  test("two networks are not one", async () => {
    await expect(loadWeights(join(fixtures, "gan.pth"))).rejects.toThrow(
      "expected one state dict, got one each in generator, discriminator",
    );
  });

  test("of a flat file too, and any modules that all names are in", async () => {
    const t = tensor([1]);
    const names = (record: Record<string, Tensor>) => Object.keys(unwrap(record, "x"));
    expect(names({ "net.backbone.conv1.weight": t, "net.backbone.fc.bias": t })).toEqual(["conv1.weight", "fc.bias"]);
    expect(names({ "state_dict.a": t, "state_dict.b": t, "state_dict_ema.a": t, "state_dict_ema.b": t })).toEqual([
      "a",
      "b",
    ]);
    const values = { "state_dict.a": t, "state_dict_ema.a": tensor([2]) };
    expect(await unwrap({ ...values, "state_dict.b": t, "state_dict_ema.b": t }, "x").a.item()).toBe(2);
    expect(names({ "module.a": t, b: t })).toEqual(["module.a", "b"]);
  });

  test("and what lies beside the network in its state dict is left out and said", async () => {
    const model = createModel("resnet14_cifar", { seed: 4 });
    const path = join(folder, "lightning.safetensors");
    const named = Object.entries(model.stateDict()).map(([name, value]) => [`net.${name}`, value]);
    await saveSafetensors(path, { ...Object.fromEntries(named), "criterion.weight": tensor([1, 2]) });
    await using classifier = await ImageClassifier.load(path, { model: "resnet14_cifar", device: "reference" });
    expect(classifier.changes).toEqual(["left out, lying beside the network: criterion.weight"]);
    expect(await classifier.network.stateDict()["fc.bias"].data()).toEqual(await model.stateDict()["fc.bias"].data());
    const two = Object.entries(model.stateDict()).flatMap(([name, value]) => [
      [`encoder_q.${name}`, value],
      [`encoder_k.${name}`, value],
    ]);
    await saveSafetensors(path, Object.fromEntries(two));
    await expect(ImageClassifier.load(path, { model: "resnet14_cifar" })).rejects.toThrow(/missing conv1\.weight/);
  });

  test("names of many thousand parts take no time that grows with their square", () => {
    const long = `${"module.".repeat(200_000)}a`;
    expect(Object.keys(unwrap({ [long]: tensor([1]), [`${long}b`]: tensor([1]) }, "x"))).toEqual(["a", "ab"]);
  });
});

describe("tensors that we cannot hold", () => {
  test("are left out of a .pth file, and named where they are missed", async () => {
    const weights = await loadWeights(join(fixtures, "beside.pth"));
    expect(await contents(weights)).toEqual(plain);
    const missed = (name: string) => {
      const net = Object.assign(new nn.Identity(), { [name]: new nn.Parameter([2], 0) });
      return () => net.loadStateDict(weights);
    };
    for (const [name, why] of [
      ["fp8", /missing fp8 \(.*tensor "fp8" of a dtype we read .*, got float8_e4m3fn \(\.float\(\) converts it\)\)/],
      ["mask", /missing mask \(.*tensor "mask" of a dtype we read .*, got Bool\)/],
      ["none", /missing none \(.*to have at least one element, got shape \[0\]\)/],
      ["q", /missing q \(.*got a quantised one, by torch\._utils\._rebuild_qtensor \(\.dequantize\(\) converts it\)\)/],
    ] as const)
      expect(missed(name)).toThrow(why);
  });

  test("are left out of a .safetensors file, wherever in it they lie", async () => {
    const dtypes = [
      ["a", "I8", 3],
      ["b", "F32", 4],
      ["c", "BOOL", 1],
      ["d", "F32", 4],
      ["e", "F8_E4M3", 2],
      ["f", "F64", 8],
    ] as const;
    let at = 0;
    const header: Record<string, unknown> = { g: { dtype: "F32", shape: [0], data_offsets: [0, 0] } };
    for (const [name, dtype, bytes] of dtypes) {
      const width = { F32: 4, F64: 8 }[dtype as string] ?? 1;
      header[name] = { dtype, shape: [bytes / width], data_offsets: [at, at + bytes] };
      at += bytes;
    }
    const json = Buffer.from(JSON.stringify(header));
    const start = Buffer.alloc(8);
    start.writeBigUInt64LE(BigInt(json.length));
    const data = Buffer.alloc(at);
    data.writeFloatLE(1.5, 3);
    data.writeFloatLE(-2, 8);
    data.writeDoubleLE(1 / 3, 14);
    const bytes = Buffer.concat([start, json, data]);
    const path = join(folder, "extra.safetensors");
    await writeFile(path, bytes);
    const want = { b: [1.5], d: [-2], f: [Math.fround(1 / 3)] };
    for (const weights of [await loadWeights(path), parseSafetensors(bytes).tensors]) {
      const got = await Promise.all(Object.entries(weights).map(async ([name, t]) => [name, [...(await t.data())]]));
      expect(Object.fromEntries(got)).toEqual(want);
      const layer = Object.assign(new nn.Identity(), { a: new nn.Parameter([3], 0) });
      expect(() => layer.loadStateDict(weights)).toThrow(/missing a \(.*of a dtype we read .*, got "I8"\)/);
    }
  });

  test("alone in a file they are what is wrong with it", async () => {
    await expect(loadWeights(join(fixtures, "bool.pth"))).rejects.toThrow(
      /tensor "mask" of a dtype we read .* got Bool/,
    );
  });

  test("are remembered by adaptWeights", async () => {
    const network = createModel("resnet14_cifar");
    const state = Object.entries(network.stateDict());
    const bytes = await readFile(
      await saveSafetensors(join(folder, "w.safetensors"), Object.fromEntries(state)).then(() =>
        join(folder, "w.safetensors"),
      ),
    );
    const text = bytes.toString("latin1").replace(/("bn1\.weight":\{"dtype":)"F32"(,"shape":\[)16/, '$1"I16"$232');
    await writeFile(join(folder, "i16.safetensors"), Buffer.from(text, "latin1"));
    const { weights } = await adaptWeights(await loadWeights(join(folder, "i16.safetensors")), network);
    expect(() => network.loadStateDict(weights)).toThrow(/missing bn1\.weight \(.*got "I16"\)/);
  });
});

describe("loadStateDict takes what load_state_dict(strict=True) takes", () => {
  const values = async (module: nn.Module, name: string) => [...(await module.stateDict()[name].data())].map(Number);

  test("batch norm's counters as floats, as int32, of shape [1], or not at all", async () => {
    const norm = new nn.BatchNorm2d(2);
    const { num_batches_tracked: _, ...rest } = norm.stateDict();
    for (const [counter, want] of [
      [tensor(7.5), 7],
      [tensor(Int32Array.of(8), []), 8],
      [tensor(BigInt64Array.of(9n), [1]), 9],
    ] as const) {
      expect(norm.loadStateDict({ ...rest, num_batches_tracked: counter })).toEqual({
        missingKeys: [],
        unexpectedKeys: [],
      });
      expect(await values(norm, "num_batches_tracked")).toEqual([want]);
    }
    expect(norm.loadStateDict(rest)).toEqual({ missingKeys: [], unexpectedKeys: [] });
    expect(await values(norm, "num_batches_tracked")).toEqual([9]);
  });

  test("other dtypes, converted", async () => {
    const layer = new nn.Linear(2, 1);
    layer.loadStateDict({
      weight: tensor(Uint8Array.of(3, 4), [1, 2]),
      bias: tensor([0.1], [1], { dtype: "float16" }),
    });
    expect(await values(layer, "weight")).toEqual([3, 4]);
    expect((await values(layer, "bias"))[0]).toBeCloseTo(0.1, 4);
  });

  test("and no other shapes or names", () => {
    const layer = new nn.Linear(2, 1);
    const wrongs: Record<string, Tensor>[] = [
      { weight: tensor([1, 2]) },
      { weight: tensor([[1, 2]]) },
      { ...layer.stateDict(), more: tensor(1) },
    ];
    for (const wrong of wrongs) expect(() => layer.loadStateDict(wrong)).toThrow(WeightsError);
    const norm = new nn.BatchNorm2d(1);
    expect(() => norm.loadStateDict({ ...norm.stateDict(), num_batches_tracked: tensor([1, 2]) })).toThrow(
      "num_batches_tracked: expected [], got [2]",
    );
  });
});
