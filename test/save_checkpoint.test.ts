import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ArgumentError, createModel, ImageClassifier, loadCheckpoint, nn, saveCheckpoint, tensor } from "seresnet";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readCheckpoint } from "#lib/io/checkpoint.js";
import { fill, image } from "./support/weights.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-save-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe("saveCheckpoint", () => {
  test("writes what train writes: the classifier, the commands and loadCheckpoint need no more", async () => {
    const path = join(folder, "whole.safetensors");
    const model = fill(createModel("seresnet14_cifar", { numClasses: 3, inChannels: 1 }), "save");
    const preprocessing = {
      size: 24,
      mean: [0.25],
      std: [0.5],
      cropPct: 0.9,
      interpolation: "bicubic",
      cropMode: "squash",
    } as const;
    await saveCheckpoint(path, model, { labels: ["cat", "dog", "owl"], preprocessing });
    const { info } = await readCheckpoint(path);
    expect(info).toMatchObject({ model: "seresnet14_cifar", classes: ["cat", "dog", "owl"], inputSize: [1, 24, 24] });
    await using classifier = await ImageClassifier.load(path, { device: "reference" });
    expect(classifier.preprocessing).toEqual({ ...preprocessing, channels: 1 });
    expect(classifier.classes).toEqual(["cat", "dog", "owl"]);
    const x = image("save/x", [1, 1, 24, 24]);
    const [best] = await classifier.classify(x, { topK: 1 });
    const logits = [...((await model.eval().forward(x).data()) as Float32Array)];
    expect(best.index).toBe(logits.indexOf(Math.max(...logits)));
    const loaded = await loadCheckpoint(path);
    expect(loaded).toMatchObject({ labels: ["cat", "dog", "owl"], preprocessing });
    expect([...(await loaded.model.forward(x).data())]).toEqual(logits);
  });

  test("options of the network, and defaults, travel too", async () => {
    const path = join(folder, "plain.safetensors");
    const model = createModel("resnet20_cifar", { shortcut: "A", globalPool: "max" });
    await saveCheckpoint(path, model);
    const { model: loaded, labels, preprocessing } = await loadCheckpoint(path);
    expect(loaded.options).toEqual(model.options);
    expect([labels[9], preprocessing.size, preprocessing.cropPct]).toEqual(["class 9", 32, 1]);
    const headless = createModel("resnet14_cifar", { numClasses: 0 });
    await saveCheckpoint(path, headless);
    expect((await loadCheckpoint(path)).labels).toEqual([]);
  });

  test("says what does not fit", async () => {
    const model = createModel("resnet14_cifar", { numClasses: 2 });
    const path = join(folder, "no.safetensors");
    for (const attempt of [
      () => saveCheckpoint(path, new nn.Linear(1, 1) as never),
      () => saveCheckpoint(path, model, { labels: ["a"] }),
      () => saveCheckpoint(path, model, { preprocessing: { mean: [1] } }),
      () => saveCheckpoint(path, model, { classes: ["a", "b"] } as never),
      () => saveCheckpoint("", model),
      () => loadCheckpoint(tensor([1]) as never),
    ])
      await expect(attempt()).rejects.toThrow(ArgumentError);
  });
});
