// Two networks for Fashion-MNIST: PyTorch's (test/fixtures/train_fashion.py), for which ours must say what PyTorch says,
// and the one that ships with seresnet and that `seresnet train` trained (models/weights/README.md).
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import {
  type CompiledModel,
  compile,
  createModel,
  loadImage,
  loadWeights,
  summary,
  type Tensor,
  tensor,
} from "seresnet";
import sharp from "sharp";
import { describe, expect, test } from "vitest";
import { loadIdxDataset } from "#lib/data/idx.js";
import type { DeviceName } from "#lib/devices/executor.js";
import { type CheckpointInfo, readCheckpoint } from "#lib/io/checkpoint.js";
import { defaultWeights } from "#lib/paths.js";
import { relativeError } from "./support/compare.js";
import { usableDevices } from "./support/devices.js";

const fixture = join(__dirname, "fixtures/fashion");
const pytorch = JSON.parse(readFileSync(join(fixture, "expected.json"), "utf8")) as {
  parameters: number;
  classes: string[];
  inputSize: number[];
  mean: number[];
  std: number[];
  firstLogits: number[][];
  testPredictions: string;
};
const options = { numClasses: 10, inChannels: 1 };
const dataset = "/usr/share/datasets/fashion-mnist";
const leftOut = `LEFT OUT: no ${dataset}, so nothing is tried on real images; npm run setup brings it`;

test("PyTorch's tensors fit the model", async () => {
  const model = createModel("seresnet14_cifar", options);
  const weights = await loadWeights(join(fixture, "model.safetensors"));
  expect(model.loadStateDict(weights)).toEqual({ missingKeys: [], unexpectedKeys: [] });
  expect(summary(model, [1, 1, 28, 28]).parameters).toBe(pytorch.parameters);
});

test("the checkpoint that ships says what it is, and weighs under 2 MB", async () => {
  const { info } = await readCheckpoint(defaultWeights);
  const { classes, inputSize, mean, std } = pytorch;
  const preprocessing = { inputSize, mean, std, interpolation: "bilinear", cropPct: 1 };
  expect(info).toEqual({ model: "seresnet20_cifar", options, classes, ...preprocessing });
  expect(readFileSync(defaultWeights).length).toBeLessThan(2e6);
});

test("its log is that of a whole run, which ends with 94.67 %", () => {
  const lines = readFileSync(defaultWeights.replace(".safetensors", ".jsonl"), "utf8").trim().split("\n");
  const epochs = lines.map((line) => JSON.parse(line)).filter(({ kind }) => kind === "epoch");
  expect(epochs.map(({ epoch }) => epoch)).toEqual(Array.from({ length: 30 }, (_, i) => i + 1));
  expect(epochs.at(-1)).toMatchObject({ step: 14_040, validationAccuracy: 0.9467 });
});

test("a 28x28 image becomes (pixel / 255 - 0.286) / 0.353, not inverted, not resampled", async () => {
  const pixels = Uint8Array.from({ length: 784 }, (_, i) => (i * 37) % 256);
  const png = await sharp(pixels, { raw: { width: 28, height: 28, channels: 1 } })
    .png()
    .toBuffer();
  const { info } = await readCheckpoint(defaultWeights);
  const { mean, std, cropPct, interpolation } = info as CheckpointInfo;
  const image = await loadImage(png, { size: 28, channels: 1, mean, std, cropPct, interpolation });
  expect(image.shape).toEqual([1, 1, 28, 28]);
  const wanted = Array.from(pixels, (pixel) => (pixel / 255 - 0.286) / 0.353);
  expect(relativeError((await image.data()) as Float32Array, wanted)).toBeLessThan(1e-6);
});

describe("on the real test images", () => {
  function open(
    name: string,
    weights: Record<string, Tensor>,
    { mean, std }: { readonly mean: number[]; readonly std: number[] },
    device: DeviceName,
  ): Promise<CompiledModel> {
    const network = createModel(name, options);
    network.loadStateDict(weights);
    return compile(network, { device, normalize: { mean, std } });
  }

  const openPyTorchs = async () =>
    open("seresnet14_cifar", await loadWeights(join(fixture, "model.safetensors")), pytorch, "reference");

  async function logitsOf(compiled: CompiledModel, from: number, to: number): Promise<Float32Array> {
    const { images } = await loadIdxDataset(dataset, "test");
    const output = await compiled.run(tensor(images.subarray(from * 784, to * 784), [to - from, 1, 28, 28]));
    return (await output.data()) as Float32Array;
  }

  /** The likeliest classes of the first images, a digit each. */
  async function predict(compiled: CompiledModel, count: number): Promise<string> {
    let predictions = "";
    for (let at = 0; at < count; at += 100) {
      const logits = await logitsOf(compiled, at, at + 100);
      for (let row = 0; row < 1000; row += 10) {
        const values = logits.subarray(row, row + 10);
        predictions += values.indexOf(Math.max(...values));
      }
    }
    return predictions;
  }

  test("the first 8 logits equal PyTorch's", async ({ skip }) => {
    if (!existsSync(dataset)) return tellLeftOut(skip);
    await using compiled = await openPyTorchs();
    const logits = await logitsOf(compiled, 0, 8);
    expect(relativeError(logits, pytorch.firstLogits.flat())).toBeLessThan(1e-4);
  });

  test("the first 1,000 predictions equal PyTorch's", { timeout: 600_000 }, async ({ skip }) => {
    if (!existsSync(dataset)) return tellLeftOut(skip);
    await using compiled = await openPyTorchs();
    expect(await predict(compiled, 1000)).toBe(pytorch.testPredictions.slice(0, 1000));
  });

  test("the network that ships is right on 94.5 % or more of all 10,000", { timeout: 600_000 }, async ({ skip }) => {
    if (!existsSync(dataset)) return tellLeftOut(skip);
    const { info, weights } = await readCheckpoint(defaultWeights);
    const { model, ...preprocessing } = info as CheckpointInfo;
    const device = usableDevices.includes("cpu") ? "cpu" : "reference";
    await using compiled = await open(model, weights, preprocessing, device);
    const predictions = await predict(compiled, 10_000);
    const { labels } = await loadIdxDataset(dataset, "test");
    const correct = labels.filter((label, i) => label === Number(predictions[i])).length;
    expect(Math.abs(correct - 9467)).toBeLessThanOrEqual(2); // another device's rounding may tip an image
    expect(correct / 10_000).toBeGreaterThanOrEqual(0.945);
  });
});

function tellLeftOut(skip: (reason: string) => never): void {
  process.stderr.write(`${leftOut}\n`);
  skip(leftOut);
}
