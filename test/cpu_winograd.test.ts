import { describe, expect, test } from "vitest";
import type { LoadOptions } from "#lib/devices/executor.js";
import { nativeVersions } from "#lib/devices/native/addon.js";
import { cpuExecutor } from "#lib/devices/native/cpu.js";
import { referenceExecutor } from "#lib/devices/reference/executor.js";
import { ArgumentError } from "#lib/errors.js";
import type { Plan } from "#lib/plan/plan.js";
import { relativeError } from "./support/compare.js";
import { vectors } from "./support/devices.js";
import { contents, conv, kernelsOf, type Line, planOf, runPlan, withConstants } from "./support/plans.js";

const built = nativeVersions()?.onednn != null;

/** One 3x3 convolution of stride 1, fused with what follows; and the same in single steps, for the reference. */
function plans(x: number[], features: number, { bias = true, residual = false, relu = false, padding = 1 } = {}) {
  const y = [x[0], features, x[2] + 2 * padding - 2, x[3] + 2 * padding - 2];
  const inputs = [x, [features, x[1], 3, 3], ...(bias ? [[features]] : []), ...(residual ? [y] : [])];
  const from = inputs.map((_, i) => i);
  const attributes = { ...conv(1, padding), bias, residual, relu };
  const lines: Line[] = [{ op: "conv2d", attributes: conv(1, padding), from: from.slice(0, bias ? 3 : 2), to: [y] }];
  const last = () => inputs.length + lines.length - 1;
  if (residual) lines.push({ op: "add", from: [last(), inputs.length - 1], to: [y] });
  if (relu) lines.push({ op: "relu", from: [last()], to: [y] });
  return { fused: planOf(inputs, [{ op: "fused_conv2d", attributes, from, to: [y] }]), single: planOf(inputs, lines) };
}

async function kernelsWith(plan: Plan, options: LoadOptions): Promise<string[]> {
  const fixed = withConstants(plan);
  const data = fixed.constants.map((slot) => contents(fixed.slots[slot]));
  const loaded = await cpuExecutor().load(fixed, data, options);
  try {
    return kernelsOf(loaded);
  } finally {
    await loaded.dispose();
  }
}

const isWinograd = (kernel: string) => /^fused_conv2d .*wino/.test(kernel);

describe.runIf(built)("Winograd's algorithm on the CPU", () => {
  const layers = [
    { x: [1, 16, 8, 8], features: 16 },
    { x: [2, 32, 14, 14], features: 48, relu: true },
    { x: [1, 16, 7, 9], features: 32, residual: true },
    { x: [3, 32, 6, 5], features: 16, residual: true, relu: true, bias: false },
    { x: [1, 16, 9, 8], features: 16, padding: 0, relu: true },
    { x: [1, 5, 8, 8], features: 7 },
    { x: [2, 3, 1, 1], features: 5, residual: true },
    { x: [1, 40, 3, 21], features: 24, padding: 2, relu: true },
    { x: [9, 12, 20, 20], features: 33, residual: true, relu: true },
    { x: [1, 96, 2, 3], features: 320, residual: true, bias: false },
  ];

  for (const { x, features, ...rest } of layers)
    test(`${x} to ${features} channels, ${JSON.stringify(rest)}`, async () => {
      const { fused, single } = plans(x, features, rest);
      const data = fused.inputs.map((slot) => contents(fused.slots[slot]));
      const [wanted] = await runPlan(referenceExecutor(), single, data);
      for (const convolution of ["auto", "direct", "winograd"] as const) {
        const [got] = await runPlan(cpuExecutor(), withConstants(fused), data, { convolution });
        expect(relativeError(got, wanted), convolution).toBeLessThan(1e-5);
      }
      const found = (await kernelsWith(fused, { convolution: "winograd" })).some(isWinograd);
      if (vectors) expect(found).toBe(true);
      else if (!found)
        console.warn(`cpu_winograd.test: neither AVX2 nor AVX-512 for ${x}; the direct algorithm was tested`);
    });

  test("by the rule, shapes alone decide", async () => {
    const chosen = (x: number[], features: number) =>
      kernelsWith(plans(x, features).fused, { convolution: "rule" }).then((kernels) => kernels.some(isWinograd));
    expect(await chosen([4, 16, 16, 16], 16)).toBe(vectors);
    expect(await chosen([1, 16, 16, 16], 16)).toBe(false);
    expect(await chosen([4, 16, 16, 16], 8)).toBe(false);
  });

  test("direct means direct, and equal layers are decided once", async () => {
    const { fused } = plans([1, 32, 14, 14], 32);
    expect((await kernelsWith(fused, { convolution: "direct" })).some(isWinograd)).toBe(false);
    const first = await kernelsWith(fused, { convolution: "auto" });
    for (let i = 0; i < 3; i++) expect(await kernelsWith(fused, { convolution: "auto" })).toEqual(first);
  });

  const trained = [
    { x: [4, 16, 19, 17], features: 24, padding: [1, 1] },
    { x: [2, 17, 23, 30], features: 16, padding: [0, 2] },
    { x: [6, 176, 14, 14], features: 176, padding: [1, 1] },
  ];
  for (const { x, features, padding } of trained)
    test(`in training: ${x} to ${features} channels, padding ${padding}`, async () => {
      const attributes = { ...conv(1, 1), padding };
      const w = [features, x[1], 3, 3];
      const y = [x[0], features, x[2] + 2 * padding[0] - 2, x[3] + 2 * padding[1] - 2];
      for (const [op, from, to] of [
        ["conv2d", [x, w], y],
        ["conv2d_input_gradient", [y, w], x],
        ["conv2d_weight_gradient", [x, y], w],
      ] as const) {
        const plan = planOf([...from], [{ op, attributes, from: [0, 1], to: [to] }]);
        const data = plan.inputs.map((slot) => contents(plan.slots[slot]));
        const [wanted] = await runPlan(referenceExecutor(), plan, data);
        const [one] = await runPlan(cpuExecutor(), plan, data, { threads: 1 });
        expect(relativeError(one, wanted), op).toBeLessThan(1e-5);
        // by a rule and not by the clock, and whatever the number of threads
        const [two] = await runPlan(cpuExecutor(), plan, data, { threads: 2 });
        expect(two).toEqual(one);
        const loaded = await cpuExecutor().load(plan, []);
        const found = kernelsOf(loaded).some((kernel) => kernel.startsWith(`${op} winograd:`));
        await loaded.dispose();
        if (vectors) expect(found, op).toBe(true);
        else console.warn(`cpu_winograd.test: neither AVX2 nor AVX-512: ${op} of oneDNN was tested`);
      }
    });

  test("what has no Winograd goes on as it was", async () => {
    const x = [2, 16, 9, 8];
    for (const [weight, attributes, y] of [
      [[20, 16, 3, 3], conv(2, 1), [2, 20, 5, 4]],
      [[20, 8, 3, 3], conv(1, 1, 1, 2), [2, 20, 9, 8]],
      [[20, 16, 3, 3], conv(1, 2, 2), [2, 20, 9, 8]],
      [[20, 16, 5, 5], conv(1, 2), [2, 20, 9, 8]],
    ] as const) {
      const fixed = { ...attributes, bias: false, residual: false, relu: false };
      const fused = planOf([x, [...weight]], [{ op: "fused_conv2d", attributes: fixed, from: [0, 1], to: [[...y]] }]);
      const single = planOf([x, [...weight]], [{ op: "conv2d", attributes, from: [0, 1], to: [[...y]] }]);
      expect((await kernelsWith(fused, { convolution: "winograd" })).some(isWinograd)).toBe(false);
      const data = fused.inputs.map((slot) => contents(fused.slots[slot]));
      const [wanted] = await runPlan(referenceExecutor(), single, data);
      const [got] = await runPlan(cpuExecutor(), withConstants(fused), data, { convolution: "winograd" });
      expect(relativeError(got, wanted)).toBeLessThan(1e-5);
    }
  });

  test("an image of blocks is read by other steps, twice and as a residual", async () => {
    const shape = [2, 16, 6, 6];
    const attributes = { ...conv(1, 1), bias: false, residual: false, relu: true };
    const weight = [16, 16, 3, 3];
    const ours = planOf(
      [shape, weight],
      [
        { op: "fused_conv2d", attributes, from: [0, 1], to: [shape] },
        { op: "fused_conv2d", attributes: { ...attributes, residual: true }, from: [2, 1, 2], to: [shape] },
        { op: "add", from: [2, 3], to: [shape] },
        { op: "relu", from: [3], to: [shape] },
        { op: "mean", attributes: { dims: [2, 3] }, from: [5], to: [[2, 16]] },
      ],
      [4, 6, 2],
    );
    const theirs = planOf(
      [shape, weight],
      [
        { op: "conv2d", attributes: conv(1, 1), from: [0, 1], to: [shape] },
        { op: "relu", from: [2], to: [shape] },
        { op: "conv2d", attributes: conv(1, 1), from: [3, 1], to: [shape] },
        { op: "add", from: [4, 3], to: [shape] },
        { op: "relu", from: [5], to: [shape] },
        { op: "add", from: [3, 6], to: [shape] },
        { op: "mean", attributes: { dims: [2, 3] }, from: [6], to: [[2, 16]] },
      ],
      [7, 8, 3],
    );
    const data = [shape, weight].map((extents) => contents({ shape: extents, dtype: "float32" }));
    const wanted = await runPlan(referenceExecutor(), theirs, data);
    const got = await runPlan(cpuExecutor(), withConstants(ours), data, { convolution: "winograd" });
    for (const [i, output] of got.entries()) expect(relativeError(output, wanted[i])).toBeLessThan(1e-5);
  });

  test("an algorithm nobody knows is refused", async () => {
    const { fused } = plans([1, 16, 8, 8], 16);
    const options = { convolution: "fft" } as unknown as LoadOptions;
    await expect(kernelsWith(fused, options)).rejects.toThrow(ArgumentError);
    await expect(kernelsWith(fused, options)).rejects.toThrow(
      "cpu: expected convolution auto, direct, winograd or rule, got fft",
    );
  });
});
