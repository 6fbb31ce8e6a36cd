import { existsSync } from "node:fs";
import { join } from "node:path";
import { compile, createModel, listDevices, tensor } from "seresnet";
import { describe, expect, test } from "vitest";
import { loadIdxDataset } from "../dist/lib/data/idx.js";
import { DeviceError, DtypeError } from "../dist/lib/errors.js";
import { cpuExecutor, requireBfloat16 } from "../dist/lib/executors/cpu.js";
import { nativeVersions } from "../dist/lib/executors/native.js";
import { referenceExecutor } from "../dist/lib/executors/reference/executor.js";
import { readCheckpoint } from "../dist/lib/io/checkpoint.js";
import type { Attributes, Plan } from "../dist/lib/plan/plan.js";
import { relativeError } from "./support/compare.js";
import { contents, conv, kernelsOf, type Line, planOf, runPlan, single, withConstants } from "./support/plans.js";
import { fill, image } from "./support/weights.js";

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

const { isa = "no oneDNN" } = (listDevices().find(({ name }) => name === "cpu")?.details ?? {}) as { isa?: string };
const refusal = built
  ? requireBfloat16().then(
      () => undefined,
      (error: unknown) => error,
    )
  : Promise.resolve(undefined);

describe.runIf(built)("bfloat16 where the CPU has it", () => {
  /** Whether it has; where not, says that and checks how it is refused. */
  async function supported(): Promise<boolean> {
    const error = await refusal;
    if (error === undefined) return true;
    console.warn(`cpu_bfloat16.test: LEFT OUT, this CPU (${isa}) has no bfloat16; its refusal was tested`);
    expect(isa).not.toMatch(/^avx512/);
    expect(error).toBeInstanceOf(DeviceError);
    expect((error as DeviceError).message).toBe(
      `cpu: expected a CPU whose oneDNN computes in bfloat16 (AVX-512 or newer), got ${isa}`,
    );
    return false;
  }

  test("compile takes it, or refuses it before anything runs", async () => {
    const model = createModel("seresnet14_cifar");
    await expect(compile(model, { device: "cpu", dtype: "float16" })).rejects.toThrow(DtypeError);
    await expect(compile(model, { device: "reference", dtype: compute })).rejects.toThrow(DtypeError);
    const compiled = compile(model, { device: "cpu", dtype: compute });
    if (await supported()) await (await compiled).dispose();
    else await expect(compiled).rejects.toThrow(DeviceError);
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
      if (!(await supported())) return;
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
      const data = shapes.map((shape) => rounded(contents({ shape, dtype: "float32" }) as Float32Array));
      const [wanted] = await runPlan(referenceExecutor(), theirs, data);
      for (const plan of [ours, withConstants(ours)])
        expect(relativeError((await run(plan, data))[0], wanted)).toBeLessThan(4e-3);
      expect((await kernelsIn(withConstants(ours))).filter((kernel) => /conv2d (ref|.*gemm)/.test(kernel))).toEqual([]);
    });

  for (const name of ["resnet14_cifar", "seresnet14_cifar"])
    test(`${name}: logits within 2e-2 of the reference`, async () => {
      if (!(await supported())) return;
      const model = fill(createModel(name).eval(), name);
      const x = image(name, [2, 3, 16, 16]);
      const exact = await compile(model, { device: "reference" });
      const half = await compile(model, { device: "cpu", dtype: compute });
      const wanted = await (await exact.run(x)).data();
      const y = await half.run(x);
      expect(y.dtype).toBe("float32");
      const error = relativeError(await y.data(), wanted);
      expect(error).toBeLessThan(2e-2);
      expect(error).toBeGreaterThan(1e-5); // or it was float32 after all
      await Promise.all([exact.dispose(), half.dispose()]);
    });

  test("the network that ships sees the same garments", async () => {
    if (!(await supported())) return;
    const dataset = "/usr/share/datasets/fashion-mnist";
    if (!existsSync(dataset))
      return console.warn(`cpu_bfloat16.test: LEFT OUT: no ${dataset}, so no pictures to compare on`);
    const checkpoint = join(__dirname, "..", "models/weights/seresnet14_cifar_fashion.safetensors");
    const { weights } = await readCheckpoint(checkpoint);
    const model = createModel("seresnet14_cifar", { numClasses: 10, inChannels: 1 });
    model.loadStateDict(weights);
    const { images } = await loadIdxDataset(dataset, "test");
    const count = 100;
    const pixels = Float32Array.from(images.subarray(0, count * 784), (pixel) => (pixel / 255 - 0.286) / 0.353);
    const classes = async (dtype: "float32" | "bfloat16") => {
      const compiled = await compile(model, { device: "cpu", dtype });
      const logits = (await (await compiled.run(tensor(pixels, [count, 1, 28, 28]))).data()) as Float32Array;
      await compiled.dispose();
      return Array.from({ length: count }, (_, i) => {
        const row = logits.subarray(10 * i, 10 * i + 10);
        return row.indexOf(Math.max(...row));
      });
    };
    const [exact, half] = [await classes("float32"), await classes("bfloat16")];
    expect(half.filter((label, i) => label === exact[i]).length).toBeGreaterThanOrEqual(count - 1);
  });
});
