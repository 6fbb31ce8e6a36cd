import { createModel } from "seresnet";
import { describe, expect, test } from "vitest";
import type { LoadedPlan } from "#lib/devices/executor.js";
import { nativeVersions } from "#lib/devices/native/addon.js";
import { cpuExecutor } from "#lib/devices/native/cpu.js";
import { referenceExecutor } from "#lib/devices/reference/executor.js";
import type { HostArray } from "#lib/dtype.js";
import { ArgumentError, DeviceError, DisposedError, DtypeError, ShapeError } from "#lib/errors.js";
import { fold } from "#lib/graph/passes/fold.js";
import { fuse } from "#lib/graph/passes/fuse.js";
import { topological, type Value } from "#lib/graph/value.js";
import { inIsolation } from "#lib/lazy/recording.js";
import type { Version } from "#lib/lazy/variable.js";
import { lower } from "#lib/plan/lower.js";
import type { Plan } from "#lib/plan/plan.js";
import { sizeOf } from "#lib/shape.js";
import { relativeError } from "./support/compare.js";
import { contents, conv, kernelsOf, type Line, planOf, runPlan, single, withConstants } from "./support/plans.js";
import { fill, image } from "./support/weights.js";

const built = nativeVersions()?.onednn != null;

if (!built)
  test("without oneDNN the executor says so", () => {
    expect(() => cpuExecutor()).toThrow(DeviceError);
    console.warn("cpu.test: this build has no oneDNN; the device cpu is not tested");
  });

/** A network's eval plan with its weights as constants, and their contents. */
function networkPlan(name: string, shape: number[]): { plan: Plan; constants: Float32Array[] } {
  const model = fill(createModel(name).eval(), name);
  const x = image(name, shape);
  const y = inIsolation(() => model.forward(x));
  const [root] = fuse([y.value]);
  const leaves = new Set<Value>();
  for (const node of topological([root], (value) => value.isLeaf))
    for (const input of node.inputs) if (input.isLeaf && input !== x.value) leaves.add(input);
  const plan = lower([x.value, ...leaves], (leaf) => (leaf === x.value ? "inputs" : "constants"), [root], []);
  return { plan, constants: plan.constants.map((slot) => contents(plan.slots[slot]) as Float32Array) };
}

describe.runIf(built)("the CPU executor", () => {
  const ones = (length = 4) => new Float32Array(length).fill(1);
  const addOne = withConstants(single("add", {}, [[4], []], [[4]]));
  const slow = (repeats: number) =>
    planOf(
      [
        [1, 64, 56, 56],
        [64, 64, 3, 3],
      ],
      Array.from({ length: repeats }, (_, i) => ({
        op: "conv2d",
        attributes: conv(1, 1),
        from: [i === 0 ? 0 : i + 1, 1],
        to: [[1, 64, 56, 56]],
      })),
    );
  const slowInputs = [new Float32Array(64 * 3136), new Float32Array(64 * 64 * 9)];

  test("no convolution of the zoo is left to a slow implementation", async () => {
    const networks = {
      "1,3,224,224": ["resnet18", "resnet50", "seresnet18", "seresnet50", "seresnext50_32x4d", "legacy_seresnet50"],
      "1,3,32,32": ["seresnet14_cifar", "plain20_cifar"],
    };
    const layers = new Map<string, Line & { shapes: (readonly number[])[] }>();
    for (const [shape, names] of Object.entries(networks))
      for (const name of names) {
        const model = createModel(name).eval();
        const y = inIsolation(() => model.forward(image(name, shape.split(",").map(Number))));
        for (const { op, attributes, inputs, outputs } of topological(fuse(fold([y.value])), (value) => value.isLeaf)) {
          if (!op.includes("conv2d")) continue;
          const layer = {
            op,
            attributes,
            from: [],
            to: [outputs[0].shape],
            shapes: inputs.map((value) => value.shape),
          };
          layers.set(JSON.stringify(layer), layer);
        }
      }
    const inputs: (readonly number[])[] = [];
    const lines = [...layers.values()].map(({ shapes, ...line }) => {
      const from = shapes.map((shape) => inputs.push(shape) - 1);
      return { ...line, from };
    });
    const plan = planOf(inputs, lines);
    const images = new Set(lines.map(({ from }) => from[0]));
    const constants = plan.inputs.filter((slot) => !images.has(slot));
    const zeros = constants.map((slot) => new Float32Array(sizeOf(plan.slots[slot].shape)));
    const loaded = await cpuExecutor().load({ ...plan, inputs: [...images], constants }, zeros);
    const kernels = kernelsOf(loaded);
    const convolutions = kernels.filter((kernel) => kernel.includes("conv2d") && !kernel.includes("linear squeeze"));
    expect(convolutions).toHaveLength(layers.size);
    expect(convolutions.filter((kernel) => /ref|gemm/.test(kernel))).toEqual([]);
    await loaded.dispose();
  });

  test("ResNet-50 changes the order of its image once, and of nothing else", async () => {
    const { plan, constants } = networkPlan("resnet50", [1, 3, 64, 64]);
    const loaded = await cpuExecutor().load(plan, constants, { convolution: "direct" });
    const kernels = kernelsOf(loaded);
    expect(kernels.filter((kernel) => kernel.startsWith("to n"))).toHaveLength(1);
    await loaded.dispose();
  });

  test("what depends on constants alone is computed at load, and held once for all plans that name it alike", async () => {
    const shapes = [[1, 8, 9, 9], [8, 8, 3, 3], [8], [8], [8], [8]];
    const plan = withConstants(
      planOf(shapes, [
        {
          op: "fold_batch_norm",
          attributes: { eps: 1e-5, bias: false, affine: true },
          from: [1, 2, 3, 4, 5],
          to: [shapes[1], [8]],
        },
        { op: "conv2d", attributes: conv(1, 1), from: [0, 6, 7], to: [[1, 8, 9, 9]] },
      ]),
    );
    const input = contents(plan.slots[0]);
    const constants = plan.constants.map((slot) => contents(plan.slots[slot]).map(Math.abs as never));
    const zeros = constants.map((array) => array.map(() => 0 as never));
    const names = ["w", "mean", "variance", "gamma", "beta"].map((name) => `sharing test ${name}`);
    const run = async (loaded: LoadedPlan) => (await loaded.run({ inputs: [input], variables: [] })).outputs[0];
    const first = await cpuExecutor().load(plan, constants, { names });
    const kernels = (first as unknown as { kernels(): string[] }).kernels();
    expect(kernels.filter((kernel) => kernel.startsWith("fold"))).toEqual([]);
    const want = await runPlan(referenceExecutor(), plan, [input, ...constants]);
    expect(relativeError(await run(first), want[0])).toBeLessThan(1e-5);
    const second = await cpuExecutor().load(plan, zeros, { names }); // the first one's weights are used, so zeros do no harm
    expect(await run(second)).toEqual(await run(first));
    await first.dispose();
    expect(relativeError(await run(second), want[0])).toBeLessThan(1e-5);
    await second.dispose();
    const third = await cpuExecutor().load(plan, zeros, { names }); // nobody holds them any more
    expect(await run(third)).toEqual(input.map(() => 0 as never).slice(0, 8 * 81));
    await third.dispose();
  });

  test("variables come from buffers, written slots become new ones, and old ones stay as they were", async () => {
    const base = single("add", {}, [[2], [2]], [[2]]);
    const plan = await cpuExecutor().load({ ...base, inputs: [0], variables: [1], written: [2] }, []);
    const start = await cpuExecutor().upload(Float32Array.of(10, 20), "float32");
    const once = await plan.run({ inputs: [ones(2)], variables: [start] });
    const twice = await plan.run({ inputs: [ones(2)], variables: once.written });
    expect(await start.read()).toEqual(Float32Array.of(10, 20));
    expect(await once.written[0].read()).toEqual(Float32Array.of(11, 21));
    expect(await twice.written[0].read()).toEqual(Float32Array.of(12, 22));
    expect(twice.outputs).toEqual([Float32Array.of(12, 22)]);
    await plan.dispose();
  });

  test("an input, a constant, a variable and their reshapes may be outputs and written", async () => {
    const shapes = [[4], [4], [4], [2, 2], [2, 2], [2, 2]];
    const steps = [0, 1, 2].map((slot) => ({ op: "reshape", attributes: {}, inputs: [slot], outputs: [slot + 3] }));
    const all = [0, 1, 2, 3, 4, 5];
    const slots = shapes.map((shape) => ({ shape, dtype: "float32" as const }));
    const plan = await cpuExecutor().load(
      { slots, inputs: [0], constants: [1], variables: [2], outputs: all, written: all, steps },
      [Float32Array.of(5, 6, 7, 8)],
    );
    const variable = await cpuExecutor().upload(Float32Array.of(9, 10, 11, 12), "float32");
    const { outputs, written } = await plan.run({ inputs: [Float32Array.of(1, 2, 3, 4)], variables: [variable] });
    const want = [0, 1, 2, 0, 1, 2].map((i) => Float32Array.of(4 * i + 1, 4 * i + 2, 4 * i + 3, 4 * i + 4));
    expect(outputs).toEqual(want);
    expect(await Promise.all(written.map((buffer) => buffer.read()))).toEqual(want);
    await plan.dispose();
  });

  test("what JavaScript passes in may be changed at once", async () => {
    const plan = await cpuExecutor().load(slow(4), []);
    const inputs = slowInputs.map((array) => array.slice().fill(0.01));
    const wanted = plan.run({ inputs, variables: [] });
    const later = plan.run({ inputs, variables: [] });
    inputs[0].fill(7);
    structuredClone(inputs[1], { transfer: [inputs[1].buffer] });
    expect((await later).outputs).toEqual((await wanted).outputs);
    await plan.dispose();
  });

  test("two plans interleaved give what each gives alone, and any number of threads the same", async () => {
    const plans = [networkPlan("seresnet14_cifar", [2, 3, 32, 32]), networkPlan("resnet14_cifar", [1, 3, 24, 40])];
    const loaded = await Promise.all(plans.map(({ plan, constants }) => cpuExecutor().load(plan, constants)));
    const inputs = plans.map(({ plan }) => [contents(plan.slots[plan.inputs[0]])]);
    const alone: HostArray[][] = [];
    for (const [i, plan] of loaded.entries())
      alone.push((await plan.run({ inputs: inputs[i], variables: [] })).outputs);
    const runs = [0, 1, 0, 1, 1, 0].map(async (i) => {
      const { outputs } = await loaded[i].run({ inputs: inputs[i], variables: [] });
      expect(outputs).toEqual(alone[i]);
    });
    await Promise.all([...runs, ...loaded.map((plan) => plan.dispose())]);
  });

  test("a bad target rejects with ArgumentError, and the executor stays usable", async () => {
    const attributes = { labelSmoothing: 0, reduction: "mean" };
    const plan = await cpuExecutor().load(
      single("cross_entropy", attributes, [[2, 5], { shape: [2], dtype: "int32" }], [[]]),
      [],
    );
    const run = (target: number) =>
      plan.run({ inputs: [new Float32Array(10), Int32Array.of(1, target)], variables: [] });
    await expect(run(5)).rejects.toThrow(
      new ArgumentError("crossEntropy: expected targets from 0 to 4, got 5 at position 1"),
    );
    await expect(run(-1)).rejects.toBeInstanceOf(ArgumentError);
    expect((await run(4)).outputs[0][0]).toBeCloseTo(Math.log(5), 6);
    await plan.dispose();
  });

  test("what does not fit the plan is refused", async () => {
    const cpu = cpuExecutor();
    const unknown = single("frobnicate", {}, [[4]], [[4]]);
    await expect(cpu.load(unknown, [])).rejects.toThrow("cpu: expected ops it has a kernel for, got frobnicate");
    await expect(cpu.load(unknown, [])).rejects.toBeInstanceOf(DeviceError);
    await expect(cpu.load(addOne, [])).rejects.toThrow(ArgumentError);
    await expect(cpu.load(addOne, [ones(2)])).rejects.toThrow(ShapeError);
    for (const threads of [0, -1, 1.5, 100_000, 1000, Number.NaN])
      await expect(cpu.load(addOne, [ones(1)], { threads }), String(threads)).rejects.toThrow(ArgumentError);
    await expect(cpu.load(addOne, [ones(1)], { compute: "float16" })).rejects.toThrow(DtypeError);
    const plan = await cpu.load(addOne, [ones(1)]);
    await expect(plan.run({ inputs: [], variables: [] })).rejects.toThrow(ArgumentError);
    await expect(plan.run({ inputs: [ones(5)], variables: [] })).rejects.toThrow(ShapeError);
    await expect(plan.run({ inputs: [new Int32Array(4)], variables: [] })).rejects.toThrow(DtypeError);
    expect((await plan.run({ inputs: [ones()], variables: [] })).outputs).toEqual([new Float32Array(4).fill(2)]);
    await plan.dispose();
    await expect(plan.run({ inputs: [ones()], variables: [] })).rejects.toThrow(DisposedError);
    await plan.dispose();
    const foreign = await referenceExecutor().upload(ones(), "float32");
    const withVariable = await cpu.load({ ...single("relu", {}, [[4]], [[4]]), inputs: [], variables: [0] }, []);
    await expect(withVariable.run({ inputs: [], variables: [foreign] })).rejects.toThrow(DeviceError);
    const short = await cpu.upload(ones(3), "float32");
    await expect(withVariable.run({ inputs: [], variables: [short] })).rejects.toThrow(ShapeError);
    await withVariable.dispose();
  });

  test("steps whose shapes do not fit each other are refused at load", async () => {
    const wrong = [
      single(
        "conv2d",
        conv(1, 1),
        [
          [1, 3, 8, 8],
          [4, 3, 3, 3],
        ],
        [[1, 4, 80, 80]],
      ),
      single(
        "conv2d",
        conv(1, 1),
        [
          [1, 3, 8, 8],
          [4, 5, 3, 3],
        ],
        [[1, 4, 8, 8]],
      ),
      single("add", {}, [[4], [3]], [[4]]),
      single("add", {}, [[4], [4]], [[40]]),
      single(
        "linear",
        {},
        [
          [2, 3],
          [4, 5],
        ],
        [[2, 4]],
      ),
      single(
        "matmul",
        {},
        [
          [2, 3],
          [4, 5],
        ],
        [[2, 5]],
      ),
      single("mean", { dims: [7], keepDims: false }, [[2, 3]], [[2]]),
      single("mean", { dims: [1], keepDims: false }, [[2, 3]], [[200]]),
      single("slice", { starts: [9], steps: [1] }, [[4]], [[4]]),
      single("pad", { before: [9], after: [0] }, [[4]], [[4]]),
      single("reshape", {}, [[4]], [[400]]),
      single("relu", {}, [[4]], [[400]]),
      single("cast", {}, [[4]], [[400]]),
      single("softmax", { dim: 3 }, [[4]], [[4]]),
      single("batch_norm", { eps: 0 }, [[4, 4], [3], [4]], [[4, 4]]),
      single(
        "squeeze_excite",
        { residual: false, relu: false },
        [[1, 8, 2, 2], [4, 8], [4], [8, 4], [9]],
        [[1, 8, 2, 2]],
      ),
      single(
        "cross_entropy",
        { labelSmoothing: 0, reduction: "none" },
        [[3, 9], { shape: [3], dtype: "int32" }],
        [[1]],
      ),
    ];
    for (const plan of wrong)
      await expect(cpuExecutor().load(plan, []), JSON.stringify(plan.steps[0])).rejects.toBeInstanceOf(DeviceError);
  });

  test("more memory than there is rejects with DeviceError, and the process lives on", async () => {
    const huge = single("relu", {}, [[1]], [[2 ** 20]]);
    for (const extent of [2 ** 38, 2 ** 36]) {
      const plan = single("add", {}, [[1], [1]], [[extent]]);
      const more = { ...plan, steps: [{ ...plan.steps[0] }], written: [], outputs: [] };
      await expect(cpuExecutor().load(more, [])).rejects.toThrow(/bytes could not be allocated/);
    }
    await expect(cpuExecutor().load(huge, [])).rejects.toBeInstanceOf(DeviceError);
    expect((await runPlan(cpuExecutor(), addOne, [ones(), ones(1)]))[0]).toEqual(new Float32Array(4).fill(2));
  });

  test("runs are first in, first out, over all plans; a queued run can be dropped, one under way cannot", async () => {
    const long = await cpuExecutor().load(slow(40), []);
    const quick = await cpuExecutor().load(addOne, [ones(1)]);
    const order: string[] = [];
    const controller = new AbortController();
    const reason = new Error("no longer wanted");
    const first = long.run({ inputs: slowInputs, variables: [] }).then(() => order.push("first"));
    const dropped = quick.run({ inputs: [ones()], variables: [], signal: controller.signal });
    const last = quick.run({ inputs: [ones()], variables: [] }).then(() => order.push("last"));
    controller.abort(reason);
    await expect(dropped).rejects.toBe(reason);
    expect(order).toEqual([]);
    await Promise.all([first, last]);
    expect(order).toEqual(["first", "last"]);
    await expect(quick.run({ inputs: [ones()], variables: [], signal: AbortSignal.abort(reason) })).rejects.toBe(
      reason,
    );
    await Promise.all([long.dispose(), quick.dispose()]);
  });

  test("dispose waits for the runs before it", async () => {
    const plan = await cpuExecutor().load(slow(4), []);
    let ended = 0;
    const runs = [1, 2].map(() => plan.run({ inputs: slowInputs, variables: [] }).then(() => ended++));
    await plan.dispose();
    expect(ended).toBe(2);
    await Promise.all(runs);
  });

  test("whole networks equal the reference", async () => {
    for (const [name, shape] of [
      ["seresnet14_cifar", [3, 3, 32, 32]],
      ["resnet18", [1, 3, 64, 64]],
      ["seresnet50", [1, 3, 64, 64]],
    ] as const) {
      const model = fill(createModel(name).eval(), name);
      const x = image(name, [...shape]);
      const y = inIsolation(() => model.forward(x));
      const leaves = [...topological([y.value], (value) => value.isLeaf)].flatMap(({ inputs }) => inputs);
      const own = [...new Set(leaves.filter((leaf) => leaf.isLeaf && leaf !== x.value))];
      const data = await Promise.all(own.map(async (leaf) => leaf.kept ?? (leaf.version as Version).host()));
      const input = await x.data();
      const results = [];
      for (const [executor, roots] of [
        [referenceExecutor(), [y.value]],
        [cpuExecutor(), fuse([y.value])],
      ] as const) {
        const plan = lower([x.value, ...own], (leaf) => (leaf === x.value ? "inputs" : "constants"), roots, []);
        const loaded = await executor.load(plan, data);
        results.push((await loaded.run({ inputs: [input], variables: [] })).outputs[0]);
        await loaded.dispose();
      }
      expect(results[1]).toHaveLength(sizeOf(y.shape));
      expect(relativeError(results[1], results[0])).toBeLessThan(1e-4);
    }
  });
});
