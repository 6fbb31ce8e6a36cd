import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { EpochReport, Progress, StepReport } from "seresnet";
import {
  createModel,
  data,
  evaluate,
  listDevices,
  nn,
  optim,
  setDefaultDevice,
  type Tensor,
  TrainingError,
  fit as train,
} from "seresnet";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { confusionOf, renderReport, scoresOf } from "#lib/train/report.js";
import { relativeError } from "./support/compare.js";
import { writeIdx } from "./support/idx.js";

const normalize = { mean: [0.3], std: [0.3] };
let folder: string;
let idx: data.Dataset;
let test: data.Dataset;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-train-"));
  await writeIdx(folder, { train: 48, test: 16, side: 8 });
  idx = await data.openIdx(folder, "train");
  test = await data.openIdx(folder, "test");
});
afterAll(async () => {
  setDefaultDevice("auto");
  await rm(folder, { recursive: true, force: true });
});

class Small extends nn.Module {
  readonly conv = new nn.Conv2d(1, 4, { kernelSize: 3, padding: 1, bias: false });
  readonly bn: nn.Module;
  readonly fc = new nn.Linear(64, 4);

  constructor(norm = true) {
    super();
    this.bn = norm ? new nn.BatchNorm2d(4) : new nn.Identity();
  }

  override forward(x: Tensor): Tensor {
    const y = this.bn.forward(this.conv.forward(x)).relu();
    return this.fc.forward(new nn.AvgPool2d({ kernelSize: 2 }).forward(y).flatten(1));
  }
}

function small(norm = true): Small {
  nn.manualSeed(7);
  return new Small(norm);
}

const floats = async (t: Tensor) => (await t.data()) as Float32Array;
const everything = async (model: nn.Module) =>
  Float32Array.from(
    (await Promise.all(Object.values(model.stateDict()).map(async (t) => [...(await t.data())].map(Number)))).flat(),
  );
const loaderOf = (options: data.LoaderOptions = {}) =>
  new data.DataLoader(idx, {
    batchSize: 8,
    shuffle: true,
    seed: 5,
    augment: { padCrop: 1, flip: true },
    workers: 0,
    ...options,
  });

const devices = listDevices().filter(({ usable, name }) => usable && name !== "cuda");

/** What `fit` takes beside the model. */
const without = <T extends { model: unknown }>({ model: _, ...options }: T) => options;

describe.each(devices.map(({ name }) => name))("on %s", (device) => {
  beforeAll(() => setDefaultDevice(device));

  it("judges RGB validation without a normalisation of its own", async () => {
    const colours: data.Dataset = {
      ...idx,
      labels: idx.labels.subarray(0, 16),
      pictures: {
        ...(idx.pictures as data.PixelPictures),
        data: (idx.pictures as data.PixelPictures).data.subarray(0, 16 * 64),
      },
    };
    const loader = () => new data.DataLoader(colours, { batchSize: 8, channels: 3, workers: 0 });
    const model = createModel("resnet14_cifar", { numClasses: 4 });
    const [epoch] = await train(model, loader(), { epochs: 1, validation: loader() });
    expect(epoch.validationAccuracy).toBeGreaterThanOrEqual(0);
  });

  it("skips an image that damage has left alone where batch norm cannot normalise one, and tracks nothing of it", async () => {
    const batch = (count: number, at: number) =>
      new data.Batch(
        new Uint8Array(count * 64).fill(at),
        [count, 1, 8, 8],
        Int32Array.from({ length: count }, () => 0),
        Uint32Array.from({ length: count }, (_, i) => at + i),
        [],
      );
    const run = async (batches: data.Batch[], side: number) => {
      const model = createModel("resnet18", { numClasses: 2, inChannels: 1 });
      const skipped: string[] = [];
      const source = {
        length: batches.length,
        async *epoch() {
          for (const each of batches) yield each;
        },
      };
      const onSkip = ({ message }: { message: string }) => skipped.push(message);
      const [epoch] = await train(model, source, { epochs: 1, onSkip });
      const counted = await model.stateDict()["bn1.num_batches_tracked"].item();
      return { skipped, counted, images: epoch.images, lost: epoch.skipped, side };
    };
    const { skipped, ...rest } = await run([batch(2, 1), batch(1, 7), batch(2, 20)], 8);
    expect(skipped).toHaveLength(1);
    expect(skipped[0]).toMatch(/^image 7 is alone in its batch \(batch_norm: expected more than one value per channel/);
    expect(rest).toEqual({ counted: 2, images: 4, lost: 1, side: 8 });
  });

  it("learns, tells of every step and epoch, and judges the average of the weights", async () => {
    const model = small();
    await using loader = loaderOf({ augment: undefined });
    await using validation = new data.DataLoader(test, { batchSize: 5, workers: 0 });
    const ema = new optim.EMA(model, { decay: 0.9, warmup: true });
    const steps: StepReport[] = [];
    const saved: number[] = [];
    const history = await train(model, loader, {
      epochs: 4,
      normalize,
      ema,
      validation,
      labelSmoothing: 0.1,
      clipNorm: 5,
      mixup: 0.2,
      saveEvery: 4,
      onStep: (step) => steps.push(step),
      onSave: ({ step }) => {
        saved.push(step);
      },
    });
    expect(steps.map(({ step }) => step)).toEqual([...Array(24).keys()].map((i) => i + 1));
    for (const { gradientNorm } of steps) expect(gradientNorm).toBeGreaterThan(0);
    expect(saved).toEqual([4, 6, 8, 12, 12, 16, 18, 20, 24, 24]);
    expect(history.map(({ epoch, images }) => [epoch, images])).toEqual([1, 2, 3, 4].map((epoch) => [epoch, 48]));
    expect(history[3].loss).toBeLessThan(history[0].loss);
    expect(history[3].validationAccuracy).toBeGreaterThan(0.9);
    const now = await everything(model);
    ema.swap();
    const judged = await evaluate(model, validation.epoch(0), { normalize });
    expect(judged.accuracy).toBe(history[3].validationAccuracy);
    expect(judged.loss).toBeCloseTo(history[3].validationLoss as number, 6);
    ema.swap();
    expect(await everything(model)).toEqual(now);
  });

  it("gives the same losses with any number of workers", async () => {
    const lossesWith = async (workers: number) => {
      await using loader = loaderOf({ workers });
      const losses: number[] = [];
      await train(small(), loader, { epochs: 2, normalize, mixup: 0.4, onStep: ({ loss }) => losses.push(loss) });
      return losses;
    };
    expect(await lossesWith(2)).toEqual(await lossesWith(0));
  });

  it("accumulates: two batches of 4 step as one of 8", async () => {
    const weightsAfter = async (batchSize: number, accumulate: number) => {
      await using loader = loaderOf({ batchSize });
      const model = small(false); // batch norm would see other batches
      await train(model, loader, { epochs: 1, accumulate, normalize });
      return everything(model);
    };
    expect(relativeError(await weightsAfter(4, 2), await weightsAfter(8, 1))).toBeLessThan(1e-5);
  });

  it("stops on a signal after saving, and goes on bit for bit from what was saved", async () => {
    const make = () => {
      const model = small();
      const optimizer = new optim.AdamW(optim.withoutNormDecay(model, 0.01), { lr: 0.01 });
      return { model, optimizer, ema: new optim.EMA(model, { decay: 0.8 }) };
    };
    await using loader = loaderOf();
    const common = { epochs: 3, normalize, mixup: 0.3 };
    const whole = make();
    const want = await train(whole.model, loader, { ...common, ...without(whole) });

    const first = make();
    const stop = new AbortController();
    let progress: Progress | undefined;
    const onSave = (now: Progress) => {
      progress = JSON.parse(JSON.stringify(now)) as Progress;
    };
    const onStep = ({ step }: StepReport) => {
      if (step === 8) stop.abort(new Error("enough"));
    };
    const run = train(first.model, loader, { ...common, ...without(first), signal: stop.signal, onSave, onStep });
    await expect(run).rejects.toThrow("enough");
    expect(progress?.step).toBeGreaterThanOrEqual(8);
    expect(progress?.step).toBeLessThan(18);

    const second = make();
    second.model.loadStateDict(first.model.stateDict());
    await second.optimizer.loadStateDict(first.optimizer.stateDict());
    second.ema.loadStateDict(first.ema.stateDict(), first.ema.updates);
    const history = await train(second.model, loader, { ...common, ...without(second), start: progress });
    expect(await everything(second.model)).toEqual(await everything(whole.model));
    const untimed = (epochs: readonly EpochReport[]) =>
      epochs.map(({ seconds: _, imagesPerSecond: __, idle: ___, ...rest }) => rest);
    expect(untimed(history)).toEqual(untimed(want));
  });

  it("a frozen stage keeps its weights and its running statistics", async () => {
    const model = createModel("resnet14_cifar", { inChannels: 1, numClasses: 4 });
    const state = model.stateDict();
    for (const [name, parameter] of model.namedParameters()) parameter.requiresGrad = name.startsWith("fc.");
    const frozen = ["conv1.weight", "bn1.running_mean", "layer1.0.bn1.running_var", "layer2.0.conv1.weight"];
    const before = await Promise.all(frozen.map((name) => floats(state[name])));
    const head = await floats(state["fc.weight"]);
    await using loader = loaderOf({ batchSize: 16 });
    await train(model, loader, { epochs: 1, normalize });
    expect(await Promise.all(frozen.map((name) => floats(state[name])))).toEqual(before);
    expect(await floats(state["fc.weight"])).not.toEqual(head);
  });

  it("a loss that is not finite stops it at the step, before anything is saved", async () => {
    const model = small();
    const saved: number[] = [];
    await using loader = loaderOf();
    const run = train(model, loader, {
      epochs: 2,
      normalize,
      optimizer: new optim.SGD(model.parameters(), { lr: 1 }),
      schedule: (step) => (step < 7 ? 1e-3 : 1e38),
      onSave: ({ step }) => {
        saved.push(step);
      },
    });
    const error = await run.then(
      () => undefined,
      (error: unknown) => error,
    );
    expect(error).toBeInstanceOf(TrainingError);
    expect((error as TrainingError).message).toMatch(
      /^fit: expected a finite loss, got (NaN|Infinity) at step (9|10) \(epoch 2\)$/,
    );
    expect(saved).toEqual([6]);
  });

  it("labels the model has no output for are told of", async () => {
    const wrong = { ...idx, labels: idx.labels.map((label) => label + 1) };
    await using loader = new data.DataLoader(wrong, { batchSize: 8, workers: 0 });
    await expect(train(small(), loader, { epochs: 1, normalize })).rejects.toThrow(/targets from 0 to 3, got 4/);
  });
});

it("the losses of a training agree on all devices", async () => {
  const courses = [];
  for (const { name } of devices) {
    setDefaultDevice(name);
    await using loader = loaderOf();
    const losses: number[] = [];
    await train(small(), loader, { epochs: 2, normalize, onStep: ({ loss }) => losses.push(loss) });
    courses.push(losses);
  }
  if (courses.length === 1) console.warn("one device only on this machine: nothing was compared");
  for (const losses of courses) expect(relativeError(losses, courses[0])).toBeLessThan(1e-4);
});

describe("a report", () => {
  const classes = ["cat", "<dog>", "emu"];
  const answers = [
    { index: 0, truth: 0, predicted: 0, confidence: 0.9, loss: 0.1 },
    { index: 1, truth: 0, predicted: 1, confidence: 0.6, loss: 2 },
    { index: 2, truth: 1, predicted: 1, confidence: 0.7, loss: 0.3 },
    { index: 3, truth: 1, predicted: 0, confidence: 0.8, loss: 3 },
  ];

  it("counts what was taken for what", () => {
    const counts = confusionOf(answers, 3);
    expect(counts).toEqual([
      [1, 1, 0],
      [1, 1, 0],
      [0, 0, 0],
    ]);
    const called = (truth: number, predicted: number) => ({ index: 0, truth, predicted, confidence: 1, loss: 0 });
    expect(
      scoresOf([called(0, 0), called(0, 0), called(0, 0), called(0, 1), called(1, 1), called(1, 1)], classes),
    ).toEqual([
      { label: "cat", images: 4, precision: 1, recall: 0.75 },
      { label: "<dog>", images: 2, precision: 2 / 3, recall: 1 },
      { label: "emu", images: 0, precision: null, recall: null },
    ]);
  });

  it("is one file with plots, tables and the worst mistakes first, and nothing from elsewhere", async () => {
    const epoch = (at: number): EpochReport => ({
      epoch: at,
      step: at * 6,
      lr: 0.1 / at,
      loss: 2 / at,
      accuracy: 0.4 + at / 10,
      images: 48,
      skipped: 0,
      validationLoss: 2.1 / at,
      validationAccuracy: 0.3 + at / 10,
      seconds: 1,
      imagesPerSecond: 48,
      idle: 0.01,
    });
    const held = { ...test, classes };
    const html = await renderReport({
      info: {
        model: "resnet14_cifar",
        options: {},
        classes,
        inputSize: [1, 8, 8],
        mean: [0.3],
        std: [0.3],
        interpolation: "bilinear",
        cropPct: 1,
      },
      settings: { lr: 0.1, optimizer: "sgd" },
      history: [epoch(1), epoch(2), epoch(3)],
      evaluation: { images: 4, correct: 2, accuracy: 0.5, loss: 1.35, skipped: 0, answers },
      held,
    });
    expect(html.match(/<svg/g)).toHaveLength(4);
    for (const title of ["Loss", "Accuracy", "Learning rate", "Confusion matrix", "Classes", "The worst mistakes"])
      expect(html).toContain(`<h2>${title}</h2>`);
    const pictures = [...html.matchAll(/src="(data:image\/png;base64,[^"]+)"/g)].map(([, url]) => url);
    expect(pictures).toHaveLength(2);
    expect(html.indexOf("is &lt;dog&gt;")).toBeLessThan(html.indexOf("is cat"));
    expect(html).not.toContain("<dog>");
    expect(html).not.toMatch(/<script|<link|src="(?!data:)|url\(/);
    expect(html.replaceAll("http://www.w3.org/2000/svg", "")).not.toMatch(/https?:/);
  });
});
