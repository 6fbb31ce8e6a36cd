import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Progress, StepReport } from "seresnet";
import {
  ArgumentError,
  amp,
  createModel,
  DtypeError,
  data,
  functional,
  nn,
  optim,
  setDefaultDevice,
  type Tensor,
  tensor,
  fit as train,
  WeightsError,
} from "seresnet";
import { SEBlock } from "seresnet/models";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { roundTo } from "#lib/dtype.js";
import type { CheckpointInfo } from "#lib/io/checkpoint.js";
import { readRun, restoreRun, saveRun } from "#lib/train/state.js";
import { relativeError } from "./support/compare.js";
import { usableDevices } from "./support/devices.js";
import { writeIdx } from "./support/idx.js";
import { fill, image } from "./support/weights.js";

const { autocast, GradScaler } = amp;
const halves = ["bfloat16", "float16"] as const;
const limits = { bfloat16: 2e-2, float16: 5e-3 };
const floats = async (t: Tensor | undefined) => (await (t as Tensor).data()) as Float32Array;
const everything = async (record: Record<string, Tensor>) =>
  Object.fromEntries(
    await Promise.all(Object.entries(record).map(async ([name, t]) => [name, await t.data()] as const)),
  );

/** A network small enough for devices that run on the host. */
class Small extends nn.Module {
  readonly body: nn.Module;
  readonly pool = new nn.AdaptiveAvgPool2d(1);
  readonly fc: nn.Linear;

  constructor(inChannels: number, classes: number) {
    super();
    this.body = new SEBlock(inChannels, 4, 8, { reduction: 4 });
    this.fc = new nn.Linear(8, classes);
  }

  override forward(x: Tensor): Tensor {
    return this.fc.forward(this.pool.forward(this.body.forward(x)).flatten(1));
  }
}

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-amp-"));
  await writeIdx(folder, { train: 32, test: 8, side: 8 });
});
afterAll(async () => {
  setDefaultDevice("auto");
  await rm(folder, { recursive: true, force: true });
});

/** What `fit` takes beside the model. */
const without = <T extends { model: unknown }>({ model: _, ...options }: T) => options;

describe.each(usableDevices.filter((name) => name !== "cuda"))("mixed precision on %s", (device) => {
  beforeAll(() => setDefaultDevice(device));

  it.each(halves)(
    "convolutions and linear layers compute in %s, and their weights' gradients are float32",
    async (dtype) => {
      const conv = fill(new nn.Conv2d(3, 4, { kernelSize: 3, padding: 1 }), "conv");
      const head = fill(new nn.Linear(4, 5), "head");
      const x = image("x", [2, 3, 6, 6]);
      const forward = () => {
        const y = conv.forward(x);
        return { y, logits: head.forward(y.mean([2, 3])) };
      };
      const loss = ({ logits }: { logits: Tensor }) => functional.crossEntropy(logits, tensor(Int32Array.of(1, 4)));
      const [exact, mixed] = [forward(), autocast(dtype, forward)];
      expect([mixed.y.dtype, mixed.logits.dtype]).toEqual([dtype, dtype]);
      const rounded = (await floats(mixed.y)).slice();
      roundTo(dtype, rounded);
      expect(await floats(mixed.y)).toEqual(rounded);
      expect(relativeError(await mixed.logits.data(), await exact.logits.data())).toBeLessThan(limits[dtype]);
      const total = autocast(dtype, () => loss(mixed));
      expect(total.dtype).toBe("float32");
      loss(exact).backward();
      const wanted = await floats(conv.weight.grad);
      new optim.SGD([...conv.parameters(), ...head.parameters()]).zeroGrad();
      total.backward();
      expect(conv.weight.grad?.dtype).toBe("float32");
      expect(relativeError(await floats(conv.weight.grad), wanted)).toBeLessThan(2 * limits[dtype]);
    },
  );

  it.each(halves)("a network learns in %s as it does in float32", async (dtype) => {
    const brightness = tensor([0, 1, 2, 0, 1, 2], [6, 1, 1, 1]);
    const x = image("learn", [6, 3, 8, 8]).add(brightness);
    const labels = brightness.flatten().cast("int32");
    const course = async (precision: amp.TrainingDType) => {
      const model = fill(new Small(3, 3), "learn").train();
      const optimizer = new optim.SGD(model.parameters(), { lr: 0.1, momentum: 0.9 });
      const scaler = precision === "float16" ? new GradScaler() : undefined;
      const losses: number[] = [];
      for (let step = 0; step < 6; step++) {
        optimizer.zeroGrad();
        const loss = autocast(precision, () => functional.crossEntropy(model.forward(x), labels));
        (scaler ? scaler.scale(loss) : loss).backward();
        if (scaler) scaler.step(optimizer);
        else optimizer.step();
        scaler?.update();
        losses.push(await loss.item());
      }
      for (const [name, { dtype }] of Object.entries(model.stateDict()))
        expect(dtype, name).toBe(name.endsWith("tracked") ? "int64" : "float32");
      return losses;
    };
    const [exact, mixed] = [await course("float32"), await course(dtype)];
    expect(mixed).not.toEqual(exact);
    expect(mixed[5]).toBeLessThan(mixed[0] * 0.8);
    expect(relativeError(mixed, exact)).toBeLessThan(3 * limits[dtype]);
  });

  /*
   * PyTorch 2.13:
   * p = torch.nn.Parameter(torch.tensor([1., -2., 3.])); opt = SGD([p], lr=0.1, momentum=0.9) or AdamW([p], lr=0.1)
   * scaler = torch.amp.GradScaler("cpu", init_scale=1024., growth_interval=2)
   * for i in range(8):
   *     opt.zero_grad()
   *     loss = (p * p * torch.tensor([1., 2., 3.])).sum() * (float("inf") if i in (1, 4, 5) else 1.)
   *     scaler.scale(loss).backward(); scaler.step(opt); scaler.update()
   */
  it.each([
    ["SGD", [-0.5804200172424316, 1.4579999446868896, -0.6901798248291016]],
    ["AdamW", [0.5040801763534546, -1.4940457344055176, 2.4878692626953125]],
  ] as const)("the scaler follows PyTorch's, with %s: overflow changes nothing but the scale", async (name, wanted) => {
    const p = tensor([1, -2, 3], [3], { requiresGrad: true });
    const optimizer =
      name === "SGD" ? new optim.SGD([p], { lr: 0.1, momentum: 0.9 }) : new optim.AdamW([p], { lr: 0.1 });
    const scaler = new GradScaler({ initScale: 1024, growthInterval: 2 });
    const scales: number[] = [];
    const skips: number[] = [];
    for (let i = 0; i < 8; i++) {
      const before = [await p.data(), await everything(optimizer.stateDict())];
      optimizer.zeroGrad();
      const overflow = i === 1 || i === 4 || i === 5;
      const loss = p
        .mul(p)
        .mul(tensor([1, 2, 3]))
        .sum()
        .mul(overflow ? Number.POSITIVE_INFINITY : 1);
      scaler.scale(loss).backward();
      const skipped = scaler.step(optimizer);
      scaler.update();
      skips.push(await skipped.item());
      scales.push(await scaler.getScale());
      const after = [await p.data(), await everything(optimizer.stateDict())];
      if (overflow) expect(after).toEqual(before);
      else expect(after).not.toEqual(before);
    }
    expect(skips).toEqual([0, 1, 0, 0, 1, 1, 0, 0]);
    expect(scales).toEqual([1024, 512, 512, 1024, 512, 256, 256, 512]);
    expect(relativeError(await p.data(), wanted)).toBeLessThan(1e-6);
    expect(await optimizer.stateDict()["0.step"].item()).toBe(5);
  });

  it("fit in float16 skips what overflows, average included, and goes on bit for bit with its scale", async () => {
    const dataset = await data.openIdx(folder, "train");
    const make = () => {
      const model = fill(new Small(1, 4), "fit");
      const optimizer = new optim.AdamW(model.parameters(), { lr: 1e-3 });
      const ema = new optim.EMA(model, { decay: 0.5 });
      return { model, optimizer, ema, scaler: new GradScaler({ initScale: 2 ** 24, growthInterval: 4 }) };
    };
    type Trainee = ReturnType<typeof make>;
    const states = ({ model, optimizer, ema, scaler }: Trainee) =>
      Promise.all([
        everything(Object.fromEntries(model.namedParameters())),
        everything(optimizer.stateDict()),
        everything(ema.stateDict()),
        everything(scaler.stateDict()),
      ]);
    await using loader = new data.DataLoader(dataset, { batchSize: 8, workers: 0, shuffle: true });
    const steps: StepReport[] = [];
    const common = { epochs: 4, normalize: { mean: [0.5], std: [0.5] }, dtype: "float16", clipNorm: 10 } as const;
    const whole = make();
    const [parameters, , average] = await states(whole);
    const seen: Awaited<ReturnType<typeof states>>[] = [];
    await train(whole.model, loader, {
      ...common,
      ...without(whole),
      saveEvery: 1,
      onSave: async () => void seen.push(await states(whole)),
      onStep: (step) => steps.push(step),
    });
    const overflows = steps.map(({ overflow }) => overflow);
    expect(overflows[0]).toBe(true);
    expect(seen[0][0]).toEqual(parameters);
    expect(seen[0][2]).toEqual(average);
    expect(seen[0][3].scale).toEqual(Float32Array.of(2 ** 23));
    expect(overflows.filter((overflow) => overflow === false).length).toBeGreaterThan(4);
    expect(overflows.at(-1)).toBe(false);
    expect(seen.at(-1)?.[0]).not.toEqual(parameters);

    const first = make();
    const stop = new AbortController();
    const files = { resume: join(folder, "resume.safetensors"), checkpoint: join(folder, "model.safetensors") };
    const info: CheckpointInfo = {
      model: "resnet14_cifar",
      options: {},
      classes: ["a", "b", "c", "d"],
      inputSize: [1, 8, 8],
      mean: [0.5],
      std: [0.5],
      interpolation: "bilinear",
      cropPct: 1,
    };
    let progress: Progress | undefined;
    const run = train(first.model, loader, {
      ...common,
      ...without(first),
      signal: stop.signal,
      onStep: ({ step }) => step === 5 && stop.abort(new Error("enough")),
      onSave: async (now) => {
        progress = now;
        await saveRun(files, first, info, { settings: {}, progress: now });
      },
    });
    await expect(run).rejects.toThrow("enough");
    const second = make();
    await restoreRun(files.resume, second, await readRun(files.resume));
    await train(second.model, loader, { ...common, ...without(second), start: progress });
    expect(await states(second)).toEqual(await states(whole));
  });
});

describe("mixed precision", () => {
  beforeAll(() => setDefaultDevice("reference"));

  it("arithmetic takes the more precise of two dtypes, inside autocast alone", () => {
    const [single, half] = [tensor([1]), tensor([1], [1], { dtype: "float16" })];
    expect(autocast("float16", () => single.add(half)).dtype).toBe("float32");
    expect(autocast("float16", () => half.sum()).dtype).toBe("float32");
    expect(autocast("bfloat16", () => autocast("float32", () => tensor([[1]]).matmul(tensor([[1]])))).dtype).toBe(
      "float32",
    );
    expect(() => single.add(half)).toThrow(DtypeError);
  });

  it("refuses other dtypes and functions that wait", async () => {
    expect(() => autocast("int32" as "float16", () => 1)).toThrow(DtypeError);
    expect(() => autocast("float16", async () => 1)).toThrow(ArgumentError);
    expect(tensor([[1]]).matmul(tensor([[1]])).dtype).toBe("float32"); // it is off again
    await expect(
      train(
        createModel("resnet14_cifar"),
        { length: 1, epoch: async function* () {} },
        { epochs: 1, dtype: "tf32" as "float32" },
      ),
    ).rejects.toThrow(DtypeError);
  });

  it("the scaler tells what it is used wrongly for", () => {
    const p = new nn.Parameter([1], 1);
    const optimizer = new optim.SGD([p]);
    const scaler = new GradScaler();
    expect(() => scaler.update()).toThrow(/a step since the last one/);
    expect(() => scaler.step(optimizer)).toThrow(/parameters with gradients/);
    scaler.scale(p.mul(2).sum()).backward();
    scaler.unscale(optimizer);
    expect(() => scaler.unscale(optimizer)).toThrow(/one call between two updates/);
    expect(() => scaler.loadStateDict({ scale: tensor(1) })).toThrow(WeightsError);
    expect(() => new GradScaler({ growthFactor: 0.5 })).toThrow(ArgumentError);
    expect(() => optimizer.step({ skip: tensor([1, 2]) })).toThrow(/skip to be a float32 scalar/);
  });
});
