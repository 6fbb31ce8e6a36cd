import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  ArgumentError,
  amp,
  compile,
  createModel,
  data,
  evaluate,
  exportOnnx,
  functional as F,
  ImageClassifier,
  loadImage,
  loadWeights,
  nn,
  optim,
  setDefaultDevice,
  tensor,
  fit as train,
} from "seresnet";
import { ResidualBlock, SEBlock } from "seresnet/models";
import { describe, expect, test } from "vitest";
import { defaultWeights } from "#lib/paths.js";

const images = tensor(new Float32Array(32), [2, 1, 4, 4]);
const layer = new nn.Linear(2, 2);
const dataset: data.Dataset = {
  classes: ["a", "b"],
  labels: Int32Array.of(0, 1),
  pictures: { kind: "pixels", data: new Uint8Array(new SharedArrayBuffer(32)), height: 4, width: 4 },
};
const normalize = { mean: [0.5], std: [0.5] };

// biome-ignore lint/suspicious/noExplicitAny: what untyped code passes
type Call = (options: any) => unknown;

/** Every function of the public API that takes options, a name as PyTorch or a slip has it, and the one that was meant. */
const calls: Record<string, [call: Call, wrong: string, meant: string]> = {
  tensor: [(o) => tensor([1], undefined, o), "requires_grad", "requiresGrad"],
  "functional.crossEntropy": [
    (o) => F.crossEntropy(tensor([[1, 2]]), tensor(Int32Array.of(0)), o),
    "label_smoothing",
    "labelSmoothing",
  ],
  "functional.mixupCrossEntropy": [
    (o) => F.mixupCrossEntropy(tensor([[1, 2]]), tensor(Int32Array.of(0)), 1, o),
    "labelsmoothing",
    "labelSmoothing",
  ],
  "functional.conv2d": [
    (o) => F.conv2d(images, tensor(new Float32Array(9), [1, 1, 3, 3]), undefined, o),
    "strides",
    "stride",
  ],
  "functional.maxPool2d": [(o) => F.maxPool2d(images, { kernelSize: 2, ...o }), "ceil_mode", "ceilMode"],
  "functional.avgPool2d": [(o) => F.avgPool2d(images, { kernelSize: 2, ...o }), "count_include_pad", "countIncludePad"],
  "functional.batchNorm": [(o) => F.batchNorm(images, o), "running_mean", "runningMean"],
  "functional.sum": [(o) => F.sum(images, [1], o), "keepdim", "keepDims"],
  "tensor.mean": [(o) => images.mean([1], o), "keepdims", "keepDims"],
  "functional.slice": [(o) => F.slice(images, o), "step", "steps"],
  "nn.Conv2d": [(o) => new nn.Conv2d(1, 1, { kernelSize: 1, ...o }), "padding_mode", "padding"],
  "nn.BatchNorm2d": [(o) => new nn.BatchNorm2d(1, o), "track_running_stats", "trackRunningStats"],
  "nn.Linear": [(o) => new nn.Linear(1, 1, o), "Bias", "bias"],
  "nn.MaxPool2d": [(o) => new nn.MaxPool2d({ kernelSize: 2, ...o }), "dilations", "dilation"],
  "nn.AvgPool2d": [(o) => new nn.AvgPool2d({ kernelSize: 2, ...o }), "countIncludePadding", "countIncludePad"],
  "module.loadStateDict": [(o) => layer.loadStateDict(layer.stateDict(), o), "Strict", "strict"],
  "optim.SGD": [(o) => new optim.SGD(layer.parameters(), o), "weight_decay", "weightDecay"],
  "a group of parameters": [
    (o) => new optim.SGD([{ params: layer.parameters(), ...o }], { lr: 0.1 }),
    "lr_scale",
    "lrScale",
  ],
  "optim.AdamW": [(o) => new optim.AdamW(layer.parameters(), o), "beta", "betas"],
  "optimizer.step": [(o) => new optim.SGD(layer.parameters(), { lr: 0.1 }).step(o), "skipped", "skip"],
  "optim.EMA": [(o) => new optim.EMA(layer, o), "decays", "decay"],
  "ema.update": [(o) => new optim.EMA(layer).update(o), "skips", "skip"],
  "optim.constantSchedule": [(o) => optim.constantSchedule({ lr: 1, ...o }), "warmup_steps", "warmupSteps"],
  "optim.stepSchedule": [(o) => optim.stepSchedule({ lr: 1, milestones: 2, ...o }), "gama", "gamma"],
  "optim.cosineSchedule": [(o) => optim.cosineSchedule({ lr: 1, totalSteps: 2, ...o }), "final_lr", "finalLr"],
  "optim.oneCycleSchedule": [(o) => optim.oneCycleSchedule({ maxLr: 1, totalSteps: 2, ...o }), "pct_start", "pctStart"],
  "amp.GradScaler": [(o) => new amp.GradScaler(o), "init_scale", "initScale"],
  createModel: [(o) => createModel("resnet14_cifar", o), "num_classes", "numClasses"],
  ResidualBlock: [(o) => new ResidualBlock(1, 1, 1, o), "kernel_size", "kernelSize"],
  SEBlock: [(o) => new SEBlock(8, 8, 8, { reduction: 2, ...o }), "reductions", "reduction"],
  compile: [(o) => compile(layer, o), "input_shape", "inputShape"],
  "compiled.run": [
    async (o) => (await compile(layer, { device: "reference" })).run(tensor([[1, 2]]), o),
    "Signal",
    "signal",
  ],
  "compile's normalize": [(o) => compile(layer, { normalize: { ...normalize, ...o } }), "stdev", "std"],
  setDefaultDevice: [(o) => setDefaultDevice("reference", o), "memory_limit", "memoryLimit"],
  loadImage: [(o) => loadImage("no.png", o), "crop_pct", "cropPct"],
  loadWeights: [(o) => loadWeights("no.pth", o), "progress", "onProgress"],
  exportOnnx: [(o) => exportOnnx(layer, "no.onnx", { inputShape: [1, 2], ...o }), "dynamic_batch", "dynamicBatch"],
  "ImageClassifier.load": [(o) => ImageClassifier.load(defaultWeights, o), "num_classes", "numClasses"],
  "classifier.classify": [
    async (o) => (await ImageClassifier.load(undefined, { device: "reference" })).classify("no.png", o),
    "topk",
    "topK",
  ],
  "classifier.embed": [
    async (o) => (await ImageClassifier.load(undefined, { device: "reference" })).embed("no.png", o),
    "topK",
    "signal",
  ],
  "classifier.classifyEach": [
    async (o) => {
      for await (const _ of (await ImageClassifier.load(undefined, { device: "reference" })).classifyEach([], o));
    },
    "top_k",
    "topK",
  ],
  "data.DataLoader": [(o) => new data.DataLoader(dataset, { workers: 0, ...o }), "batch_size", "batchSize"],
  "data.DataLoader's augment": [
    (o) => new data.DataLoader(dataset, { workers: 0, augment: o }),
    "random_resized_crop",
    "randomResizedCrop",
  ],
  "its crop": [
    (o) => new data.DataLoader(dataset, { workers: 0, augment: { randomResizedCrop: o } }),
    "ratios",
    "ratio",
  ],
  "its erasing": [
    (o) => new data.DataLoader(dataset, { workers: 0, augment: { erasing: o } }),
    "probabilities",
    "probability",
  ],
  "data.openDataset": [async (o) => data.openDataset(await mkdtemp(join(tmpdir(), "options-")), o), "class", "classes"],
  fit: [(o) => train(layer, { length: 1, epoch: async function* () {} }, { epochs: 1, ...o }), "clip_norm", "clipNorm"],
  evaluate: [(o) => evaluate(layer, (async function* () {})(), { normalize, ...o }), "normalise", "normalize"],
};

describe("a name that is no option is refused with the nearest one", () => {
  for (const [name, [call, wrong, meant]] of Object.entries(calls))
    test(name, async () => {
      const attempt = async () => call({ [wrong]: 1 });
      await expect(attempt()).rejects.toThrow(ArgumentError);
      await expect(attempt()).rejects.toThrow(new RegExp(`among .*\\(nearest: ${meant}\\b.*, got ${wrong}$`));
    });

  test("and an undefined one is the default, whatever its name", () => {
    expect(() => new optim.SGD(layer.parameters(), { lr: 0.1, [String("nothing")]: undefined })).not.toThrow();
  });

  test("a list, a number and null are no options", () => {
    for (const wrong of [[], 3, null, "lr"])
      expect(() => new optim.SGD(layer.parameters(), wrong as never)).toThrow(/SGD: expected options as an object/);
  });

  test("a long wrong name is not repeated", () => {
    expect(() => new optim.SGD(layer.parameters(), { ["x".repeat(1e6)]: 1 } as never)).toThrow(/^.{1,300}$/);
  });
});
