import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { compile, createModel, loadWeights, tensor } from "seresnet";
import { describe, expect, test } from "vitest";
import { loadIdxDataset } from "#lib/data/idx.js";
import { nativeVersions } from "#lib/devices/native/addon.js";
import { cpuExecutor } from "#lib/devices/native/cpu.js";
import { referenceExecutor } from "#lib/devices/reference/executor.js";
import { DtypeError } from "#lib/errors.js";
import type { Attributes } from "#lib/graph/attributes.js";
import type { Plan } from "#lib/plan/plan.js";
import { relativeError } from "./support/compare.js";
import { contents, conv, kernelsOf, type Line, planOf, runPlan, single, withConstants } from "./support/plans.js";
import { type Digest, digestError, fill, image } from "./support/weights.js";

const built = nativeVersions()?.onednn != null;
const compute = "bfloat16";

/** To the nearest number of 8 significant bits, ties to even. */
function rounded(values: ArrayLike<number>): Float32Array {
  const result = Float32Array.from(values);
  const words = new Uint32Array(result.buffer);
  for (const [i, word] of words.entries())
    if (!Number.isNaN(result[i])) words[i] = (word + 0x7fff + ((word >>> 16) & 1)) & 0xffff0000;
  return result;
}

const run = (plan: Plan, data: Float32Array[]) => runPlan(cpuExecutor(), plan, data, { compute });

async function kernelsIn(plan: Plan): Promise<string[]> {
  const data = plan.constants.map((slot) => contents(plan.slots[slot]));
  const loaded = await cpuExecutor().load(plan, data, { compute });
  try {
    return kernelsOf(loaded);
  } finally {
    await loaded.dispose();
  }
}

const window = (kernel: number, stride: number, padding: number): Attributes => ({
  kernelSize: [kernel, kernel],
  stride: [stride, stride],
  padding: [padding, padding],
  dilation: [1, 1],
  ceilMode: false,
});

describe.runIf(built)("bfloat16 on any CPU: our own kernels", () => {
  test("numbers are rounded to the nearest, ties to even", async () => {
    const ties = [0x3f808000, 0x3f818000, 0x3f808001, 0x3f807fff, 0x00000001, 0x80008000, 0x7f7fffff, 0x7f800000];
    const bits = Uint32Array.from([...ties, ...ties.map((word) => (word ^ 0x80000000) >>> 0), 0x7fc00000, 0x7f800001]);
    const x = new Float32Array(bits.buffer);
    // a pool of single pixels moves them only; more channels than one, and pixels, so that the layouts differ
    const shape = [1, 2, 3, 3];
    const [y] = (await run(single("max_pool2d", window(1, 1, 0), [shape], [shape]), [x])) as Float32Array[];
    expect(y).toEqual(rounded(x));
  });

  test("the largest of a window, from plain and from rounded images", async () => {
    const plan = planOf(
      [[2, 20, 9, 11]],
      [
        { op: "max_pool2d", attributes: window(3, 2, 1), from: [0], to: [[2, 20, 5, 6]] },
        { op: "max_pool2d", attributes: window(3, 1, 1), from: [1], to: [[2, 20, 5, 6]] },
      ],
    );
    const x = rounded(contents(plan.slots[0]) as Float32Array);
    expect(await run(plan, [x])).toEqual(await runPlan(referenceExecutor(), plan, [x]));
    expect((await kernelsIn(plan)).filter((kernel) => kernel === "max_pool2d bfloat16")).toHaveLength(2);
  });

  for (const [residual, relu] of [
    [false, false],
    [true, true],
    [true, false],
  ])
    test(`squeeze-excite${residual ? " + residual" : ""}${relu ? " + ReLU" : ""}`, async () => {
      const x = [2, 70, 5, 7];
      const inputs = [x, [6, 70], [6], [70, 6], [70], ...(residual ? [x] : [])];
      const from = inputs.map((_, i) => i);
      const plan = planOf(inputs, [{ op: "squeeze_excite", attributes: { residual, relu }, from, to: [x] }]);
      const data = inputs.map((shape) => contents({ shape, dtype: "float32" }) as Float32Array);
      for (const i of [0, 5]) if (i < data.length) data[i] = rounded(data[i]);
      const [exact] = await runPlan(cpuExecutor(), plan, data);
      const [got] = await run(withConstants(plan), data);
      expect(relativeError(got, rounded(exact as Float32Array))).toBeLessThan(1e-4); // a tie may fall the other way
      expect(relativeError(got, exact)).toBeGreaterThan(1e-4); // or nothing was rounded
      expect(await kernelsIn(plan)).toContain("squeeze_excite pass bfloat16");
    });

  test("the mean of rounded images, and what only float32 has kernels for", async () => {
    const x = [2, 70, 6, 6];
    const y = [2, 70, 3, 3];
    const lines: Line[] = [
      { op: "max_pool2d", attributes: window(2, 2, 0), from: [0], to: [y] },
      { op: "mean", attributes: { dims: [2, 3] }, from: [1], to: [[2, 70]] },
      { op: "add", from: [1, 1], to: [y] },
      { op: "relu", from: [3], to: [y] },
      { op: "avg_pool2d", attributes: { ...window(3, 1, 1), countIncludePad: true }, from: [4], to: [y] },
    ];
    const plan = planOf([x], lines, [2, 5, 1]);
    const data = [rounded(contents(plan.slots[0]) as Float32Array)];
    const wanted = await runPlan(referenceExecutor(), plan, data);
    const got = await run(plan, data);
    for (const [i, output] of got.entries()) expect(relativeError(output, wanted[i])).toBeLessThan(1e-6);
    expect(await kernelsIn(plan)).toContain("mean pixels bfloat16");
  });

  for (const rows of [1, 2, 5])
    test(`a linear layer of ${rows} rows`, async () => {
      const plan = withConstants(single("linear", {}, [[rows, 100], [13, 100], [13]], [[rows, 13]]));
      const data = [...plan.inputs, ...plan.constants].map((slot) => contents(plan.slots[slot]) as Float32Array);
      data[1] = rounded(data[1]);
      const [wanted] = await runPlan(referenceExecutor(), plan, data);
      expect(relativeError((await run(plan, data))[0], wanted)).toBeLessThan(1e-6);
      expect(await kernelsIn(plan)).toEqual([rows > 2 ? "linear" : "linear bfloat16"]);
    });
});

describe.runIf(built)("bfloat16 on any CPU: convolutions and networks", () => {
  test("compile takes it on the cpu device; float16 it refuses, and the reference all but float32", async () => {
    const model = createModel("seresnet14_cifar");
    await expect(compile(model, { device: "cpu", dtype: "float16" })).rejects.toThrow(DtypeError);
    await expect(compile(model, { device: "reference", dtype: compute })).rejects.toThrow(DtypeError);
    await (await compile(model, { device: "cpu", dtype: compute })).dispose();
  });

  const layers: { name: string; x: number[]; w: number[]; attributes: ReturnType<typeof conv> }[] = [
    { name: "3x3", x: [1, 32, 10, 9], w: [48, 32, 3, 3], attributes: conv(1, 1) },
    { name: "1x1 of stride 2", x: [2, 64, 9, 7], w: [32, 64, 1, 1], attributes: conv(2) },
    { name: "stem", x: [1, 3, 20, 18], w: [32, 3, 7, 7], attributes: conv(2, 3) },
    { name: "one channel", x: [2, 1, 8, 8], w: [16, 1, 3, 3], attributes: conv(1, 1) },
    { name: "odd channels", x: [1, 5, 9, 7], w: [7, 5, 3, 3], attributes: conv(1, 1) },
    { name: "grouped", x: [1, 32, 8, 8], w: [32, 4, 3, 3], attributes: conv(1, 1, 1, 8) },
    { name: "one pixel", x: [2, 32, 1, 1], w: [8, 32, 1, 1], attributes: conv() },
  ];
  for (const { name, x, w, attributes } of layers)
    test(`convolution, residual and ReLU: ${name}`, async () => {
      const extent = (i: number) =>
        Math.floor((x[i] + 2 * attributes.padding[i - 2] - w[i]) / attributes.stride[i - 2]) + 1;
      const y = [x[0], w[0], extent(2), extent(3)];
      const shapes = [x, w, [w[0]], y];
      const fused = { ...attributes, bias: true, residual: true, relu: true };
      const ours = planOf(shapes, [{ op: "fused_conv2d", attributes: fused, from: [0, 1, 2, 3], to: [y] }]);
      const theirs = planOf(shapes, [
        { op: "conv2d", attributes, from: [0, 1, 2], to: [y] },
        { op: "add", from: [4, 3], to: [y] },
        { op: "relu", from: [5], to: [y] },
      ]);
      const exact = shapes.map((shape) => contents({ shape, dtype: "float32" }) as Float32Array);
      const data = exact.map(rounded);
      const [wanted] = await runPlan(referenceExecutor(), theirs, data);
      const weightsLeft = [data[0], exact[1], data[2], data[3]]; // those the device has to round itself
      for (const [plan, given] of [
        [ours, data],
        [withConstants(ours), data],
        [withConstants(ours), weightsLeft],
      ] as const) {
        const [got] = (await run(plan, given)) as Float32Array[];
        expect(relativeError(got, rounded(wanted as Float32Array))).toBeLessThan(4e-3);
        expect(got).toEqual(rounded(got));
      }
      expect((await kernelsIn(withConstants(ours))).filter((kernel) => /conv2d (ref|.*gemm)/.test(kernel))).toEqual([]);
    });

  test("the gate and the convolution before it", async () => {
    const x = [2, 32, 6, 5];
    const y = [2, 48, 6, 5];
    const shapes = [x, [48, 32, 1, 1], [48], [6, 48], [6], [48, 6], [48], y];
    const attributes = { ...conv(), bias: true, residual: true, relu: true };
    const plan = withConstants(
      planOf(shapes, [{ op: "gated_conv2d", attributes, from: shapes.map((_, i) => i), to: [y] }]),
    );
    const data = shapes.map((shape) => rounded(contents({ shape, dtype: "float32" }) as Float32Array));
    const [exact] = await runPlan(cpuExecutor(), plan, data);
    const [got] = (await run(plan, data)) as Float32Array[];
    expect(relativeError(got, exact)).toBeLessThan(1e-2);
    expect(got).toEqual(rounded(got));
    expect(await kernelsIn(plan)).toContain("squeeze_excite pass bfloat16");
  });
});

/** What PyTorch computed in float32, by test/fixtures: digests of logits, and predictions. */
const read = (path: string) => JSON.parse(readFileSync(join(__dirname, "fixtures", path), "utf8"));

describe.runIf(built)("bfloat16 against PyTorch", () => {
  const zoo: { model: string; shape: number[]; options: object; logits: Digest }[] = read("expected.json").zoo;
  const golden: Record<string, { shape?: number[]; head?: number[] }> = read("zoo_keys.json");

  test.each(zoo.map((entry) => [entry.model, entry] as const))("%s: logits within 2e-2", async (name, want) => {
    const model = fill(createModel(name, want.options).eval(), `atlas/${name}`);
    await using compiled = await compile(model, { device: "cpu", dtype: compute });
    const y = await compiled.run(image(`atlas/${name}/x`, want.shape));
    expect(y.dtype).toBe("float32");
    const error = digestError((await y.data()) as Float32Array, want.logits);
    expect(error).toBeLessThan(2e-2);
    expect(error).toBeGreaterThan(1e-4); // or it was float32 after all
  });

  const withLogits = Object.entries(golden).filter(([, { head }]) => head);
  test.each(withLogits)("%s: first logits within 2e-2", async (name, { shape = [], head = [] }) => {
    const model = fill(createModel(name).eval(), `atlas/${name}`);
    await using compiled = await compile(model, { device: "cpu", dtype: compute });
    const logits = (await (await compiled.run(image(`atlas/${name}/x`, shape))).data()) as Float32Array;
    expect(relativeError(logits.subarray(0, head.length), head)).toBeLessThan(2e-2);
  });

  test("PyTorch's small network sees the same garments", async ({ skip }) => {
    const dataset = "/usr/share/datasets/fashion-mnist";
    if (!existsSync(dataset)) {
      console.warn(`cpu_bfloat16.test: LEFT OUT: no ${dataset}, so no images to compare on`);
      skip();
    }
    const { mean, std, testPredictions } = read("fashion/expected.json");
    const network = createModel("seresnet14_cifar", { numClasses: 10, inChannels: 1 });
    network.loadStateDict(await loadWeights(join(__dirname, "fixtures/fashion/model.safetensors")));
    await using compiled = await compile(network, { device: "cpu", dtype: compute, normalize: { mean, std } });
    const { images } = await loadIdxDataset(dataset, "test");
    const count = 1000;
    const batch = 100;
    const predictions: number[] = [];
    for (let at = 0; at < count; at += batch) {
      const pixels = tensor(images.subarray(at * 784, (at + batch) * 784), [batch, 1, 28, 28]);
      const logits = (await (await compiled.run(pixels)).data()) as Float32Array;
      for (let row = 0; row < batch * 10; row += 10) {
        const values = logits.subarray(row, row + 10);
        predictions.push(values.indexOf(Math.max(...values)));
      }
    }
    // an image whose two best classes all but tie may go either way
    expect(predictions.filter((label, i) => label === Number(testPredictions[i])).length).toBeGreaterThanOrEqual(
      count - 5,
    );
  });
});
