import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createModel, ImageClassifier, nn, SeresnetError, saveSafetensors, tensor } from "seresnet";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { DataLoader, type Dataset } from "#lib/data/index.js";
import { ArgumentError, MemoryError, WeightsError } from "#lib/errors.js";
import { writeCheckpoint } from "#lib/io/checkpoint.js";
import { fill } from "./support/weights.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-hostile-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** What a call is refused with: one of our errors, in one sentence. */
async function refusal(call: () => unknown): Promise<SeresnetError> {
  const error = await (async () => call())().then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(SeresnetError);
  expect((error as Error).message).toMatch(/^[^\n]{1,400}$/);
  return error as SeresnetError;
}

describe("a number in a file", () => {
  const weights = () => fill(createModel("resnet20_cifar", { numClasses: 3 }), "hostile").stateDict();

  async function withConfig(config: string, state = weights()): Promise<string> {
    const target = await mkdtemp(join(folder, "config-"));
    await saveSafetensors(join(target, "model.safetensors"), state);
    await writeFile(join(target, "config.json"), config);
    return target;
  }
  const config = (rest: string) => `{"architecture": "resnet20_cifar", ${rest}}`;

  test.each([
    ['"num_classes": 1e9', "3 classes, as the weights have, got 1000000000"],
    ['"num_classes": 4294967296', "3 classes, as the weights have, got 4294967296"],
    ['"num_classes": 4', "3 classes, as the weights have, got 4"],
    ['"num_classes": -1', "num_classes to be a whole number, got -1"],
    ['"num_classes": 1e400', "num_classes to be a whole number, got null"],
    ['"num_classes": NaN', "JSON"],
    ['"num_classes": 3, "model_args": {"in_chans": 1e9}', "3 input channels, as the weights have, got 1000000000"],
    ['"model_args": {"num_classes": 1e9}', "3 classes, as the weights have, got 1000000000"],
    ['"num_classes": 3, "model_args": {"cardinality": 1e9}', "groups"],
    ['"num_classes": 3, "pretrained_cfg": {"input_size": [3, 1e9, 1e9]}', "1 or 3 channels and equal sides of at most"],
    ['"num_classes": 3, "pretrained_cfg": {"input_size": [3, 4294967296, -1]}', "input_size to be [C, H, W]"],
  ])("config.json with %s", async (rest, said) => {
    const path = await withConfig(config(rest));
    const { message } = await refusal(
      async () => (await ImageClassifier.load(path, { device: "reference" })).preprocessing,
    );
    expect(message).toContain(said);
  });

  test.each([
    ['"num_classes": 1e9', "at most 1048576 classes, got 1000000000"],
    [
      '"num_classes": 3, "pretrained_cfg": {"input_size": [1e9, 32, 32]}',
      "at most 4096 input channels, got 1000000000",
    ],
  ])("config.json with %s beside weights that do not tell", async (rest, said) => {
    const untold = Object.entries(weights()).filter(([name]) => name !== "conv1.weight" && !name.startsWith("fc."));
    const path = await withConfig(config(rest), Object.fromEntries(untold));
    const error = await refusal(() => ImageClassifier.load(path));
    expect(error).toBeInstanceOf(WeightsError);
    expect(error.message).toContain(said);
  });

  test.each([1e9, 2 ** 32, -1, 1.5, "3", null])("metadata of a checkpoint with inChannels %s", async (inChannels) => {
    const path = join(folder, `metadata-${inChannels}.safetensors`);
    await writeCheckpoint(path, weights(), {
      model: "resnet20_cifar",
      options: { inChannels, numClasses: 3 },
      classes: ["a", "b", "c"],
      inputSize: [3, 32, 32],
      mean: [0, 0, 0],
      std: [1, 1, 1],
      interpolation: "bilinear",
      cropPct: 1,
    });
    await refusal(() => ImageClassifier.load(path));
  });
});

describe("a number in a call", () => {
  test.each([1e9, 2 ** 32, -1, Number.NaN, 1.5, "3" as never, null as never])(
    "of classes or channels: %s",
    async (count) => {
      for (const options of [{ inChannels: count }, { numClasses: count }]) {
        const error = await refusal(() => ImageClassifier.load(undefined, { ...options, device: "reference" }));
        expect(error).toBeInstanceOf(ArgumentError);
      }
    },
  );

  test("of workers", async () => {
    const pictures = { kind: "pixels", width: 2, height: 2, data: new Uint8Array(4) };
    const dataset = { labels: Uint32Array.of(0), classes: ["a"], pictures } as unknown as Dataset;
    const { message } = await refusal(() => new DataLoader(dataset, { size: 2, workers: 1e9 }));
    expect(message).toMatch(/^DataLoader: expected workers to be at most \d+, got 1000000000$/);
  });

  test("of elements that no memory holds", async () => {
    for (const parameter of [
      new nn.Parameter([2 ** 50], 0),
      new nn.Linear(2 ** 25, 2 ** 25).weight,
      new nn.Buffer([2 ** 50], 0, "int64"),
    ])
      expect(await refusal(() => parameter.data())).toBeInstanceOf(MemoryError);
  });

  // torch.tensor([v], dtype=d) of PyTorch 2.13 refuses the same and takes the same
  test.each(["int64", "int32", "uint8"] as const)("that %s cannot hold", async (dtype) => {
    for (const value of [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN, 1e19]) {
      expect(await refusal(() => tensor([1, value], undefined, { dtype }))).toBeInstanceOf(ArgumentError);
      expect(await refusal(() => tensor(Float32Array.of(value), undefined, { dtype }))).toBeInstanceOf(ArgumentError);
      expect(await refusal(() => new nn.Buffer([2], value, dtype).data())).toBeInstanceOf(ArgumentError);
      expect(await refusal(() => tensor([1], undefined, { dtype }).add(value))).toBeInstanceOf(ArgumentError);
    }
  });

  test("that integers do hold", async () => {
    expect(await tensor([-1, 1.5, 255], undefined, { dtype: "uint8" }).data()).toEqual(Uint8Array.of(255, 1, 255));
    expect(await tensor([-(2 ** 31), -1.5, 2 ** 31 - 1], undefined, { dtype: "int32" }).data()).toEqual(
      Int32Array.of(-(2 ** 31), -1, 2 ** 31 - 1),
    );
    expect(await tensor([-(2 ** 63), -0, 2 ** 40], undefined, { dtype: "int64" }).data()).toEqual(
      BigInt64Array.of(-(2n ** 63n), 0n, 2n ** 40n),
    );
    expect(await tensor(BigInt64Array.of(2n ** 63n - 1n)).data()).toEqual(BigInt64Array.of(2n ** 63n - 1n));
  });
});
