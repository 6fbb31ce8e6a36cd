import { copyFile, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  ArgumentError,
  adaptWeights,
  compile,
  createModel,
  ImageClassifier,
  loadWeights,
  saveSafetensors,
  type Tensor,
  tensor,
  WeightsError,
} from "seresnet";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bestFits } from "#lib/classifier/adapt.js";
import { loadClassifier } from "#lib/classifier/source.js";
import { relativeError } from "./support/compare.js";
import { grid } from "./support/ops.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-fit-"));
});
afterAll(() => rm(folder, { recursive: true }));

async function logits(model: ReturnType<typeof createModel>, x: Tensor): Promise<Float32Array> {
  await using compiled = await compile(model, { device: "reference" });
  return (await (await compiled.run(x)).data()) as Float32Array;
}

/** Planes of `channels` channels that all hold the same numbers. */
function grey(channels: number): Tensor {
  const plane = grid(16 * 16);
  return tensor(
    Float32Array.from({ length: channels * 256 }, (_, i) => plane[i % 256]),
    [1, channels, 16, 16],
  );
}

describe("adaptWeights", () => {
  it.each([1, 6])("a stem for %i channels answers grey images as the one for three does", async (inChannels) => {
    const three = createModel("resnet14_cifar", { seed: 3 });
    const other = createModel("resnet14_cifar", { inChannels, seed: 4 });
    const { weights, changes } = await adaptWeights(three.stateDict(), other);
    expect(changes).toEqual([
      inChannels === 1
        ? "conv1.weight summed over its 3 channels"
        : `conv1.weight spread from 3 channels to ${inChannels}`,
    ]);
    other.loadStateDict(weights);
    expect(relativeError(await logits(other, grey(inChannels)), await logits(three, grey(3)))).toBeLessThan(1e-5);
  });

  it("repeats the channels in turn, as timm does", async () => {
    const three = createModel("resnet14_cifar").stateDict()["conv1.weight"];
    const { weights } = await adaptWeights({ "conv1.weight": three }, createModel("resnet14_cifar", { inChannels: 4 }));
    const [from, to] = await Promise.all([three.data(), weights["conv1.weight"].data()]);
    for (let filter = 0; filter < 16; filter++)
      for (let at = 0; at < 9; at++)
        for (const [channel, source] of [0, 1, 2, 0].entries())
          expect(to[(filter * 4 + channel) * 9 + at]).toBeCloseTo(
            (Number(from[(filter * 3 + source) * 9 + at]) * 3) / 4,
            6,
          );
  });

  it("starts a classifier of other classes anew and leaves the rest alone", async () => {
    const old = createModel("legacy_seresnet18", { seed: 3 });
    const fresh = createModel("legacy_seresnet18", { numClasses: 7, seed: 4 });
    const { weights, changes } = await adaptWeights(old.stateDict(), fresh);
    expect(changes).toEqual([
      "last_linear.weight begins anew, for 7 classes in place of 1000",
      "last_linear.bias begins anew, for 7 classes in place of 1000",
    ]);
    const before = await fresh.stateDict()["last_linear.weight"].data();
    fresh.loadStateDict(weights);
    expect(await fresh.stateDict()["last_linear.weight"].data()).toEqual(before);
    expect(await fresh.stateDict()["layer0.conv1.weight"].data()).toEqual(
      await old.stateDict()["layer0.conv1.weight"].data(),
    );
    expect((await adaptWeights(old.stateDict(), old)).changes).toEqual([]);
  });

  it("refuses a stem of another count than three", async () => {
    const four = createModel("resnet14_cifar", { inChannels: 4 });
    await expect(adaptWeights(four.stateDict(), createModel("resnet14_cifar"))).rejects.toThrow(
      "adaptWeights: conv1.weight: expected a stem of 3 channels, got [16, 4, 3, 3]",
    );
  });
});

describe("a classifier from adapted weights", () => {
  it("changes nothing unless asked, and says what it changed", async () => {
    const file = join(folder, "rgb.safetensors");
    await saveSafetensors(file, createModel("resnet14_cifar").stateDict());
    const plain = await loadClassifier({ weights: file, model: "resnet14_cifar" });
    expect([plain.changes, plain.info.inputSize]).toEqual([[], [3, 32, 32]]);
    const asked = await loadClassifier({ weights: file, model: "resnet14_cifar", inChannels: 1, numClasses: 3 });
    expect(asked.changes).toHaveLength(3);
    expect(asked.info).toMatchObject({ inputSize: [1, 32, 32], classes: ["class 0", "class 1", "class 2"] });
    expect(asked.info.mean).toHaveLength(1);
    await using classifier = await ImageClassifier.load(file, {
      model: "resnet14_cifar",
      inChannels: 4,
      device: "reference",
    });
    expect(await classifier.classify(grey4())).toHaveLength(5);
    await expect(classifier.classify("picture.png")).rejects.toThrow(/inputSize of 1 or 3 channels/);
    await expect(ImageClassifier.load(file, { model: "resnet14_cifar", labels: ["a"] })).rejects.toThrow(ArgumentError);
  });

  it("takes off what a training script put before every name", async () => {
    const model = createModel("resnet14_cifar", { seed: 3 });
    const save = async (name: string, renamed: (key: string) => string, more: Record<string, Tensor> = {}) => {
      const path = join(folder, name);
      const named = Object.entries(model.stateDict()).map(([key, value]) => [renamed(key), value]);
      await saveSafetensors(path, { ...Object.fromEntries(named), ...more });
      return path;
    };
    const x = grey(3);
    const wanted = await logits(model, x);
    for (const path of [
      await save("module.safetensors", (key) => `module.${key}`),
      await save("model.safetensors", (key) => `model.${key}`),
      await save("both.safetensors", (key) => `_orig_mod.module.${key}`),
      await save("wrapped.safetensors", (key) => `state_dict.model.${key}`, { epoch: tensor([3]) }),
    ]) {
      const { network, changes } = await loadClassifier({ weights: path, model: "resnet14_cifar" });
      expect(await logits(network, x)).toEqual(wanted);
      expect(changes).toEqual([]); // names are no weights
      const other = createModel("resnet14_cifar", { numClasses: 5 });
      const adapted = await adaptWeights(await loadWeights(path), other);
      expect(adapted.changes[0]).toBe("every name without what a wrapper had put before it");
      other.loadStateDict(adapted.weights);
    }
    const two = await save("two.safetensors", (key) => `model.${key}`, { "state_dict.conv1.weight": tensor([1]) });
    await expect(loadClassifier({ weights: two, model: "resnet14_cifar" })).rejects.toThrow(
      `${two}: expected one state dict, got one each in state_dict, model`,
    );
  });

  it("never calls one network's weights another's: shortcuts without weights are an option", async () => {
    const path = join(folder, "option_a.safetensors");
    const model = createModel("resnet20_cifar", { shortcut: "A", seed: 5 });
    await saveSafetensors(path, model.stateDict());
    const message = await loadClassifier({ weights: path, model: "resnet20_cifar" }).catch(
      (error: Error) => error.message,
    );
    expect(message).toMatch(
      /they fit alike, by names and shapes: resnet20_cifar with modelOptions shortcut "A", plain20_cifar; 97 of 97 tensors/,
    );
    const { network } = await loadClassifier({
      weights: path,
      model: "resnet20_cifar",
      modelOptions: { shortcut: "A" },
    });
    expect(await logits(network, grey(3))).toEqual(await logits(model, grey(3)));
    await expect(
      ImageClassifier.load(path, { model: "resnet20_cifar", modelOptions: { shortcuts: "A" } as never }),
    ).rejects.toThrow(/resnet20_cifar: expected options among .*\(nearest: shortcut,/);
  });

  const grey4 = () => tensor(new Float32Array(4 * 32 * 32), [1, 4, 32, 32]);

  it("has ImageNet's labels where there are a thousand classes and no others", async () => {
    const file = join(folder, "imagenet.safetensors");
    await saveSafetensors(file, createModel("resnet18").stateDict());
    const { info } = await loadClassifier({ weights: file, model: "resnet18" });
    expect([info.classes.length, info.classes[0], info.classes[207], info.classes[999]]).toEqual([
      1000,
      "tench",
      "golden retriever",
      "toilet tissue",
    ]);
  });
});

it("takes the one weights file of a folder, PyTorch's too, .safetensors first", async () => {
  const only = join(folder, "only");
  await mkdir(only);
  const complaint = /only: expected model.safetensors, or one .safetensors, .pth or .pt file alone, got a folder /;
  const model = "resnet14_cifar";
  await expect(loadClassifier({ weights: only, model })).rejects.toThrow(complaint);
  await copyFile(join(__dirname, "fixtures/torch/training.pth"), join(only, "a.pth"));
  await expect(loadClassifier({ weights: only, model })).rejects.toThrow(/only\/a\.pth: the weights are not those of/);
  await copyFile(join(only, "a.pth"), join(only, "b.pt"));
  await expect(loadClassifier({ weights: only, model })).rejects.toThrow(complaint);
  await copyFile(join(only, "a.pth"), join(only, "pytorch_model.bin"));
  await expect(loadClassifier({ weights: only, model })).rejects.toThrow(
    /only\/pytorch_model\.bin: the weights are not/,
  );
  await saveSafetensors(join(only, "net.safetensors"), createModel(model).stateDict());
  await rm(join(only, "pytorch_model.bin"));
  expect((await loadClassifier({ weights: only, model })).weights).toBe(join(only, "net.safetensors"));
});

describe("weights of another architecture", () => {
  it("are recognised, whatever their channels and classes, in less than a second or two", () => {
    for (const model of ["resnet50", "seresnet34", "legacy_seresnet50", "resnext50_32x4d", "plain20_cifar"])
      expect(
        bestFits(createModel(model, { numClasses: 5, inChannels: 4 }).stateDict()).map((fit) => fit.model),
      ).toContain(model);
    expect(bestFits({ "a.weight": tensor([1]) })).toEqual([]);
  });

  it("are refused with the name of the one they fit; nameless ones are those of the only one they fit", async () => {
    const file = join(folder, "nameless.safetensors");
    await saveSafetensors(file, createModel("resnet20_cifar").stateDict());
    await expect(loadClassifier({ weights: file, model: "seresnet20_cifar" })).rejects.toThrow(
      /not those of seresnet20_cifar \(they fit resnet20_cifar best: (\d+) of \1 tensors\): /,
    );
    expect((await loadClassifier({ weights: file })).info.model).toBe("resnet20_cifar"); // they fit no other
    await saveSafetensors(file, createModel("plain20_cifar").stateDict());
    await expect(loadClassifier({ weights: file })).rejects.toThrow(
      /got neither \(they fit alike, by names and shapes: resnet20_cifar with modelOptions shortcut "A", plain20_cifar; 97/,
    );
    const { "fc.bias": _, ...almost } = createModel("resnet20_cifar").stateDict();
    await saveSafetensors(file, almost);
    await expect(loadClassifier({ weights: file })).rejects.toThrow(
      /got neither \(they fit resnet20_cifar best: 106 of 107/,
    );
    await saveSafetensors(file, createModel("resnet20_cifar").stateDict());
    await writeFile(join(folder, "none.safetensors"), "no weights");
    await expect(loadClassifier({ weights: join(folder, "none.safetensors") })).rejects.toThrow(WeightsError);
    expect(Object.keys(await loadWeights(file)).length).toBeGreaterThan(100);
  });
});
