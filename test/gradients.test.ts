import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import {
  ArgumentError,
  createModel,
  functional,
  nn,
  optim,
  ShapeError,
  StaleTensorError,
  setDefaultDevice,
  type Tensor,
  tensor,
} from "seresnet";
import { ResidualBlock, SEBlock } from "seresnet/models";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { relativeError } from "./support/compare.js";
import { usableDevices } from "./support/devices.js";
import { type Digest, digestError, fill, image } from "./support/weights.js";

const floats = async (t: Tensor | undefined) => (await (t as Tensor).data()) as Float32Array;
const leaf = async (t: Tensor) => tensor(await t.data(), t.shape, { requiresGrad: true });

afterAll(() => setDefaultDevice("auto"));

describe.each(usableDevices)("on %s", (device) => {
  beforeAll(() => setDefaultDevice(device));

  describe("the seed's blocks have PyTorch's gradients", () => {
    const { blocks } = JSON.parse(readFileSync(resolve("test/fixtures/expected.json"), "utf8")) as {
      blocks: {
        class: "ResidualBlock" | "SE";
        args: [number, number, number];
        shape: number[];
        mode: string;
        gradInput: Digest;
        gradParams: Record<string, Digest>;
      }[];
    };
    it.each(blocks.map((want) => [want.class, want.mode, want] as const))("%s in %s mode", async (name, mode, want) => {
      const block = fill(new { ResidualBlock, SE: SEBlock }[name](...want.args), `atlas/${name}`);
      block.train(mode === "train");
      const x = await leaf(image(`atlas/${name}/x`, want.shape));
      const out = block.forward(x);
      out
        .mul(image(`atlas/${name}/g`, out.shape))
        .sum()
        .backward();
      expect(digestError(await floats(x.grad), want.gradInput)).toBeLessThan(1e-4);
      const parameters = Object.fromEntries(block.namedParameters());
      const scale = Math.max(...Object.values(want.gradParams).map(({ absmax }) => absmax));
      for (const [key, digest] of Object.entries(want.gradParams)) {
        const got = await floats(parameters[key].grad);
        // a bias in front of a batch norm has no gradient in training: PyTorch stores its rounding errors
        if (digest.absmax < 1e-4 * scale) for (const value of got) expect(Math.abs(value)).toBeLessThan(1e-4 * scale);
        else expect(digestError(got, digest), key).toBeLessThan(1e-4);
      }
    });
  });

  /** Checks d(sum(f(x) * c))/dx by central differences, for each input. */
  async function checkNumerically(f: (...inputs: Tensor[]) => Tensor, inputs: Tensor[], h = 1e-2) {
    const leaves = await Promise.all(inputs.map(leaf));
    const weighted = (...given: Tensor[]) => {
      const y = f(...given);
      return y.mul(image("cotangent", y.shape)).sum();
    };
    weighted(...leaves).backward();
    for (const [which, input] of leaves.entries()) {
      const analytic = await floats(input.grad);
      const base = await floats(input);
      const shifted = (at: number, by: number) => {
        const copy = base.slice();
        copy[at] += by;
        return weighted(...inputs.map((t, i) => (i === which ? tensor(copy, input.shape) : t)));
      };
      const differences = Array.from(base, (_, i) => [shifted(i, h).item(), shifted(i, -h).item()]);
      const numeric = await Promise.all(differences.map(async ([up, down]) => ((await up) - (await down)) / (2 * h)));
      expect(relativeError(analytic, numeric), `input ${which}`).toBeLessThan(3e-3);
    }
  }

  describe("every op's gradient against finite differences", () => {
    const x = (shape: number[], name = "x") => image(name, shape);
    const positive = (shape: number[]) => image("p", shape).mul(0.4).add(1);
    const { conv2d, maxPool2d, avgPool2d, batchNorm } = functional;
    const targets = tensor(Int32Array.of(2, 0, 1));
    const cases: [string, (...inputs: Tensor[]) => Tensor, Tensor[]][] = [
      [
        "conv2d",
        (a, w, b) => conv2d(a, w, b, { stride: [2, 1], padding: [1, 2], dilation: [1, 2] }),
        [x([2, 3, 5, 6]), x([4, 3, 3, 2], "w"), x([4], "b")],
      ],
      [
        "conv2d, grouped",
        (a, w) => conv2d(a, w, undefined, { groups: 2, padding: 1 }),
        [x([1, 4, 4, 3]), x([6, 2, 3, 3], "w")],
      ],
      [
        "conv2d, 1x1 strided",
        (a, w) => conv2d(a, w, undefined, { stride: 2 }),
        [x([2, 3, 5, 5]), x([2, 3, 1, 1], "w")],
      ],
      [
        "batch norm, training",
        (a, g, b) => batchNorm(a, { weight: g, bias: b, training: true }),
        [x([3, 2, 2, 3]), positive([2]), x([2], "b")],
      ],
      [
        "batch norm, given statistics",
        (a, g, b) => batchNorm(a, { weight: g, bias: b, runningMean: x([2], "m"), runningVar: positive([2]) }),
        [x([3, 2, 2, 3]), positive([2]), x([2], "b")],
      ],
      ["batch norm, not affine", (a) => batchNorm(a, { training: true }), [x([4, 2, 2, 1])]],
      ["linear", (a, w, b) => functional.linear(a, w, b), [x([2, 3, 4]), x([5, 4], "w"), x([5], "b")]],
      ["matmul", (a, b) => a.matmul(b), [x([3, 4]), x([4, 2], "b")]],
      ["matmul, broadcast", (a, b) => a.matmul(b), [x([2, 3, 4]), x([4, 2], "b")]],
      ["add, broadcast", (a, b) => a.add(b), [x([2, 3, 2]), x([3, 1], "b")]],
      ["sub, broadcast", (a, b) => a.sub(b), [x([3, 1]), x([2, 3, 2], "b")]],
      ["mul, broadcast", (a, b) => a.mul(b), [x([2, 3]), x([1, 3], "b")]],
      ["div, broadcast", (a, b) => a.div(b), [x([2, 3]), positive([3])]],
      ["a number", (a) => a.mul(3).add(1).div(2).sub(5), [x([4])]],
      ["relu", (a) => a.relu(), [x([11])]],
      ["sigmoid", (a) => a.sigmoid(), [x([7])]],
      ["sqrt", (a) => a.sqrt(), [positive([5])]],
      ["exp, neg", (a) => a.neg().exp(), [x([5])]],
      ["log", (a) => a.log(), [positive([5])]],
      ["max pool", (a) => maxPool2d(a, { kernelSize: 3, stride: 2, padding: 1 }), [x([1, 2, 5, 6])]],
      [
        "max pool, ceil mode, dilated",
        (a) => maxPool2d(a, { kernelSize: 2, stride: 2, ceilMode: true, dilation: [1, 2] }),
        [x([1, 2, 5, 6])],
      ],
      ["average pool", (a) => avgPool2d(a, { kernelSize: [3, 2], stride: 2, padding: 1 }), [x([1, 2, 5, 6])]],
      [
        "average pool, ceil mode",
        (a) => avgPool2d(a, { kernelSize: 2, ceilMode: true, countIncludePad: false }),
        [x([1, 2, 5, 5])],
      ],
      ["sum", (a) => a.sum([0, 2]), [x([2, 3, 2])]],
      ["mean, kept", (a) => a.mean([1], { keepDims: true }), [x([2, 3, 2])]],
      ["reshape", (a) => a.reshape([3, -1]).flatten(0), [x([2, 6])]],
      ["pad", (a) => functional.pad(a, [1, 0], [0, 2]), [x([2, 3])]],
      ["slice", (a) => functional.slice(a, { starts: [0, 1], ends: [2, 6], steps: [1, 2] }), [x([2, 6])]],
      ["softmax", (a) => a.softmax(1), [x([2, 4])]],
      ["log-softmax", (a) => a.logSoftmax(0), [x([3, 2])]],
      ["cross-entropy", (a) => functional.crossEntropy(a, targets, { labelSmoothing: 0.1 }), [x([3, 4])]],
      ["cross-entropy, each", (a) => functional.crossEntropy(a, targets, { reduction: "none" }), [x([3, 4])]],
      ["an input used twice", (a) => a.mul(a).add(a), [x([4])]],
    ];
    it.each(cases)("%s", async (_, f, inputs) => {
      await checkNumerically(f, await Promise.all(inputs.map(leaf)));
    });
  });

  describe("backward", () => {
    it("accumulates until zeroGrad, also over two losses of one tick", async () => {
      const p = new nn.Parameter([1], 3);
      p.mul(2).sum().backward();
      p.mul(p).sum().backward();
      expect(await p.grad?.item()).toBe(2 + 6);
      p.mul(10).sum().backward();
      expect(await p.grad?.item()).toBe(18);
      new optim.SGD([p]).zeroGrad();
      expect(p.grad).toBeUndefined();
      p.mul(4).sum().backward();
      expect(await p.grad?.item()).toBe(4);
    });

    it("reaches parameters whose weights were loaded and not flushed yet", async () => {
      const fc = new nn.Linear(2, 1);
      fc.loadStateDict({ weight: tensor([[2, 3]]), bias: tensor([1]) });
      const loss = fc.forward(tensor([[5, 7]])).sum();
      loss.backward();
      expect(await loss.item()).toBe(2 * 5 + 3 * 7 + 1);
      expect([...(await floats(fc.weight.grad))]).toEqual([5, 7]);
      expect(await fc.bias?.grad?.item()).toBe(1);
    });

    it("gives none to parameters off the loss, behind detach, or plain tensors", async () => {
      const [p, q, r] = [1, 2, 3].map((value) => new nn.Parameter([1], value));
      const plain = tensor([4]);
      p.mul(q.mul(5).detach()).mul(plain).sum().backward();
      expect(await p.grad?.item()).toBe(40);
      expect([q.grad, r.grad, plain.grad]).toEqual([undefined, undefined, undefined]);
    });

    it("flows through values that were asked for before", async () => {
      const p = new nn.Parameter([1], 3);
      const middle = p.mul(p);
      await middle.data();
      const loss = middle.mul(2).sum();
      expect(await loss.item()).toBe(18);
      loss.backward();
      expect(await p.grad?.item()).toBe(12);
      new optim.SGD([p], { lr: 0.25 }).step();
      expect(await p.item()).toBe(0);
      expect(() => loss.backward()).toThrow(StaleTensorError);
      expect(await p.grad?.item()).toBe(12);
    });

    it("refuses what is no scalar", () => {
      expect(() => new nn.Parameter([2], 1).mul(2).backward()).toThrow(ShapeError);
    });

    it("keeps the loss for after the step", async () => {
      const p = new nn.Parameter([1], 3);
      const loss = p.mul(p).sum();
      loss.backward();
      new optim.SGD([p], { lr: 0.5 }).step();
      expect(await loss.item()).toBe(9);
      expect(await p.item()).toBe(0);
    });
  });

  /*
   * PyTorch 2.13:
   * p = torch.nn.Parameter(torch.tensor([1., -2., 3.])); c = torch.tensor([.5, 1., -2.])
   * opt = <optimizer>([p], **options)
   * for i in range(5): opt.zero_grad(); ((p - c) ** 2 * torch.tensor([1., 2., 3.])).sum().backward(); opt.step()
   */
  describe("optimisers follow PyTorch", () => {
    const make = {
      SGD: (p: Tensor) => new optim.SGD([p], { lr: 0.05 }),
      "SGD with momentum": (p: Tensor) => new optim.SGD([p], { lr: 0.05, momentum: 0.9, weightDecay: 0.1 }),
      "SGD with Nesterov": (p: Tensor) => new optim.SGD([p], { lr: 0.02, momentum: 0.9, nesterov: true }),
      AdamW: (p: Tensor) => new optim.AdamW([p], { lr: 0.1, weightDecay: 0.2 }),
    };
    const golden: Record<keyof typeof make, number[]> = {
      SGD: [0.7952449321746826, 0.016960052773356438, -1.1596499681472778],
      "SGD with momentum": [0.44111546874046326, 2.7542834281921387, -5.84599494934082],
      "SGD with Nesterov": [0.714643657207489, 0.8901491761207581, -3.073091983795166],
      AdamW: [0.4623734951019287, -1.3300342559814453, 2.2329914569854736],
    };
    it.each(Object.keys(make) as (keyof typeof make)[])("%s", async (name) => {
      const p = tensor([1, -2, 3], [3], { requiresGrad: true });
      const optimizer = make[name](p);
      for (let i = 0; i < 5; i++) {
        const offset = p.sub(tensor([0.5, 1, -2]));
        optimizer.zeroGrad();
        offset
          .mul(offset)
          .mul(tensor([1, 2, 3]))
          .sum()
          .backward();
        optimizer.step();
      }
      expect(relativeError(await p.data(), golden[name])).toBeLessThan(1e-6);
    });

    it("refuse what they cannot train", () => {
      const p = new nn.Parameter([1], 1);
      expect(() => new optim.SGD([])).toThrow(ArgumentError);
      expect(() => new optim.SGD([tensor([1])])).toThrow(/want gradients/);
      expect(() => new optim.SGD([p], { lr: -1 })).toThrow(/lr/);
      expect(() => new optim.SGD([p], { nesterov: true })).toThrow(/momentum/);
      expect(() => new optim.AdamW([p], { betas: [0.9, 1] })).toThrow(/betas/);
    });
  });

  it("a small network learns, and changing the rate needs no new plan", async () => {
    const net = createModel("seresnet14_cifar", { numClasses: 4 });
    const optimizer = new optim.SGD(net.parameters(), { lr: 0.05, momentum: 0.9 });
    const x = image("learn", [8, 3, 12, 12]);
    const y = tensor(Int32Array.from({ length: 8 }, (_, i) => i % 4));
    const schedule = optim.cosineSchedule({ lr: 0.05, totalSteps: 12 });
    const losses: number[] = [];
    for (let step = 0; step < 12; step++) {
      optimizer.lr = schedule(step);
      const loss = functional.crossEntropy(net.forward(x), y);
      optimizer.zeroGrad();
      loss.backward();
      optimizer.step();
      losses.push(await loss.item());
    }
    expect(losses[11]).toBeLessThan(losses[0] * 0.2);
  });

  /* PyTorch 2.13: OneCycleLR(opt, 0.2, total_steps=10, pct_start=0.3).get_last_lr() before each step */
  it("one-cycle schedule follows PyTorch", () => {
    const schedule = optim.oneCycleSchedule({ maxLr: 0.2, totalSteps: 10, pctStart: 0.3 });
    const got = Array.from({ length: 10 }, (_, step) => schedule(step));
    expect(
      relativeError(
        got,
        [
          0.008000000000000007, 0.10400000000000001, 0.2, 0.19009692640269477, 0.1623491307899526, 0.12225240438725786,
          0.07774839561274215, 0.0376516692100474, 0.009903873597305258, 8e-7,
        ],
      ),
    ).toBeLessThan(1e-6);
  });
});
