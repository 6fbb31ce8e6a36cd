import { compile, createModel, type Tensor } from "seresnet";
import { SEBlock } from "seresnet/models";
import { describe, expect, test } from "vitest";
import type { LoadOptions } from "#lib/devices/executor.js";
import { nativeVersions } from "#lib/devices/native/addon.js";
import { cpuExecutor } from "#lib/devices/native/cpu.js";
import { referenceExecutor } from "#lib/devices/reference/executor.js";
import { inIsolation } from "#lib/lazy/recording.js";
import { relativeError } from "./support/compare.js";
import { usableDevices, vectors } from "./support/devices.js";
import { contents, conv, type Line, planOf, runPlan, withConstants } from "./support/plans.js";
import { fill, image } from "./support/weights.js";

const built = nativeVersions()?.onednn != null;
if (!built) test("the gated convolution has a kernel where the addon has oneDNN", () => console.warn("oneDNN: absent"));

interface Case {
  readonly name: string;
  readonly x: readonly [number, number, number, number];
  readonly w: readonly [number, number, number, number];
  readonly hidden: number;
  readonly attributes: ReturnType<typeof conv>;
  readonly late?: true;
}

const cases: Case[] = [
  { name: "1x1", x: [1, 16, 9, 7], w: [32, 16, 1, 1], hidden: 4, attributes: conv() },
  { name: "1x1, batch 3", x: [3, 64, 7, 7], w: [128, 64, 1, 1], hidden: 8, attributes: conv() },
  { name: "1x1, odd channels", x: [2, 5, 6, 11], w: [7, 5, 1, 1], hidden: 3, attributes: conv() },
  { name: "1x1, more than a strip of channels", x: [2, 70, 5, 5], w: [19, 70, 1, 1], hidden: 2, attributes: conv() },
  { name: "one pixel", x: [2, 24, 1, 1], w: [40, 24, 1, 1], hidden: 4, attributes: conv() },
  { name: "3x3", x: [2, 16, 10, 8], w: [16, 16, 3, 3], hidden: 4, attributes: conv(1, 1) },
  { name: "3x3, odd channels", x: [1, 3, 7, 9], w: [11, 3, 3, 3], hidden: 1, attributes: conv(1, 1) },
  { name: "3x3 over one pixel", x: [2, 8, 1, 1], w: [8, 8, 3, 3], hidden: 4, attributes: conv(1, 1) },
  { name: "3x3 without padding", x: [1, 8, 6, 5], w: [16, 8, 3, 3], hidden: 4, attributes: conv() },
  { name: "3x3, dilated", x: [1, 8, 9, 9], w: [8, 8, 3, 3], hidden: 4, attributes: conv(1, 2, 2) },
  { name: "5x3, more padding than it needs", x: [1, 4, 6, 7], w: [8, 4, 5, 3], hidden: 4, attributes: conv(1, 3) },
  { name: "of stride 2", x: [1, 8, 9, 9], w: [8, 8, 3, 3], hidden: 4, attributes: conv(2, 1), late: true },
  { name: "grouped", x: [1, 16, 6, 6], w: [16, 8, 3, 3], hidden: 4, attributes: conv(1, 1, 1, 2), late: true },
];

const tails = [
  { bias: true, residual: true, relu: true },
  { bias: false, residual: true, relu: true },
  { bias: true, residual: false, relu: true },
  { bias: false, residual: false, relu: false },
  { bias: true, residual: true, relu: false },
];

/** A case as one step, and as the steps it stands for. */
function plans(c: Case, { bias, residual, relu }: (typeof tails)[number], gate?: string) {
  const { stride, padding, dilation } = c.attributes;
  const extent = (i: number) =>
    Math.floor((c.x[2 + i] + 2 * padding[i] - dilation[i] * (c.w[2 + i] - 1) - 1) / stride[i]) + 1;
  const [channels] = c.w;
  const y = [c.x[0], channels, extent(0), extent(1)];
  const excitation = [[c.hidden, channels], [c.hidden], [channels, c.hidden], [channels]];
  const inputs = [c.x, c.w, ...(bias ? [[channels]] : []), ...excitation, ...(residual ? [y] : [])];
  const from = inputs.map((_, i) => i);
  const attributes = { ...c.attributes, bias, residual, relu, ...(gate && { gate }) };
  const terms = bias ? 3 : 2;
  const pooled = [y[0], channels];
  const lines: Line[] = [
    { op: "conv2d", attributes: c.attributes, from: from.slice(0, terms), to: [y] },
    { op: "mean", attributes: { dims: [2, 3], keepDims: false }, from: [inputs.length], to: [pooled] },
    { op: "linear", from: [inputs.length + 1, terms, terms + 1], to: [[y[0], c.hidden]] },
    { op: "relu", from: [inputs.length + 2], to: [[y[0], c.hidden]] },
    { op: "linear", from: [inputs.length + 3, terms + 2, terms + 3], to: [pooled] },
    { op: "sigmoid", from: [inputs.length + 4], to: [pooled] },
    { op: "reshape", from: [inputs.length + 5], to: [[...pooled, 1, 1]] },
    { op: "mul", from: [inputs.length, inputs.length + 6], to: [y] },
  ];
  const last = () => inputs.length + lines.length - 1;
  if (residual) lines.push({ op: "add", from: [last(), inputs.length - 1], to: [y] });
  if (relu) lines.push({ op: "relu", from: [last()], to: [y] });
  return {
    ours: planOf(inputs, [{ op: "gated_conv2d", attributes, from, to: [y] }]),
    theirs: planOf(inputs, lines),
    /** The same where the residual is nobody else's, so that the result may take its place. */
    owned:
      residual &&
      planOf(inputs, [
        { op: "relu", from: [inputs.length - 1], to: [y] },
        { op: "gated_conv2d", attributes, from: [...from.slice(0, -1), inputs.length], to: [y] },
      ]),
  };
}

/** What computes a case, in order. */
async function kernelsOf(c: Case, constant: boolean, gate?: string, options?: LoadOptions): Promise<string> {
  const { ours } = plans(c, tails[0], gate);
  const plan = constant ? withConstants(ours) : ours;
  const loaded = await cpuExecutor().load(
    plan,
    plan.constants.map((slot) => contents(plan.slots[slot])),
    options,
  );
  const kernels = (loaded as unknown as { kernels(): string[] }).kernels();
  await loaded.dispose();
  return kernels.join("; ");
}

describe.runIf(built)("the gated convolution equals the steps it stands for", () => {
  for (const c of cases)
    for (const gate of c.late ? [undefined] : [undefined, "weights", "image", "late", "post-op"])
      test(`${c.name}, gate ${gate ?? "where it costs least"}`, async () => {
        for (const tail of tails) {
          const { ours, theirs, owned } = plans(c, tail, gate);
          const data = theirs.inputs.map((slot) => contents(theirs.slots[slot]));
          const [wanted] = await runPlan(referenceExecutor(), theirs, data);
          for (const plan of [ours, withConstants(ours)])
            for (const threads of [1, 2]) {
              const [got] = await runPlan(cpuExecutor(), plan, data, { threads });
              expect(relativeError(got, wanted), JSON.stringify({ tail, threads })).toBeLessThan(1e-5);
            }
          if (!owned) continue;
          const positive = data.map((array, i) =>
            i < data.length - 1 ? array : (array as Float32Array).map(Math.abs),
          );
          const [above] = await runPlan(referenceExecutor(), theirs, positive);
          const [reused] = await runPlan(cpuExecutor(), withConstants(owned), positive);
          expect(relativeError(reused, above)).toBeLessThan(1e-5);
        }
      });

  for (const c of cases.filter(
    ({ w, attributes, late }) => w[2] === 3 && w[3] === 3 && attributes.dilation[0] === 1 && !late,
  ))
    test(`${c.name}, gate as Winograd's algorithm stores`, async () => {
      const options = { convolution: "winograd" } as const;
      for (const tail of tails) {
        const { ours, theirs, owned } = plans(c, tail);
        const data = theirs.inputs.map((slot) => contents(theirs.slots[slot]));
        const [wanted] = await runPlan(referenceExecutor(), theirs, data);
        for (const plan of owned ? [ours, owned] : [ours]) {
          const inputs =
            plan === owned
              ? data.map((array, i) => (i < data.length - 1 ? array : (array as Float32Array).map(Math.abs)))
              : data;
          const expected = plan === owned ? (await runPlan(referenceExecutor(), theirs, inputs))[0] : wanted;
          const [got] = await runPlan(cpuExecutor(), withConstants(plan), inputs, options);
          expect(relativeError(got, expected), JSON.stringify(tail)).toBeLessThan(1e-5);
        }
      }
      const kernels = await kernelsOf(c, true, undefined, options);
      if (vectors) expect(kernels).toMatch(/linear squeeze; .*winograd:\S+ [24]x[24], gate as it stores/);
      else console.warn("gated_conv2d.test: neither AVX2 nor AVX-512; the direct algorithm was tested");
    });

  test("it knows the gate before it convolves where weights are constants, and says how it applies it", async () => {
    const early = { ...cases[0], x: [1, 16, 56, 56], w: [64, 16, 1, 1] } as const;
    expect(await kernelsOf(early, true)).toMatch(/linear squeeze; .*gate (on the weights|as post-op): /);
    expect(await kernelsOf({ ...early, x: [1, 16, 3, 3] }, true)).toMatch(
      /linear squeeze; .*gate (on the image|as post-op): /,
    );
    expect(await kernelsOf(early, true, "image")).toMatch(/gate on the image: /);
    for (const late of [kernelsOf(early, false), kernelsOf(early, true, "late"), kernelsOf(cases[12], true)])
      expect(await late).toMatch(/conv2d .*squeeze_excite/);
    await expect(kernelsOf(early, true, "nowhere")).rejects.toThrow(/a gate on weights, post-op, image or late/);
  });
});

describe("networks with gates equal the reference", () => {
  const outputs = async (record: () => Tensor) => inIsolation(record).data();
  for (const device of usableDevices)
    for (const [name, model, shape] of [
      ["bottlenecks", () => createModel("seresnet50"), [2, 3, 40, 40]],
      ["basic blocks", () => createModel("seresnet14_cifar"), [3, 3, 33, 31]],
      ["the seed's SE block", () => new SEBlock(5, 7, 9, { reduction: 3 }), [2, 5, 1, 1]],
    ] as const)
      test(`${name} on ${device}`, async () => {
        const net = fill(model(), name).eval();
        const x = image(name, shape);
        const wanted = await outputs(() => net.forward(x));
        const compiled = await compile(net, { device });
        const got = await (await compiled.run(x)).data();
        await compiled.dispose();
        expect(relativeError(got, wanted)).toBeLessThan(1e-4);
      });
});
