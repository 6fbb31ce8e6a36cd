import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createModel, ImageClassifier, loadImage, saveSafetensors, WeightsError } from "seresnet";
import type { ModelOptions } from "seresnet/models";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { relativeError } from "./support/compare.js";
import { fill, image } from "./support/weights.js";

/** From test/fixtures/timm_folders.py. */
const golden = JSON.parse(readFileSync(resolve("test/fixtures/timm_folders.json"), "utf8")) as Record<string, number[]>;

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-timm-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** A folder as timm writes it: small weights, and a config.json of which `changes` are a part. */
async function timmFolder(
  model: string,
  options: ModelOptions,
  changes: Record<string, unknown>,
  pretrained: Record<string, unknown> = {},
): Promise<string> {
  const target = await mkdtemp(join(folder, "model-"));
  const network = fill(createModel(model, options), "timm");
  const state = Object.entries(network.stateDict());
  await saveSafetensors(join(target, "model.safetensors"), Object.fromEntries(state));
  const config = {
    architecture: model,
    num_classes: options.numClasses,
    pretrained_cfg: { input_size: [3, 64, 64], mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225], ...pretrained },
    ...changes,
  };
  await writeFile(join(target, "config.json"), JSON.stringify(config));
  return target;
}

describe("timm's model_args", () => {
  const logits = async (path: string, channels = 3) => {
    await using classifier = await ImageClassifier.load(path, { device: "reference" });
    const x = image("timm/x", [1, channels, 64, 64]);
    return (await classifier.network.forward(x).data()) as Float32Array;
  };

  test.each(["max", "avgmax"] as const)("global_pool %s", async (globalPool) => {
    const path = await timmFolder("resnet18", { numClasses: 5 }, { model_args: { global_pool: globalPool } });
    expect(relativeError(await logits(path), golden[`resnet18 ${globalPool}`])).toBeLessThan(1e-5);
  });

  test("in_chans 1: statistics of three channels become one", async () => {
    const path = await timmFolder("resnet18", { numClasses: 5, inChannels: 1 }, { model_args: { in_chans: 1 } });
    expect(relativeError(await logits(path, 1), golden["resnet18 grey"])).toBeLessThan(1e-5);
    await using classifier = await ImageClassifier.load(path, { device: "reference" });
    expect(classifier.preprocessing).toMatchObject({ channels: 1, size: 64 });
    expect(classifier.preprocessing.mean?.[0]).toBeCloseTo((0.485 + 0.456 + 0.406) / 3, 10);
  });

  test("cardinality and base_width", async () => {
    const options = { numClasses: 5, groups: 32, widthPerGroup: 4 };
    const path = await timmFolder("resnet50", options, { model_args: { cardinality: 32, base_width: 4 } });
    expect(relativeError(await logits(path), golden["resnet50 32x4d"])).toBeLessThan(1e-5);
  });

  test("what changes nothing in a trained network is taken, what we have not is refused by its name", async () => {
    const inert = { drop_rate: 0.2, drop_path_rate: 0.1, global_pool: null };
    const path = await timmFolder("resnet14_cifar", { numClasses: 5 }, { model_args: inert });
    await (await ImageClassifier.load(path, { device: "reference" })).dispose();
    for (const [name, value] of Object.entries({ output_stride: 8, stem_type: "deep", act_layer: "silu" })) {
      const wrong = await timmFolder("resnet14_cifar", { numClasses: 5 }, { model_args: { [name]: value } });
      await expect(ImageClassifier.load(wrong)).rejects.toThrow(new RegExp(`model_args among .*, got ${name} `));
    }
    const wrong = await timmFolder("resnet14_cifar", { numClasses: 5 }, { model_args: { global_pool: "catavgmax" } });
    await expect(ImageClassifier.load(wrong)).rejects.toThrow(/globalPool to be one of "avg", "max", "avgmax"/);
  });
});

describe("a network without a classifier (num_classes 0)", () => {
  test("embeds as timm does, and says that it cannot classify", async () => {
    const path = await timmFolder("resnet18", { numClasses: 0 }, {});
    await using classifier = await ImageClassifier.load(path, { device: "reference" });
    const features = await classifier.embed(image("timm/x", [1, 3, 64, 64]));
    expect(features).toHaveLength(512);
    expect(relativeError(features, golden["resnet18 headless"])).toBeLessThan(1e-5);
    expect(classifier.classes).toEqual([]);
    await expect(classifier.classify(image("timm/x", [1, 3, 64, 64]))).rejects.toThrow(WeightsError);
    await expect(classifier.classify(image("timm/x", [1, 3, 64, 64]))).rejects.toThrow(
      /expected weights with a classifier, got .* without one \(embed works\)/,
    );
  });

  test("weights that lack one need no config", async () => {
    const path = join(folder, "backbone.safetensors");
    const { "fc.weight": _, "fc.bias": __, ...backbone } = fill(createModel("resnet18"), "timm").stateDict();
    await saveSafetensors(path, backbone);
    await using classifier = await ImageClassifier.load(path, { model: "resnet18", device: "reference" });
    const features = await classifier.network.forward(image("timm/x", [1, 3, 64, 64])).data();
    expect(relativeError(features as Float32Array, golden["resnet18 headless"])).toBeLessThan(1e-5);
    await using tuned = await ImageClassifier.load(path, { model: "resnet18", numClasses: 3, device: "reference" });
    expect(tuned.changes.join()).toContain("fc.weight begins anew, for 3 classes: the weights have none");
  });
});

describe("timm's preprocessing", () => {
  for (const [width, height] of [
    [40, 28],
    [28, 41],
    [9, 30],
  ])
    for (const cropMode of ["center", "squash", "border"] as const)
      for (const cropPct of [1, 0.8])
        test(`crop mode ${cropMode}, ${cropPct} of ${width} x ${height}`, async () => {
          const samples = Uint8Array.from({ length: width * height * 3 }, (_, i) => {
            const [x, y, c] = [Math.floor(i / 3) % width, Math.floor(i / 3 / width), i % 3];
            return (7 * x + 13 * y + 29 * c + x * y) % 256;
          });
          const png = await sharp(samples, { raw: { width, height, channels: 3 } })
            .png()
            .toBuffer();
          const statistics = { mean: [0.485, 0.456, 0.406], std: [1, 1, 1] };
          const made = await loadImage(png, { size: 16, cropPct, cropMode, ...statistics });
          const bytes = [...((await made.data()) as Float32Array)].map((value, i) =>
            Math.round((value + statistics.mean[Math.floor(i / 256)]) * 255),
          );
          expect(bytes).toEqual(golden[`${cropMode} ${cropPct.toFixed(1)} ${width}x${height}`]);
        });

  test("crop_mode and timm's own default of the interpolation are read; what we have not is refused", async () => {
    const path = await timmFolder("resnet14_cifar", { numClasses: 5 }, {}, { crop_mode: "squash" });
    await using classifier = await ImageClassifier.load(path, { device: "reference" });
    expect(classifier.preprocessing).toMatchObject({ cropMode: "squash", interpolation: "bicubic" });
    for (const wrong of [{ crop_mode: "random" }, { interpolation: "lanczos" }])
      await expect(
        timmFolder("resnet14_cifar", { numClasses: 5 }, {}, wrong).then((target) => ImageClassifier.load(target)),
      ).rejects.toThrow(/to be one of/);
  });

  test("labels by their numbers, with gaps", async () => {
    const path = await timmFolder("resnet14_cifar", { numClasses: 3 }, { label_names: { 0: "cat", 2: "dog" } });
    await using classifier = await ImageClassifier.load(path, { device: "reference" });
    expect(classifier.classes).toEqual(["cat", "class 1", "dog"]);
  });
});
