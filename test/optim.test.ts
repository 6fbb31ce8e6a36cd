import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import {
  ArgumentError,
  amp,
  createModel,
  functional,
  nn,
  optim,
  setDefaultDevice,
  type Tensor,
  tensor,
  WeightsError,
} from "seresnet";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { referenceExecutor } from "#lib/devices/reference/executor.js";
import { relativeError } from "./support/compare.js";
import { usableDevices } from "./support/devices.js";

interface Trajectory {
  w: number[];
  b: number[];
  norms: number[];
  average?: { w: number[]; b: number[] };
}
// what PyTorch, timm and torchvision say: test/fixtures/optim.py wrote it
const golden = JSON.parse(readFileSync(resolve("test/fixtures/optim.json"), "utf8")) as {
  sgd: Trajectory;
  adamw: Trajectory;
  clipped: Trajectory;
  clippedToZero: Trajectory;
  ema: Trajectory;
  schedules: Record<string, number[]>;
  losses: { lambda: number; smoothing: number; loss: number; gradient: number[] }[];
  mixed: number[];
};

const wave = (n: number, k: number) => Float32Array.from({ length: n }, (_, i) => Math.sin(0.7 * i + 1.3 * k));
const floats = async (t: Tensor | undefined) => (await (t as Tensor).data()) as Float32Array;

class Two extends nn.Module {
  readonly w = new nn.Parameter([3, 4], 0);
  readonly b = new nn.Parameter([4], 0);

  constructor() {
    super();
    this.loadStateDict({ w: tensor(wave(12, 100), [3, 4]), b: tensor(wave(4, 200)) });
  }

  override forward(x: Tensor): Tensor {
    return x;
  }

  /** Gives step k's gradients to the parameters. */
  backward(k: number): void {
    const part = (parameter: Tensor, gradient: Float32Array) => parameter.mul(tensor(gradient, parameter.shape)).sum();
    const scaled = (n: number, at: number) => wave(n, at).map((value) => value * (k + 1));
    part(this.w, scaled(12, k))
      .add(part(this.b, scaled(4, k + 50)))
      .backward();
  }
}

interface Course {
  clip?: number;
  decay?: number;
  from?: number;
  to?: number;
}

async function trajectory(net: Two, optimizer: optim.Optimizer, { clip, decay, from = 0, to = 5 }: Course = {}) {
  const ema = decay === undefined ? undefined : new optim.EMA(net, { decay });
  const norms: number[] = [];
  for (let k = from; k < to; k++) {
    optimizer.zeroGrad();
    net.backward(k);
    const norm = clip === undefined ? undefined : optim.clipGradNorm(net.parameters(), clip);
    optimizer.step();
    ema?.update();
    if (norm) norms.push(await norm.item());
  }
  return { net, norms, ema };
}

async function expectTrajectory(net: Two, want: { w: number[]; b: number[] }): Promise<void> {
  expect(relativeError(await floats(net.w), want.w)).toBeLessThan(1e-6);
  expect(relativeError(await floats(net.b), want.b)).toBeLessThan(1e-6);
}

const groups = (net: Two) => [{ params: [net.w] }, { params: [net.b], weightDecay: 0, lrScale: 0.5 }];
const makeSgd = (net: Two) => new optim.SGD(groups(net), { lr: 0.1, momentum: 0.9, weightDecay: 0.05, nesterov: true });
const makeAdamW = (net: Two) => new optim.AdamW(groups(net), { lr: 0.1, weightDecay: 0.05 });

afterAll(() => setDefaultDevice("auto"));

describe.each(usableDevices)("on %s", (device) => {
  beforeAll(() => setDefaultDevice(device));

  it("SGD and AdamW with parameter groups follow PyTorch", async () => {
    const sgd = new Two();
    await trajectory(sgd, makeSgd(sgd));
    await expectTrajectory(sgd, golden.sgd);
    const adamw = new Two();
    await trajectory(adamw, makeAdamW(adamw));
    await expectTrajectory(adamw, golden.adamw);
  });

  it.each([["SGD", makeSgd] as const, ["AdamW", makeAdamW] as const])(
    "%s goes on from a saved state bit for bit",
    async (_, make) => {
      const whole = new Two();
      await trajectory(whole, make(whole));
      const first = new Two();
      const before = make(first);
      await trajectory(first, before, { to: 3 });
      const copied = async (record: Record<string, Tensor>) =>
        Object.fromEntries(
          await Promise.all(
            Object.entries(record).map(async ([name, t]) => [name, tensor(await t.data(), t.shape)] as const),
          ),
        );
      const state = await copied(before.stateDict());
      const second = new Two();
      second.loadStateDict(await copied(first.stateDict()));
      const after = make(second);
      await after.loadStateDict(state);
      await trajectory(second, after, { from: 3 });
      expect(await floats(second.w)).toEqual(await floats(whole.w));
      expect(await floats(second.b)).toEqual(await floats(whole.b));
    },
  );

  it("gradients are clipped by their global norm, as clip_grad_norm_ does", async () => {
    for (const [maxNorm, want] of [
      [3, golden.clipped],
      [0, golden.clippedToZero],
    ] as const) {
      const net = new Two();
      const { norms } = await trajectory(net, new optim.SGD(net.parameters(), { lr: 0.1 }), { clip: maxNorm });
      await expectTrajectory(net, want);
      expect(relativeError(norms, want.norms)).toBeLessThan(1e-6);
    }
    const [small, free] = [new Two(), new Two()];
    await trajectory(small, new optim.SGD(small.parameters(), { lr: 0.1 }), { clip: 1e6 });
    await trajectory(free, new optim.SGD(free.parameters(), { lr: 0.1 }));
    expect(await floats(small.w)).toEqual(await floats(free.w)); // below the limit nothing changes, not even a bit
  });

  it("the average of the weights is timm's; swapping twice changes nothing", async () => {
    const net = new Two();
    const { ema } = await trajectory(net, makeSgd(net), { decay: 0.9 });
    const own = await floats(net.w);
    const average = golden.ema.average as { w: number[]; b: number[] };
    expect(relativeError(await floats(ema?.stateDict().w), average.w)).toBeLessThan(1e-6);
    ema?.swap();
    await expectTrajectory(net, average);
    ema?.swap();
    expect(await floats(net.w)).toEqual(own);
  });

  it("mixup and label smoothing have PyTorch's losses and gradients", async () => {
    const x = tensor(wave(12, 3), [3, 2, 2]);
    expect(relativeError(await floats(functional.mixup(x, 0.7)), golden.mixed)).toBeLessThan(1e-6);
    for (const { lambda, smoothing, loss, gradient } of golden.losses) {
      const logits = tensor(
        wave(15, 7).map((value) => value * 3),
        [3, 5],
        { requiresGrad: true },
      );
      const targets = tensor(Int32Array.of(4, 0, 2));
      const got = functional.mixupCrossEntropy(logits, targets, lambda, { labelSmoothing: smoothing });
      got.backward();
      expect(await got.item()).toBeCloseTo(loss, 5);
      expect(relativeError(await floats(logits.grad), gradient)).toBeLessThan(1e-5);
    }
  });

  it("frozen parameters get no gradient and stay", async () => {
    const net = createModel("resnet14_cifar", { inChannels: 1 });
    for (const parameter of net.children()[3].parameters()) parameter.requiresGrad = false;
    const [frozen] = net.children()[3].parameters();
    const before = await floats(frozen);
    const trained = net.parameters().filter(({ requiresGrad }) => requiresGrad);
    const optimizer = new optim.SGD(trained, { lr: 0.1 });
    functional.crossEntropy(net.forward(tensor(wave(128, 1), [2, 1, 8, 8])), tensor(Int32Array.of(1, 2))).backward();
    expect(frozen.grad).toBeUndefined();
    optimizer.step();
    expect(await floats(frozen)).toEqual(before);
    expect(() => new optim.SGD([frozen], { lr: 0.1 })).toThrow("parameters that want gradients");
  });
});

describe("schedules follow PyTorch's", () => {
  const { constantSchedule, cosineSchedule, oneCycleSchedule, stepSchedule } = optim;
  const lr = 0.4;
  it.each([
    ["step", stepSchedule({ lr, milestones: 3 })],
    ["multiStep", stepSchedule({ lr, milestones: [2, 5], gamma: 0.5 })],
    ["stepWarm", stepSchedule({ lr, milestones: [2, 5], gamma: 0.5, warmupSteps: 4 })],
    ["cosineWarm", cosineSchedule({ lr, totalSteps: 12, warmupSteps: 4 })],
    ["constantWarm", constantSchedule({ lr, warmupSteps: 4 })],
    ["oneCycle", oneCycleSchedule({ maxLr: lr, totalSteps: 12, pctStart: 0.25 })],
  ] as const)("%s", (name, schedule) => {
    const want = golden.schedules[name];
    expect(
      relativeError(
        want.map((_, step) => schedule(step)),
        want,
      ),
    ).toBeLessThan(1e-9);
  });
});

describe("what does not fit is refused", () => {
  it("groups", () => {
    const net = new Two();
    expect(() => new optim.SGD([{ params: [net.w] }, { params: [net.w] }], { lr: 1 })).toThrow(ArgumentError);
    expect(() => new optim.SGD([{ params: [net.w], weightDecay: -1 }], { lr: 1 })).toThrow("weightDecay");
    expect(() => new optim.SGD([], { lr: 1 })).toThrow("at least one parameter");
    expect(() => optim.clipGradNorm(net.parameters(), 1)).toThrow("after backward");
    expect(() => optim.clipGradNorm(net.parameters(), Number.NaN)).toThrow("maxNorm");
  });

  it("norms and biases are a group without decay", () => {
    const [decayed, free] = optim.withoutNormDecay(createModel("seresnet14_cifar"), 0.1);
    expect([decayed.weightDecay, free.weightDecay]).toEqual([0.1, 0]);
    for (const { shape } of decayed.params) expect(shape.length).toBeGreaterThan(1);
    for (const { shape } of free.params) expect(shape.length).toBe(1);
  });

  it("a state of another optimiser leaves everything as it was", async () => {
    const [net, other] = [new Two(), new Two()];
    const sgd = makeSgd(net);
    await trajectory(net, sgd, { to: 2 });
    const before = await floats(sgd.stateDict()["0.momentum_buffer"]);
    const adamw = makeAdamW(other);
    await trajectory(other, adamw, { to: 1 });
    await expect(sgd.loadStateDict(adamw.stateDict())).rejects.toThrow(WeightsError);
    const swapped = { "0.step": tensor(Int32Array.of(1)), "0.momentum_buffer": tensor([1, 2]) };
    await expect(sgd.loadStateDict(swapped)).rejects.toThrow("to be float32 [3, 4], got float32 [2]");
    expect(await floats(sgd.stateDict()["0.momentum_buffer"])).toEqual(before);
  });

  it("averages of another model, or of no number of updates", async () => {
    const ema = new optim.EMA(new Two(), { decay: 0.5 });
    const before = await floats(ema.stateDict().b);
    const ones = { w: tensor(wave(12, 1), [3, 4]), b: tensor([1, 1, 1, 1]) };
    expect(() => ema.loadStateDict(ones, Number.NaN)).toThrow("updates");
    expect(await floats(ema.stateDict().b)).toEqual(before);
    expect(() => ema.loadStateDict({ w: tensor([1]) }, 1)).toThrow(WeightsError);
    expect(() => new optim.EMA(new Two(), { decay: 1 })).toThrow("decay");
  });
});

describe.each(usableDevices)("parameters of several dtypes on %s", (device) => {
  beforeAll(() => setDefaultDevice(device));
  afterAll(() => setDefaultDevice("auto"));

  it("are clipped together and averaged, each in its own", async () => {
    for (const dtype of ["float16", "bfloat16"] as const) {
      const half = new nn.Parameter(tensor([1, 2], [2], { dtype }));
      const whole = new nn.Parameter(tensor([1]));
      const net = Object.assign(new nn.Sequential(), { half, whole });
      const ema = new optim.EMA(net, { decay: 0.5 });
      half
        .cast("float32")
        .mul(tensor([3, 4]))
        .sum()
        .add(whole.mul(12).sum())
        .backward();
      expect(await optim.clipGradNorm([half, whole], 1.3).item()).toBeCloseTo(13, 5);
      const gradient = half.grad as Tensor;
      expect(gradient.dtype).toBe(dtype);
      for (const [i, want] of [0.3, 0.4].entries()) expect((await floats(gradient))[i]).toBeCloseTo(want, 2);
      expect((await floats(whole.grad))[0]).toBeCloseTo(1.2, 5);
      new optim.SGD([half, whole], { lr: 1 }).step();
      ema.update();
      const { half: average, whole: other } = ema.stateDict();
      expect(average.dtype).toBe(dtype);
      for (const [i, want] of [0.85, 1.8].entries()) expect((await floats(average))[i]).toBeCloseTo(want, 1);
      expect((await floats(other))[0]).toBeCloseTo(0.4, 5);
      const before = [await floats(half), await floats(whole)];
      new optim.AdamW([half, whole], { lr: 0.5, weightDecay: 0 }).step();
      for (const [i, parameter] of [half, whole].entries()) {
        expect(parameter.dtype).toBe([dtype, "float32"][i]);
        for (const [k, now] of (await floats(parameter)).entries()) expect(now).toBeCloseTo(before[i][k] - 0.5, 1);
      }
    }
  });

  it("with gradients that are no numbers, or infinite, become what PyTorch makes of them", async () => {
    for (const [given, norm, clipped] of [
      [[Number.NaN, 1], Number.NaN, [Number.NaN, Number.NaN]],
      [[Number.POSITIVE_INFINITY, 1], Number.POSITIVE_INFINITY, [Number.NaN, 0]],
      [[0, 0], 0, [0, 0]],
    ] as const) {
      const parameter = new nn.Parameter(tensor([1, 1]));
      parameter
        .mul(tensor([...given]))
        .sum()
        .backward();
      expect(await optim.clipGradNorm([parameter], 1).item()).toBe(norm);
      expect([...(await floats(parameter.grad))]).toEqual([...clipped]);
    }
  });
});

it("the first step after everything was loaded runs the plans of all later ones", async () => {
  setDefaultDevice("reference");
  const load = vi.spyOn(referenceExecutor(), "load");
  try {
    const net = new Two();
    const sgd = new optim.SGD(net.parameters(), { lr: 0.1, momentum: 0.9 });
    const scaler = new amp.GradScaler();
    const ema = new optim.EMA(net);
    const two = () => ({ w: tensor(wave(12, 1), [3, 4]), b: tensor(wave(4, 2)) });
    const [momentum, steps] = [two(), tensor(Int32Array.of(3))];
    await sgd.loadStateDict({
      "0.step": steps,
      "0.momentum_buffer": momentum.w,
      "1.step": steps,
      "1.momentum_buffer": momentum.b,
    });
    scaler.loadStateDict({ scale: tensor(4), growth_tracker: tensor(1) });
    ema.loadStateDict(two(), 2);
    for (let k = 0; k < 3; k++) {
      sgd.zeroGrad();
      net.backward(k);
      const skip = scaler.step(sgd);
      ema.update({ skip });
      scaler.update();
      await net.w.data();
    }
    expect(load).toHaveBeenCalledTimes(2); // the step, and what follows it
  } finally {
    load.mockRestore();
  }
});
