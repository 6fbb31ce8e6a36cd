// The network that ships with seresnet, against what PyTorch computed with the same weights (test/fixtures/train_fashion.py).
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type CompiledModel, compile, createModel, loadImage, loadWeights, summary, tensor } from "seresnet";
import sharp from "sharp";
import { describe, expect, test } from "vitest";
import { loadIdxDataset } from "../dist/lib/data/idx.js";
import { type CheckpointInfo, readCheckpoint } from "../dist/lib/io/checkpoint.js";
import { relativeError } from "./support/compare.js";

const root = join(__dirname, "..");
const checkpointPath = join(root, "models/weights/seresnet14_cifar_fashion.safetensors");
const fixture = join(root, "test/fixtures/fashion");
const pytorch = JSON.parse(readFileSync(join(fixture, "expected.json"), "utf8")) as {
  parameters: number;
  classes: string[];
  inputSize: number[];
  mean: number[];
  std: number[];
  firstLogits: number[][];
  testPredictions: string;
};
const dataset = "/usr/share/datasets/fashion-mnist";
const leftOut = `LEFT OUT: no ${dataset}, so nothing is compared with PyTorch on real pictures; npm run setup brings it`;

test("the checkpoint says what PyTorch's training said", async () => {
  const { info } = await readCheckpoint(checkpointPath);
  const { classes, inputSize, mean, std } = pytorch;
  expect(info).toEqual({
    model: "seresnet14_cifar",
    options: { numClasses: 10, inChannels: 1 },
    classes,
    inputSize,
    mean,
    std,
    interpolation: "bilinear",
    cropPct: 1,
  });
});

test("its tensors are those PyTorch saved, and they fit the model", async () => {
  const { weights } = await readCheckpoint(checkpointPath);
  const saved = await loadWeights(join(fixture, "model.safetensors"));
  expect(Object.keys(weights).sort()).toEqual(Object.keys(saved).sort());
  for (const [name, weight] of Object.entries(saved))
    expect(await weights[name].data(), name).toEqual(await weight.data());
  const model = createModel("seresnet14_cifar", { numClasses: 10, inChannels: 1 });
  expect(model.loadStateDict(weights)).toEqual({ missingKeys: [], unexpectedKeys: [] });
  expect(summary(model, [1, 1, 28, 28]).parameters).toBe(pytorch.parameters);
});

test("a 28x28 picture becomes (pixel / 255 - 0.286) / 0.353, not inverted, not resampled", async () => {
  const pixels = Uint8Array.from({ length: 784 }, (_, i) => (i * 37) % 256);
  const png = await sharp(pixels, { raw: { width: 28, height: 28, channels: 1 } })
    .png()
    .toBuffer();
  const { info } = await readCheckpoint(checkpointPath);
  const { mean, std, cropPct, interpolation } = info as CheckpointInfo;
  const picture = await loadImage(png, { size: 28, channels: 1, mean, std, cropPct, interpolation });
  expect(picture.shape).toEqual([1, 1, 28, 28]);
  const wanted = Array.from(pixels, (pixel) => (pixel / 255 - 0.286) / 0.353);
  expect(relativeError((await picture.data()) as Float32Array, wanted)).toBeLessThan(1e-6);
});

describe("on the real test pictures", () => {
  async function openModel(): Promise<CompiledModel> {
    const { info, weights } = await readCheckpoint(checkpointPath);
    const { model, options, mean, std } = info as CheckpointInfo;
    const network = createModel(model, options);
    network.loadStateDict(weights);
    return compile(network, { device: "reference", normalize: { mean, std } });
  }

  async function logitsOf(compiled: CompiledModel, from: number, to: number): Promise<Float32Array> {
    const { images } = await loadIdxDataset(dataset, "test");
    const output = await compiled.run(tensor(images.subarray(from * 784, to * 784), [to - from, 1, 28, 28]));
    return (await output.data()) as Float32Array;
  }

  test("the first 8 logits equal PyTorch's", async ({ skip }) => {
    if (!existsSync(dataset)) return tellLeftOut(skip);
    await using compiled = await openModel();
    const logits = await logitsOf(compiled, 0, 8);
    expect(relativeError(logits, pytorch.firstLogits.flat())).toBeLessThan(1e-4);
  });

  test("the first 1,000 predictions equal PyTorch's", { timeout: 600_000 }, async ({ skip }) => {
    if (!existsSync(dataset)) return tellLeftOut(skip);
    await using compiled = await openModel();
    let predictions = "";
    for (let at = 0; at < 1000; at += 100) {
      const logits = await logitsOf(compiled, at, at + 100);
      for (let row = 0; row < 1000; row += 10) {
        const values = logits.subarray(row, row + 10);
        predictions += values.indexOf(Math.max(...values));
      }
    }
    expect(predictions).toBe(pytorch.testPredictions.slice(0, 1000));
  });
});

function tellLeftOut(skip: (reason: string) => never): void {
  process.stderr.write(`${leftOut}\n`);
  skip(leftOut);
}
