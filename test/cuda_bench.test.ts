import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { compile, createModel, listDevices, summary } from "seresnet";
import { afterAll, describe, expect, test } from "vitest";
import type { KernelTime } from "#lib/devices/native/addon.js";
import { NativePlan } from "#lib/devices/native/executor.js";
import type { Plan } from "#lib/plan/plan.js";
import { differencesOf } from "../dist/bench/cuda.js";
import type { GpuAnswers, GpuTurn } from "../dist/bench/cuda_runner.js";
import { type Case, kernelsTable, rooflineShare, targets } from "../dist/bench/cuda_table.js";
import { boundOf, leastTime } from "../dist/bench/roofline.js";
import { executorOf } from "./support/devices.js";
import { contents, conv, single } from "./support/plans.js";
import { pythonWith } from "./support/python.js";
import { image } from "./support/weights.js";

// `npm run bench:cuda` without a GPU: what it refuses, how it counts, and, with `npm run test:sim`, all of it on the host.
const folder = mkdtempSync(join(tmpdir(), "seresnet-bench-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const main = join(__dirname, "..", "dist", "bench", "main.js");
const bench = (...args: string[]) => spawnSync(process.execPath, [main, "cuda", ...args], { encoding: "utf8" });
const training = (...args: string[]) => spawnSync(process.execPath, [main, "training", ...args], { encoding: "utf8" });
const usable = (name: string) => listDevices().some((device) => device.name === name && device.usable);

test.skipIf(usable("cuda"))("without a GPU it says so in one sentence, with what to install, and exits with 3", () => {
  const { status, stdout, stderr } = bench("--results", folder);
  expect(stderr).toMatch(/^The benchmark on cuda was not run: .+ \(try: .+\)\n$/);
  expect(stdout).toBe("");
  expect(status).toBe(3);
});

test.skipIf(usable("cuda"))("nor are training steps timed without one", () => {
  const { status, stdout, stderr } = training("--device", "cuda", "--results", folder);
  expect(stderr).toMatch(/^The benchmark on cuda was not run: .+ \(try: .+\)\n$/);
  expect(stdout).toBe("");
  expect(status).toBe(3);
  expect(training("--device", "tpu").stderr).toBe("bench: expected --device cpu, cuda, cuda-sim, got tpu\n");
});

test.each([
  [["--dtype", "float8"], /expected --dtype float16, bfloat16, tf32, float32, got float8/],
  [["--model", "vgg"], /expected --model seresnet50, .*got vgg/],
  [["--batch", "0"], /expected --batch to be a whole number, got 0/],
  [["--minutes", "soon"], /expected --minutes to be a whole number, got soon/],
  [["--patience", "0"], /expected --patience to be a whole number, got 0/],
  [["--cases", "vgg:float16:1"], /expected --cases seresnet50, .*got vgg/],
  [["--cases", "seresnet50:float16"], /expected --cases like seresnet50:float16:128, got seresnet50:float16$/m],
  [["--cases", "seresnet50:float16:1", "--batch", "2"], /expected --cases or --batch, got both/],
])("refuses %j", (args, sentence) => {
  const { status, stderr } = bench(...args);
  expect(stderr).toMatch(sentence);
  expect(status).toBe(1);
});

const kernel = (bytes: number, flops = 0): KernelTime => ({
  step: 0,
  op: "op",
  implementation: "made up",
  start: 0,
  milliseconds: 1,
  bytes,
  flops,
});

test("a kernel takes as long as moving its bytes or computing its products does, whichever is longer", () => {
  const ceilings = { bytes: 10, flops: 100 };
  expect(boundOf(kernel(40, 210), ceilings)).toEqual({ milliseconds: 4000, by: "memory" });
  expect(boundOf(kernel(6, 210), ceilings)).toEqual({ milliseconds: 2100, by: "products" });
  expect(leastTime([kernel(40, 210), kernel(6, 210), kernel(10)], ceilings)).toBeCloseTo(4000 + 2100 + 1000, 9);
});

test("the kernels' table has the bound of each, of all of a kind, and says when runs are not replayed", () => {
  const bound = { milliseconds: 0.25, by: "memory" } as const;
  const kernels = [1, 2, 3].map((i) => ({ ...kernel(1e6 * i), layer: `layer${i}`, bound }));
  const one = { model: "resnet50", dtype: "float16", batch: 1, rows: [] } as const;
  const found = { kernels, copied: 4e9, most: 1, leastMilliseconds: 0.75, notReplayed: "" };
  const table = kernelsTable({ ...one, kernels: found });
  expect(table).toMatch(/│ layer3 +│ op made up +│ 1 +│ 3 +│ 3 +│ +│ memory +│ 0\.25 +│ 25 % +│/);
  expect(table).toMatch(/│ op made up +│ 3 +│ 3 +│ 6 +│ 2 +│ +│ memory +│ 0\.75 +│ 25 % +│/);
  expect(table).toMatch(/│ all +│ 3 +│ 3 +│ 6 +│/);
  expect(table).not.toContain("NOT REPLAYED");
  const eager = { ...found, notReplayed: "the capture failed" };
  expect(kernelsTable({ ...one, kernels: eager })).toContain(
    "NOT REPLAYED: runs are given kernel by kernel: the capture",
  );
});

test("what one image in a batch gets wrong is seen, in floats and in pixels", async () => {
  const reference = Float32Array.of(3, 4, 6, 8); // two images of two classes, which the batch of three repeats
  const asked: GpuTurn[] = [];
  const answering = (pixels: number[]) => ({
    ask: async <K extends keyof GpuAnswers>(turn: GpuTurn & { ask: K }) => {
      asked.push(turn);
      const right = "feed" in turn && turn.feed === "float32";
      return Float32Array.from(right ? [3, 4, 6, 8, 3, 4] : pixels) as GpuAnswers[K];
    },
  });
  expect(await differencesOf(answering([3, 4, 6, 8, 3, 4]), reference, 3)).toEqual([0, 0]);
  expect(asked).toMatchObject([{ feed: "float32" }, { feed: "uint8" }]);
  expect(await differencesOf(answering([3, 4, 6, 8, 3, 5]), reference, 3)).toEqual([0, 0.2]);
  expect((await differencesOf(answering([Number.NaN, 4, 6, 8, 3, 4]), reference, 3))[1]).toBe(Number.POSITIVE_INFINITY);
  await expect(differencesOf(answering([]), reference, 3)).rejects.toThrow(/expected logits of 2 classes, got 0/);
});

test("targets are compared with what was measured, and with nothing else", () => {
  const speed = (milliseconds: number, latency = milliseconds) => {
    return { latency, milliseconds, imagesPerSecond: 128e3 / milliseconds, rounds: [milliseconds] };
  };
  const one = (model: string, batch: number, ours: number, compiled?: number): Case => ({
    model,
    batch,
    dtype: "float16",
    rows: [
      { contender: "seresnet", resident: speed(ours) },
      ...(compiled === undefined ? [] : [{ contender: "torch compile" as const, resident: speed(compiled) }]),
    ],
    kernels: { kernels: [], copied: 1, most: 1, leastMilliseconds: ours / 2, notReplayed: "" },
  });
  const cases = [one("seresnet50", 128, 2, 3), one("resnet50", 128, 1.6), one("seresnet50", 1, 0.5, 1)];
  expect(targets(cases).map(({ got }) => got)).toEqual([50, 1.5, 0.5, 25]);
  expect(targets(cases.slice(1, 2))).toEqual([]);
  expect(rooflineShare(cases[0])).toBe(0.5);
});

const sim = usable("cuda-sim");
if (!sim) test("the whole benchmark on the host", (context) => context.skip("LEFT OUT: npm run test:sim runs it"));

describe.runIf(sim)("the whole benchmark on the host", () => {
  test("times training steps, after the losses agreed with PyTorch's where there is one", () => {
    const python = pythonWith(["torch"], "PyTorch's training steps beside ours");
    const peers = python ? ["--python", python] : ["--peers", "none"];
    const { status, stderr } = training(
      "--device",
      "cuda-sim",
      "--dtype",
      "float16",
      "--quick",
      "--results",
      folder,
      ...peers,
    );
    expect(status, stderr).toBe(0);
    const { results, failures } = JSON.parse(readFileSync(join(folder, "training-cuda-sim.json"), "utf8"));
    expect(failures).toEqual([]);
    expect(results.map(({ dtype }: { dtype: string }) => dtype)).toEqual(["float16"]);
    for (const { batch, rows } of results) {
      expect(rows).toHaveLength(python ? 2 : 1);
      for (const { milliseconds, imagesPerSecond } of rows)
        expect((imagesPerSecond * milliseconds) / 1000).toBeCloseTo(batch, 1);
    }
  }, 120_000);

  const quick = ["--device", "cuda-sim", "--dtype", "float16", "--batch", "2", "--rounds", "1", "--results", folder];
  const resultsOf = () => JSON.parse(readFileSync(join(folder, "cuda-sim.json"), "utf8"));

  test("verifies, times, and tells kernels, share of the roofline and memory", () => {
    const { status, stdout, stderr } = bench(...quick, "--peers", "none");
    expect(status, stderr).toBe(0);
    for (const head of ["images/s", "alone ms", "floats in", "pixels in", "roofline", "differs"])
      expect(stdout).toContain(head);
    expect(stdout).toMatch(/of \d+ kernels, caches flushed before each; a copy moves \d/);
    const { cases, flops, notRun, commit, device, versions } = resultsOf();
    expect(device.name).toBe("cuda-sim");
    expect(commit).not.toBe("");
    expect(versions.seresnet).toHaveProperty("builtBy");
    expect(notRun).toEqual([]);
    expect(flops.float16).toBeGreaterThan(0);
    expect(cases.map((one: Case) => one.model)).toEqual(["seresnet14_cifar", "resnet14_cifar"]);
    for (const { model, rows, kernels } of cases as Case[]) {
      expect(rows).toHaveLength(1);
      const [{ resident, float32, uint8, differs, peakBytes }] = rows;
      expect(differs).toBeGreaterThan(0); // float16 is not the reference
      expect(differs).toBeLessThan(5e-3);
      for (const speed of [resident, float32, uint8]) {
        expect(speed?.latency).toBeGreaterThan(0);
        expect(speed?.milliseconds).toBeGreaterThan(0);
        expect(speed?.imagesPerSecond).toBeCloseTo(2000 / (speed?.milliseconds ?? 0), 0);
        expect(speed?.rounds).toHaveLength(1);
      }
      expect(peakBytes).toBeGreaterThan(1e6); // the weights alone are 2 bytes a number and 177,010 of them, in pieces
      expect(kernels?.copied).toBeGreaterThan(0);
      expect(kernels?.leastMilliseconds).toBeGreaterThan(0);
      const counted = kernels?.kernels.reduce((sum, { flops }) => sum + flops, 0);
      const macs = summary(createModel(model, { numClasses: 10 }), [2, 3, 9, 8]).macs;
      // a linear squeeze needs fewer products than the layers it stands for
      expect(counted).toBeGreaterThan(1.9 * macs);
      expect(counted).toBeLessThanOrEqual(2 * macs);
      const bounds = kernels?.kernels.map(({ bound }) => bound?.milliseconds ?? 0) ?? [];
      expect(bounds.reduce((sum, bound) => sum + bound, 0)).toBeCloseTo(kernels?.leastMilliseconds ?? 0, 9);
      for (const { op, bytes, milliseconds } of kernels?.kernels ?? []) {
        expect(bytes, op).toBeGreaterThan(0);
        expect(milliseconds, op).toBeGreaterThanOrEqual(0);
      }
    }
  });

  const torch = pythonWith(["torch"], "PyTorch beside us in the benchmark");
  test.runIf(torch)("PyTorch's contenders give the same logits and take turns", () => {
    const { status, stderr } = bench(...quick, "--model", "seresnet14_cifar", "--python", torch as string);
    expect(status, stderr).toBe(0);
    const [{ rows }] = resultsOf().cases as Case[];
    expect(rows.map(({ contender, failed }) => failed ?? contender)).toEqual([
      "seresnet",
      "torch eager",
      "torch compile",
    ]);
    for (const { differs, resident } of rows) {
      expect(differs).toBeLessThan(5e-3);
      expect(resident?.milliseconds).toBeGreaterThan(0);
    }
  });

  test("runs the cases it is asked for, in order, with what the reference said elsewhere", () => {
    const logits = join(folder, "logits");
    const cases = "resnet14_cifar:float32:1,seresnet14_cifar:float16:2";
    const words = ["--device", "cuda-sim", "--cases", cases, "--rounds", "1", "--peers", "none"];
    const run = () => bench(...words, "--results", folder, "--logits", logits);
    const first = run();
    expect(first.status, first.stderr).toBe(0);
    expect(first.stderr).toContain("the reference's logits of resnet14_cifar were not there");
    const second = run();
    expect(second.stderr).toBe("bench: resnet14_cifar float32 batch 1\nbench: seresnet14_cifar float16 batch 2\n");
    expect((resultsOf().cases as Case[]).map(({ model, dtype, batch }) => `${model}:${dtype}:${batch}`).join()).toBe(
      cases,
    );
    // and what was kept is what ours are judged by
    const file = join(logits, "resnet14_cifar.logits.json");
    const kept = JSON.parse(readFileSync(file, "utf8"));
    writeFileSync(file, JSON.stringify({ ...kept, logits: kept.logits.map((logit: number) => -logit) }));
    const third = run();
    expect(third.status).toBe(1);
    expect(third.stderr).toMatch(/resnet14_cifar float32 batch 1: wrong: it differs from the reference by 2 and 2/);
    writeFileSync(file, JSON.stringify({ ...kept, digest: "of other weights" }));
    expect(run().stderr).toContain("the reference's logits of resnet14_cifar were not there, or of other weights");
  });

  test("whoever does not answer in time is left out, and told", () => {
    const slow = join(folder, "python");
    writeFileSync(slow, "#!/bin/sh\nsleep 60\n", { mode: 0o755 });
    const { status, stdout, stderr } = bench(
      ...quick,
      "--model",
      "resnet14_cifar",
      "--python",
      slow,
      "--patience",
      "3",
    );
    expect(status, stderr).toBe(0);
    expect(stdout).toMatch(/LEFT OUT torch eager: torch eager: no answer in 3 s/);
  });

  test("a Python that is not there is left out, and told", () => {
    const { status, stdout, stderr } = bench(...quick, "--model", "resnet14_cifar", "--python", join(folder, "none"));
    expect(status, stderr).toBe(0);
    expect(stdout).toMatch(/LEFT OUT torch eager: torch eager: it could not be started: spawn .* ENOENT/);
    expect(Object.keys(resultsOf().leftOut)).toEqual(["torch eager", "torch compile"]);
  });

  test("a network's kernels compute the operations that summary counts", async () => {
    const model = createModel("resnet14_cifar");
    const shape = [2, 3, 9, 8];
    for (const dtype of ["float32", "float16"] as const) {
      const compiled = await compile(model, { device: "cuda-sim", dtype });
      const { plan } = await compiled.prepare(shape);
      const request = { inputs: [await image("flops", shape).data()], variables: [] };
      const { kernels } = await (plan as NativePlan).time(request, { rounds: 1, scratch: 256 });
      // padding the colours to four channels is no work that was asked for
      expect(kernels.reduce((sum, { flops }) => sum + flops, 0)).toBeCloseTo(2 * summary(model, shape).macs, 3);
      await compiled.dispose();
    }
  });

  const images = [2, 8, 6, 4]; // 384 numbers
  const vector = [8];
  const act = { eps: 1e-5, relu: true, residual: false };
  const product = 2 * 3 * 5 * 7;
  test.each<[string, Plan, number, number]>([
    ["relu", single("relu", {}, [[3, 37]], [[3, 37]]), 2 * 111, 0],
    ["add", single("add", {}, [[3, 37], [37]], [[3, 37]]), 111 + 37 + 111, 0],
    ["slice", single("slice", { starts: [1, 2], steps: [2, 1] }, [[4, 6]], [[2, 3]]), 2 * 6, 0],
    ["pad", single("pad", { before: [1, 0] }, [[2, 3]], [[4, 5]]), 6 + 20 + 6, 0],
    ["mean", single("mean", { dims: [1], keepDims: false }, [[4, 9]], [[4]]), 36 + 4, 0],
    ["linear", single("linear", {}, [[3, 5], [7, 5], [7]], [[3, 7]]), 15 + 35 + 7 + 21, product],
    // the right matrices are turned: written and read once more, each on a multiple of eight numbers
    [
      "matmul",
      single(
        "matmul",
        {},
        [
          [2, 3, 5],
          [2, 5, 7],
        ],
        [[2, 3, 7]],
      ),
      30 + 70 + 2 * 80 + 42,
      2 * product,
    ],
    ["conv2d", single("conv2d", conv(), [images, [4, 8, 1, 1]], [[2, 4, 6, 4]]), 384 + 32 + 192, 2 * 48 * 32],
    // a quarter of the pixels is read
    ["conv2d", single("conv2d", conv(2), [images, [4, 8, 1, 1]], [[2, 4, 3, 2]]), 96 + 32 + 48, 2 * 12 * 32],
    // for the statistics, then to be normalised
    [
      "batch_norm_train",
      single("batch_norm_train", act, [images, vector, vector], [images, vector, vector]),
      3 * 384 + 4 * 8,
      0,
    ],
    // x, dy and what the ReLU made of them twice
    [
      "batch_norm_gradient",
      single(
        "batch_norm_gradient",
        { ...act, training: true },
        [images, vector, vector, images, vector, images],
        [images, vector, vector],
      ),
      3 * 2 * 384 + 384 + 5 * 8,
      0,
    ],
    ["gate", single("gate", { residual: false, relu: true }, [images, [2, 8, 1, 1]], [images]), 2 * 384 + 16, 0],
  ])("%s says what it moves and computes", async (op, plan, elements, flops) => {
    const loaded = (await executorOf("cuda-sim").load(plan, [])) as NativePlan;
    const request = { inputs: plan.inputs.map((slot) => contents(plan.slots[slot])), variables: [] };
    const { kernels } = await loaded.time(request, { rounds: 1, scratch: 256 });
    const own = kernels.filter((kernel) => kernel.op === op);
    expect(own).toHaveLength(1);
    expect(own[0].bytes).toBe(4 * elements);
    expect(own[0].flops).toBe(flops);
    await loaded.dispose();
  });

  test("times as often as it is told", async () => {
    const compiled = await compile(createModel("resnet14_cifar"), { device: "cuda-sim" });
    const x = await image("time", [1, 3, 8, 8]).data();
    const { plan } = await compiled.prepare([1, 3, 8, 8]);
    if (!(plan instanceof NativePlan)) throw new Error("expected a plan of the addon's");
    const request = { inputs: [x], variables: [] };
    const timing = await plan.time(request, { rounds: 2, calls: 3 });
    expect(timing.latencies).toHaveLength(2);
    expect(timing.milliseconds).toHaveLength(2);
    expect(timing).toMatchObject({ kernels: [], copied: 0 });
    await expect(plan.time(request, { rounds: 0 })).rejects.toThrow(/expected rounds and calls to be at least 1/);
    await expect(plan.time(request, { scratch: -1 })).rejects.toThrow(/scratch/);
    await compiled.dispose();
  });
});
