import { compile, createModel, functional, nn, type Tensor, tensor } from "seresnet";
import { describe, expect, test } from "vitest";
import { nativeVersions } from "#lib/devices/native/addon.js";
import { cpuExecutor } from "#lib/devices/native/cpu.js";
import { referenceExecutor } from "#lib/devices/reference/executor.js";
import { executorOf, usableDevices } from "./support/devices.js";
import { convs, outputOf } from "./support/judged.js";
import { contents, conv, type Line, planOf, runPlan, withConstants } from "./support/plans.js";
import { fill, image } from "./support/weights.js";

// NaN and infinity go through every op as they do in PyTorch 2.13, which gave the values here.

const [nan, inf] = [Number.NaN, Number.POSITIVE_INFINITY];
const row = [-1, 0, 2, nan, inf, -inf];

/** Numbers alike in what is not finite. */
const kinds = (values: Iterable<number | bigint>) =>
  [...values].map((value) => (Number.isFinite(Number(value)) ? "finite" : String(value)));

/** One output of a plan on a device. */
async function run(device: (typeof usableDevices)[number], plan: ReturnType<typeof planOf>, data: Float32Array[]) {
  return (await runPlan(executorOf(device), plan, data)).map((output) => [...output].map(Number));
}

/** x [1, 2, 1, 7] and a 1x1 convolution's weight [3, 2, 1, 1] that make NaN, infinities of both signs and numbers. */
const x = Float32Array.of(1, nan, inf, -inf, 2, inf, -3, 1, 1, 1, 1, 2, -inf, 1);
const weight = Float32Array.of(1, 1, -1, 1, 0, -1);
const [xShape, wShape, yShape] = [
  [1, 2, 1, 7],
  [3, 2, 1, 1],
  [1, 3, 1, 7],
];
// prettier-ignore
const sums = [2, nan, inf, -inf, 4, nan, -2, 0, nan, -inf, inf, 0, -inf, 4, -1, nan, nan, nan, -2, nan, -1];
const activated = sums.map((value) => (value < 0 ? 0 : value));

for (const device of usableDevices)
  describe(`${device}: what is not finite`, () => {
    test("ReLU, forward and backward", async () => {
      const lines: Line[] = [
        { op: "relu", from: [0], to: [[6]] },
        { op: "relu_gradient", from: [2, 1], to: [[6]] },
      ];
      const [y, dx] = await run(device, planOf([[6], [6]], lines, [2, 3]), [
        Float32Array.from(row),
        new Float32Array(6).fill(3),
      ]);
      expect(y).toEqual([0, 0, 2, nan, inf, 0]);
      expect(dx).toEqual([0, 0, 3, 3, 3, 0]);
    });

    for (const dtype of ["float16", "bfloat16"] as const)
      test(`ReLU in ${dtype}`, async () => {
        const plan = planOf([{ shape: [6], dtype }], [{ op: "relu", from: [0], to: [{ shape: [6], dtype }] }]);
        expect(await run(device, plan, [Float32Array.from(row)])).toEqual([[0, 0, 2, nan, inf, 0]]);
      });

    test("max pooling: the gradient goes to the last NaN of a window", async () => {
      const attributes = { kernelSize: [1, 4], stride: [1, 4], padding: [0, 0], dilation: [1, 1], ceilMode: false };
      for (const channels of [1, 16]) {
        const shape = [1, channels, 1, 8];
        const pooled = [1, channels, 1, 2];
        const lines: Line[] = [
          { op: "conv2d", attributes: conv(1, 0, 1, channels), from: [0, 1], to: [shape] },
          { op: "max_pool2d", attributes, from: [3], to: [pooled] },
          { op: "max_pool2d_gradient", attributes, from: [3, 2], to: [shape] },
        ];
        const plan = planOf([shape, [channels, 1, 1, 1], pooled], lines, [4, 5]);
        const window = [1, nan, nan, 5, -inf, -inf, -inf, -inf];
        const repeated = (values: readonly number[]) => Array.from({ length: channels }, () => values).flat();
        const [y, dx] = await run(device, plan, [
          Float32Array.from(repeated(window)),
          new Float32Array(channels).fill(1),
          new Float32Array(2 * channels).fill(2),
        ]);
        expect(y).toEqual(repeated([nan, -inf]));
        expect(dx).toEqual(repeated([0, 0, 2, 0, 2, 0, 0, 0]));
      }
    });

    test("a convolution with ReLU, fused and not", async () => {
      const inputs = [xShape, wShape];
      const fused = planOf(inputs, [
        {
          op: "fused_conv2d",
          attributes: { ...conv(), bias: false, residual: false, relu: true },
          from: [0, 1],
          to: [yShape],
        },
      ]);
      const apart = planOf(inputs, [
        { op: "conv2d", attributes: conv(), from: [0, 1], to: [yShape] },
        { op: "relu", from: [2], to: [yShape] },
      ]);
      expect(await run(device, apart, [x, weight])).toEqual([activated]);
      if (device === "reference") return; // runs what fused ops stand for
      for (const plan of [fused, withConstants(fused)])
        expect(await run(device, plan, [x, weight])).toEqual([activated]);
    });

    test("batch norm with ReLU, in eval", async () => {
      const norm = new nn.BatchNorm2d(2, { eps: 1e-5 });
      norm.loadStateDict({ running_mean: tensor([0, 1]), running_var: tensor([1, nan]) }, { strict: false });
      const compiled = await compile(new nn.Sequential(norm, new nn.ReLU()), { device });
      const y = await (await compiled.run(tensor(x, xShape))).data();
      await compiled.dispose();
      expect(kinds([...y].map(Number))).toEqual(kinds([1, nan, inf, 0, 2, inf, 0, ...new Array<number>(7).fill(nan)]));
    });

    test("softmax and cross-entropy", async () => {
      const logits = [1, nan, 2, inf, 1, 2, -inf, 1, 1, inf, -inf, 0];
      const lines: Line[] = [
        { op: "softmax", attributes: { dim: 1 }, from: [0], to: [[4, 3]] },
        { op: "log_softmax", attributes: { dim: 1 }, from: [0], to: [[4, 3]] },
        {
          op: "cross_entropy",
          attributes: { labelSmoothing: 0, reduction: "none" },
          from: [0, 1],
          to: [[4]],
        },
      ];
      const plan = planOf([[4, 3], { shape: [4], dtype: "int32" }], lines, [2, 3, 4]);
      const outputs = await runPlan(executorOf(device), plan, [Float32Array.from(logits), Int32Array.of(0, 0, 1, 2)]);
      const [softmax, logSoftmax, loss] = outputs.map((output) => [...output].map(Number));
      const three = [nan, nan, nan];
      expect(softmax).toEqual([...three, ...three, 0, 0.5, 0.5, ...three]);
      expect(kinds(logSoftmax)).toEqual(kinds([...three, ...three, -inf, -0.69, -0.69, ...three]));
      expect(kinds(loss)).toEqual(kinds([nan, nan, 0.69, nan]));
    });

    test("training: batch norm, ReLU, squeeze-and-excitation and their gradients pass NaN on", async () => {
      const model = createModel("seresnet14_cifar", { numClasses: 3 }).train();
      const state = model.stateDict();
      const gamma = await state["layer2.0.bn1.weight"].data();
      gamma[0] = nan;
      model.loadStateDict({ ...state, "layer2.0.bn1.weight": tensor(gamma as Float32Array) });
      const loss = functional.crossEntropy(
        model.forward(image("x", [4, 3, 16, 16])),
        tensor(Int32Array.of(0, 1, 2, 0)),
      );
      loss.backward();
      expect(await loss.item()).toBeNaN();
      for (const [name, parameter] of model.namedParameters())
        if (/^(fc|layer[23])/.test(name) && name !== "layer2.0.bn1.weight")
          expect(kinds((await (parameter.grad as Tensor).data()) as Float32Array), name).toContain("NaN");
    });

    for (const dtype of ["float32", "bfloat16"] as const)
      test(`networks with NaN in a weight, or in the image, in ${dtype}`, async (context) => {
        if (dtype === "bfloat16" && device === "reference") return context.skip();
        for (const [name, places] of [
          ["resnet18", ["conv1.weight", "layer4.1.conv1.weight", "layer2.0.downsample.0.weight"]],
          ["seresnet14_cifar", ["layer1.0.se.fc1.weight", "layer3.0.bn2.running_var", "layer2.1.conv2.weight"]],
          ["seresnet50", ["layer1.2.se.fc2.bias", "layer3.0.conv3.weight"]],
        ] as const)
          for (const place of [...places, "the image"]) {
            const model = fill(createModel(name, { numClasses: 4 }).eval(), name);
            const state = model.stateDict();
            const picture = (await image("x", [2, 3, 40, 40]).data()) as Float32Array;
            if (place === "the image") picture[700] = nan;
            else {
              const values = (await state[place].data()) as Float32Array;
              values[0] = nan;
              model.loadStateDict({ ...state, [place]: tensor(values, state[place].shape) });
            }
            const compiled = await compile(model, { device, dtype });
            for (let round = 0; round < 2; round++) {
              const logits = kinds(await (await compiled.run(tensor(picture, [2, 3, 40, 40]))).data());
              const of = (image: number) => logits.slice(image * 4, image * 4 + 4);
              expect(of(0), `${name}: ${place}`).toEqual(["NaN", "NaN", "NaN", "NaN"]);
              expect(new Set(of(1)), `${name}: ${place}`).toEqual(new Set([place === "the image" ? "finite" : "NaN"]));
            }
            // and the device is as it was
            const clean = await (await compiled.run(image("x", [2, 3, 40, 40]))).data();
            if (place === "the image") expect(new Set(kinds(clean))).toEqual(new Set(["finite"]));
            await compiled.dispose();
          }
      }, 300_000);
  });

describe.runIf(nativeVersions()?.onednn != null)("fused convolutions of the CPU", () => {
  const spoiled = (values: Float32Array, value: number, at: number) => {
    const copy = Float32Array.from(values);
    copy[at % copy.length] = value;
    return copy;
  };

  for (const c of convs)
    test(`${c.name}: what is not finite stays where it is without fusion`, async () => {
      const y = outputOf(c);
      const bias = [c.w[0]];
      for (const residual of [false, true]) {
        const inputs = [c.x, c.w, bias, ...(residual ? [y] : [])];
        const from = inputs.map((_, i) => i);
        const attributes = { ...c.attributes, bias: true, residual, relu: true };
        const fused = planOf(inputs, [{ op: "fused_conv2d", attributes, from, to: [y] }]);
        const lines: Line[] = [{ op: "conv2d", attributes: c.attributes, from: [0, 1, 2], to: [y] }];
        if (residual) lines.push({ op: "add", from: [4, 3], to: [y] });
        lines.push({ op: "relu", from: [inputs.length + lines.length - 1], to: [y] });
        const apart = planOf(inputs, lines);
        const data = apart.inputs.map((slot) => contents(apart.slots[slot]) as Float32Array);
        for (const value of [nan, inf, -inf])
          for (const place of from) {
            // of a weight the middle tap, which no padding meets: whether 0 * NaN counts there, PyTorch's backends differ
            const at = place === 1 ? Math.floor(c.w[2] / 2) * c.w[3] + Math.floor(c.w[3] / 2) : 5;
            const given = data.map((values, i) => (i === place ? spoiled(values, value, at) : values));
            const [wanted] = await runPlan(referenceExecutor(), apart, given);
            for (const plan of [fused, withConstants(fused)])
              for (const threads of [1, 2]) {
                const [got] = await runPlan(cpuExecutor(), plan, given, { threads, convolution: "direct" });
                expect(kinds(got), `${value} in input ${place}, ${threads} threads`).toEqual(kinds(wanted));
              }
          }
      }
    });

  test("Winograd spreads it no further than the tiles it is in", async () => {
    const shape = [1, 16, 24, 24];
    const plan = planOf(
      [shape, [16, 16, 3, 3]],
      [
        {
          op: "fused_conv2d",
          attributes: { ...conv(1, 1), bias: false, residual: false, relu: true },
          from: [0, 1],
          to: [shape],
        },
      ],
    );
    const data = plan.inputs.map((slot) => contents(plan.slots[slot]) as Float32Array);
    const given = [spoiled(data[0], nan, 0), data[1]];
    const [wanted] = await runPlan(cpuExecutor(), plan, given, { convolution: "direct" });
    const [got] = await runPlan(cpuExecutor(), plan, given, { convolution: "winograd" });
    const at = (values: ArrayLike<number | bigint>, i: number) => Number.isNaN(Number(values[i]));
    for (let i = 0; i < got.length; i++) {
      const [line, column] = [Math.floor((i % 576) / 24), i % 24];
      if (at(wanted, i)) expect(at(got, i)).toBe(true);
      else if (line >= 8 || column >= 8) expect(at(got, i)).toBe(false);
    }
  });
});
