import { spawnSync } from "node:child_process";
import { setTimeout as pause } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import {
  ArgumentError,
  compile,
  createModel,
  functional,
  MemoryError,
  nn,
  optim,
  setDefaultDevice,
  tensor,
} from "seresnet";
import { ResidualBlock, SEBlock } from "seresnet/models";
import { afterEach, describe, expect, test } from "vitest";
import type { LoadedPlan } from "#lib/devices/executor.js";
import { relativeError } from "./support/compare.js";
import { executorOf, usableDevices } from "./support/devices.js";
import { contents, conv, kernelsOf, type Line, planOf, runPlan, single, withConstants } from "./support/plans.js";
import { fill, image } from "./support/weights.js";

// The CUDA executor: on a GPU with `npm run test:cuda`, on the host, kernels and all, with `npm run test:sim`.
const there = usableDevices.some((name) => name.startsWith("cuda"));
const device = usableDevices.find((name) => name.startsWith("cuda")) ?? "cuda";
const testedExecutor = () => executorOf(device);
if (!there)
  test("the CUDA executor", (context) => context.skip("LEFT OUT: no GPU (npm run test:cuda, npm run test:sim)"));

const onGpu = device === "cuda";
const ones = (length = 4) => new Float32Array(length).fill(1);
const addOne = () => withConstants(single("add", {}, [[4], []], [[4]]));

afterEach(() => setDefaultDevice("reference"));

describe.runIf(there)(`the CUDA executor on ${device}`, () => {
  const limits = { float32: 1e-4, tf32: 3e-3, float16: 5e-3, bfloat16: 2e-2 } as const;
  const small = [
    ["seresnet14_cifar", () => createModel("seresnet14_cifar"), [2, 3, 9, 8]],
    ["a residual block", () => new ResidualBlock(5, 7, 9), [2, 5, 1, 1]],
    ["an SE block", () => new SEBlock(5, 7, 9, { reduction: 3 }), [2, 5, 6, 7]],
  ] as const;
  const large = [
    ["seresnet50", () => createModel("seresnet50"), [2, 3, 64, 64]],
    ["resnext50_32x4d", () => createModel("resnext50_32x4d"), [1, 3, 64, 64]],
    ["legacy_seresnet18", () => createModel("legacy_seresnet18"), [2, 3, 37, 33]],
  ] as const;
  // on the host each thread of a kernel is a fiber: large networks are left to GPUs
  for (const [name, make, shape] of onGpu ? [...small, ...large] : small)
    test(`${name} equals the reference in every dtype`, async () => {
      const model = fill(make() as nn.Module, name).eval();
      const x = image(name, [...shape]);
      const reference = await compile(model, { device: "reference" });
      const wanted = await (await reference.run(x)).data();
      for (const [dtype, limit] of Object.entries(limits) as [keyof typeof limits, number][]) {
        const compiled = await compile(model, { device, dtype });
        for (let run = 0; run < 3; run++) {
          // the third run of a lane is the one that was recorded
          const got = await (await compiled.run(x)).data();
          expect(relativeError(got, wanted), dtype).toBeLessThan(limit);
        }
        await compiled.dispose();
      }
    });

  test("uint8 images are normalised inside the plan", async () => {
    const model = fill(createModel("resnet14_cifar"), "pixels").eval();
    const normalize = { mean: [0.5, 0.4, 0.3], std: [0.2, 0.3, 0.4] };
    const pixels = tensor(
      Uint8Array.from({ length: 3 * 16 * 16 }, (_, i) => (i * 37) % 256),
      [1, 3, 16, 16],
    );
    const results = [];
    for (const on of ["reference", device] as const) {
      const compiled = await compile(model, { device: on, normalize });
      results.push(await (await compiled.run(pixels)).data());
      await compiled.dispose();
    }
    expect(relativeError(results[1], results[0])).toBeLessThan(1e-4);
  });

  test("the gate of a linear squeeze is worked out before the convolution and is part of it", async () => {
    const shapes = [[2, 6, 5, 4], [8, 6, 1, 1], [8], [3, 8], [3], [8, 3], [8], [2, 8, 5, 4]];
    const attributes = { ...conv(), bias: true, residual: true, relu: true };
    const plan = withConstants(single("gated_conv2d", attributes, shapes, [shapes[7]]));
    const data = shapes.map((shape) => contents({ shape, dtype: "float32" }));
    const loaded = await testedExecutor().load(
      { ...plan, inputs: [0, 7], constants: [1, 2, 3, 4, 5, 6] },
      data.slice(1, 7),
      {
        compute: "float16",
      },
    );
    const kernels = kernelsOf(loaded);
    const [pool, gate, whole] = ["squeeze", "excite", ""].map((name) =>
      kernels.findIndex((kernel) => kernel.startsWith(`gated_conv2d ${name}`)),
    );
    expect(pool).toBeGreaterThanOrEqual(0);
    expect(gate).toBeGreaterThan(pool);
    expect(whole).toBe(pool);
    expect(kernels.filter((kernel) => kernel.startsWith("gated_conv2d"))).toHaveLength(onGpu ? kernels.length - 3 : 3);
    await loaded.dispose();
  });

  test("a training step changes parameters, statistics and optimiser state as the reference does", async () => {
    const x = image("step", [4, 3, 9, 8]);
    const targets = tensor(Int32Array.of(1, 0, 2, 1), [4]);
    const train = async (
      on: typeof device | "reference",
      make: (p: ReturnType<nn.Module["parameters"]>) => optim.SGD | optim.AdamW,
    ) => {
      setDefaultDevice(on);
      const body = fill(new SEBlock(3, 6, 8, { reduction: 4 }), "step").train();
      const head = fill(new nn.Linear(8, 3), "head");
      const pool = new nn.AdaptiveAvgPool2d(1);
      const optimizer = make([...body.parameters(), ...head.parameters()]);
      const losses: number[] = [];
      for (let step = 0; step < 3; step++) {
        optimizer.zeroGrad();
        const loss = functional.crossEntropy(head.forward(pool.forward(body.forward(x)).flatten(1)), targets, {
          labelSmoothing: 0.1,
        });
        loss.backward();
        optimizer.step();
        losses.push(await loss.item());
      }
      const entries = Object.entries(body.stateDict());
      return {
        losses,
        state: await Promise.all(entries.map(async ([name, entry]) => ({ name, data: await entry.data() }))),
      };
    };
    for (const make of [
      (p: ReturnType<nn.Module["parameters"]>) =>
        new optim.SGD(p, { lr: 0.1, momentum: 0.9, weightDecay: 1e-3, nesterov: true }),
      (p: ReturnType<nn.Module["parameters"]>) => new optim.AdamW(p, { lr: 0.01, eps: 1e-3 }),
    ]) {
      const wanted = await train("reference", make);
      const got = await train(device, make);
      expect(relativeError(got.losses, wanted.losses)).toBeLessThan(1e-4);
      for (const [i, { name, data }] of got.state.entries())
        expect(relativeError(data, wanted.state[i].data), name).toBeLessThan(1e-3);
    }
  });

  test("all parameters of an optimiser are updated by one kernel", async () => {
    const shapes = Array.from({ length: 60 }, (_, i) => [i + 1]); // more than one launch takes
    const settings = [0, 1, 2].map((i) => 3 * shapes.length + i);
    const lines = shapes.map(
      (shape, i): Line => ({
        op: "sgd",
        attributes: { nesterov: true },
        from: [3 * i, 3 * i + 1, 3 * i + 2, ...settings],
        to: [shape, shape],
      }),
    );
    const first = 3 * shapes.length + 3;
    const outputs = Array.from({ length: 2 * shapes.length }, (_, i) => first + i);
    const plan = planOf([...shapes.flatMap((shape) => [shape, shape, shape]), [], [], []], lines, outputs);
    const data = plan.inputs.map((slot) => contents(plan.slots[slot]));
    const wanted = await runPlan(executorOf("reference"), plan, data);
    const loaded = await testedExecutor().load(plan, []);
    expect(kernelsOf(loaded).filter((name) => name.startsWith("sgd"))).toHaveLength(1);
    const got = (await loaded.run({ inputs: data, variables: [] })).outputs;
    for (const [i, output] of got.entries()) expect(relativeError(output, wanted[i])).toBeLessThan(1e-6);
    await loaded.dispose();
  });

  test("variables stay on the device, and recorded work reads the ones it is given", async () => {
    const base = single("add", {}, [[3], [3]], [[3]]);
    const plan = await testedExecutor().load({ ...base, inputs: [0], variables: [1], written: [2], outputs: [2] }, []);
    let sum = await testedExecutor().upload(Float32Array.of(1, 2, 3), "float32");
    for (let run = 1; run <= 40; run++) {
      const { outputs, written } = await plan.run({ inputs: [Float32Array.of(run, 0, 1)], variables: [sum] });
      sum = written[0];
      expect([...outputs[0]]).toEqual([1 + (run * (run + 1)) / 2, 2, 3 + run]);
    }
    expect([...(await sum.read())]).toEqual([821, 2, 43]);
    await plan.dispose();
  });

  test("two plans at once, and many runs of each, give every run its own answer", async () => {
    const chain = (repeats: number): Line[] =>
      Array.from({ length: repeats }, (_, i) => ({ op: "add", from: [i === 0 ? 0 : i + 1, 1], to: [[4]] }));
    const plans = await Promise.all(
      [3, 7].map((repeats) => testedExecutor().load(withConstants(planOf([[4], []], chain(repeats))), [ones(1)])),
    );
    const runs = Array.from({ length: 60 }, (_, i) =>
      plans[i % 2].run({ inputs: [new Float32Array(4).fill(i)], variables: [] }),
    );
    for (const [i, { outputs }] of (await Promise.all(runs)).entries())
      expect(outputs[0]).toEqual(new Float32Array(4).fill(i + [3, 7][i % 2]));
    await Promise.all(plans.map((plan) => plan.dispose()));
  });

  test("dispose waits for the runs before it", async () => {
    const shape = [1, 16, 20, 20];
    const lines: Line[] = [{ op: "conv2d", attributes: conv(1, 1), from: [0, 1], to: [shape] }];
    const plan = await testedExecutor().load(planOf([shape, [16, 16, 3, 3]], lines), []);
    let ended = 0;
    const inputs = [new Float32Array(6400), new Float32Array(2304)];
    const runs = [1, 2, 3].map(() => plan.run({ inputs, variables: [] }).then(() => ended++));
    await plan.dispose();
    expect(ended).toBe(3);
    await Promise.all(runs);
  });

  test("a memory limit that is too small is an error of its own, and what fits still works", async () => {
    const large = () => {
      const plan = single("add", {}, [[1 << 18], []], [[1 << 18]]);
      return testedExecutor().load(plan, []);
    };
    setDefaultDevice(device, { memoryLimit: 1 << 20 });
    const small = await testedExecutor().load(addOne(), [ones(1)]);
    const refused = large();
    await expect(refused).rejects.toBeInstanceOf(MemoryError);
    await expect(refused).rejects.toMatchObject({
      code: "ERR_MEMORY",
      message: expect.stringMatching(/bytes do not fit: the limit is 1048576 bytes and \d+ are in use/),
    });
    expect((await small.run({ inputs: [ones()], variables: [] })).outputs[0]).toEqual(ones().fill(2));
    await small.dispose();
    setDefaultDevice(device);
    const loaded = await large();
    await loaded.dispose();
  });

  test.skipIf(onGpu)("a card before compute capability 8.0 refuses bfloat16 and tf32, and says what works", () => {
    const source = `const { compile, nn } = require("seresnet");
      const model = new nn.Conv2d(2, 3, { kernelSize: 1 });
      const one = (dtype) => compile(model, { device: ${JSON.stringify(device)}, dtype, inputShape: [1, 2, 2, 2] }).then(
        () => "works", ({ name, code, message }) => ({ name, code, message }));
      Promise.all(["float32", "float16", "tf32", "bfloat16"].map(one)).then((all) => console.log(JSON.stringify(all)));`;
    const env = { ...process.env, SERESNET_SIM_CAPABILITY: "75" };
    const child = spawnSync(process.execPath, ["-e", source], { encoding: "utf8", env });
    const refused = (dtype: string) => ({
      name: "DtypeError",
      code: "ERR_DTYPE",
      message: `cuda: expected compute capability 8.0 for ${dtype}, got 7.5 (float32 and float16 work)`,
    });
    expect(JSON.parse(child.stdout)).toEqual(["works", "works", refused("tf32"), refused("bfloat16")]);
  });

  test("options that are none are refused", () => {
    for (const memoryLimit of [0, -1, 1.5, Number.NaN, 2 ** 60])
      expect(() => setDefaultDevice(device, { memoryLimit }), String(memoryLimit)).toThrow(ArgumentError);
    expect(() => setDefaultDevice(device, { autotune: 1 as unknown as boolean })).toThrow(ArgumentError);
  });

  test("a target outside the classes fails the run and no other", async () => {
    const plan = single(
      "cross_entropy",
      { labelSmoothing: 0, reduction: "mean" },
      [[3, 5], { shape: [3], dtype: "int32" }],
      [[]],
    );
    const logits = contents(plan.slots[0]);
    const loaded = await testedExecutor().load(plan, []);
    const run = (targets: number[]) => loaded.run({ inputs: [logits, Int32Array.from(targets)], variables: [] });
    await expect(run([1, 7, -1])).rejects.toThrow(/expected targets from 0 to 4, got 7 at position 1/);
    expect(Number.isFinite((await run([1, 4, 0])).outputs[0][0])).toBe(true);
    await loaded.dispose();
  });

  test("thousands of runs leave memory as it was", async () => {
    const model = fill(new SEBlock(3, 4, 8, { reduction: 4 }), "flat").eval();
    const compiled = await compile(model, { device });
    const x = image("flat", [1, 3, 8, 8]);
    const rounds = onGpu ? 10 : 2;
    const each = onGpu ? 1000 : 10;
    const sizes: number[] = [];
    for (let round = 0; round < rounds; round++) {
      for (let i = 0; i < each; i++) await (await compiled.run(x)).data();
      await pause(10);
      sizes.push(process.memoryUsage().rss / 2 ** 20);
    }
    expect(sizes[rounds - 1] - sizes[1 % rounds], `${sizes.map(Math.round)} MiB`).toBeLessThan(64);
    await compiled.dispose();
  });

  test("worker threads have devices of their own, and may end in the middle of a run", async () => {
    const source = `
      const { parentPort } = require("node:worker_threads");
      const { compile, nn, tensor } = require("seresnet");
      const { ResidualBlock } = require("seresnet/models");
      nn.manualSeed(1);
      compile(new ResidualBlock(3, 4, 8).eval(), { device: ${JSON.stringify(device)} }).then(async (model) => {
        const x = tensor(new Float32Array(3 * 64).fill(0.5), [1, 3, 8, 8]);
        parentPort.postMessage([...(await (await model.run(x)).data())]);
        for (;;) await model.run(x);
      });`;
    const answers = await Promise.all(
      [0, 1].map(async () => {
        const worker = new Worker(source, { eval: true });
        const answer = await new Promise<number[]>((done, fail) => worker.once("message", done).once("error", fail));
        await worker.terminate();
        return answer;
      }),
    );
    expect(answers[0]).toEqual(answers[1]);
    expect(answers[0].every(Number.isFinite)).toBe(true);
    expect((await runPlan(testedExecutor(), addOne(), [ones(), ones(1)]))[0]).toEqual(ones().fill(2));
  });

  test("a plan that is let go of is freed by the garbage collector's hand, too", async () => {
    const plans: LoadedPlan[] = [];
    for (let i = 0; i < 20; i++) plans.push(await testedExecutor().load(addOne(), [ones(1)]));
    plans.length = 0;
    expect((await runPlan(testedExecutor(), addOne(), [ones(), ones(1)]))[0]).toEqual(ones().fill(2));
  });
});
