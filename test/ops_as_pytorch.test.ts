import { describe, expect, test } from "vitest";
import { sizeOf } from "#lib/shape.js";
import { usableDevices } from "./support/devices.js";
import { grid, judgeOf, noise, opRunner, type Spec } from "./support/ops.js";

interface ConvCase {
  x: number[];
  weight: number[];
  stride?: number[];
  padding?: number[];
  dilation?: number[];
  groups?: number;
}

/** Convolution by its definition, one output at a time. */
function naiveConv(
  c: Required<ConvCase>,
  y: number[],
  x: Float32Array,
  w: Float32Array,
  bias?: Float32Array,
): number[] {
  const [, channels, height, width] = c.x;
  const [outChannels, groupIn, kh, kw] = c.weight;
  const out: number[] = [];
  for (let n = 0; n < y[0]; n++)
    for (let o = 0; o < y[1]; o++)
      for (let p = 0; p < y[2]; p++)
        for (let q = 0; q < y[3]; q++) {
          let sum = bias?.[o] ?? 0;
          const first = Math.floor(o / (outChannels / c.groups)) * groupIn;
          for (let i = 0; i < groupIn; i++)
            for (let a = 0; a < kh; a++)
              for (let b = 0; b < kw; b++) {
                const row = p * c.stride[0] - c.padding[0] + a * c.dilation[0];
                const column = q * c.stride[1] - c.padding[1] + b * c.dilation[1];
                if (row < 0 || column < 0 || row >= height || column >= width) continue;
                sum +=
                  x[((n * channels + first + i) * height + row) * width + column] *
                  w[((o * groupIn + i) * kh + a) * kw + b];
              }
          out.push(sum);
        }
  return out;
}

const convCases: Record<string, ConvCase> = {
  "1x1 image, 1x1 kernel": { x: [1, 1, 1, 1], weight: [1, 1, 1, 1] },
  "squeeze of 5 images": { x: [5, 37, 1, 1], weight: [3, 37, 1, 1] },
  "odd channels, 3x3": { x: [2, 5, 7, 9], weight: [7, 5, 3, 3], padding: [1, 1] },
  "7x7 stride 2": { x: [1, 3, 23, 17], weight: [6, 3, 7, 7], stride: [2, 2], padding: [3, 3] },
  "1x1 stride 2": { x: [2, 6, 9, 9], weight: [5, 6, 1, 1], stride: [2, 2] },
  "non-square everything": {
    x: [1, 2, 11, 6],
    weight: [3, 2, 5, 2],
    stride: [3, 1],
    padding: [2, 1],
    dilation: [1, 2],
  },
  dilation: { x: [1, 3, 9, 9], weight: [4, 3, 3, 3], padding: [3, 3], dilation: [3, 3] },
  "dilation with nothing inside": { x: [1, 1, 2, 2], weight: [1, 1, 3, 3], padding: [9, 9], dilation: [5, 5] },
  grouped: { x: [2, 8, 6, 5], weight: [12, 2, 3, 3], padding: [1, 1], groups: 4 },
  "groups = channels": { x: [1, 9, 8, 8], weight: [9, 1, 3, 3], padding: [1, 1], groups: 9 },
  "groups = channels, two outputs each": { x: [1, 5, 4, 4], weight: [10, 1, 2, 2], groups: 5 },
  "padding wider than the image": { x: [1, 2, 2, 1], weight: [2, 2, 2, 3], padding: [4, 4] },
  "several blocks of depth and tiles": { x: [2, 70, 9, 9], weight: [9, 70, 3, 3], padding: [1, 1] },
  "kernel deeper than a block": { x: [1, 2, 25, 25], weight: [2, 2, 24, 24], padding: [1, 2] },
  "no image": { x: [0, 3, 4, 4], weight: [2, 3, 3, 3] },
};

function complete(c: ConvCase): { c: Required<ConvCase>; y: number[] } {
  const full = { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1, ...c };
  const extent = (dim: 0 | 1) =>
    Math.floor(
      (c.x[2 + dim] + 2 * full.padding[dim] - full.dilation[dim] * (c.weight[2 + dim] - 1) - 1) / full.stride[dim],
    ) + 1;
  return { c: full, y: [c.x[0], c.weight[0], extent(0), extent(1)] };
}

describe.each(usableDevices)("conv2d on %s", (device) => {
  const runOp = opRunner(device);
  const { expectClose } = judgeOf(device);

  for (const [name, given] of Object.entries(convCases))
    test(`${name}: as by definition, with and without bias, the same bits on 1, 2 and 3 threads`, async () => {
      const { c, y } = complete(given);
      const { stride, padding, dilation, groups } = c;
      const [x, weight, bias] = [noise(sizeOf(c.x)), noise(sizeOf(c.weight)), noise(c.weight[0])];
      const attributes = { stride, padding, dilation, groups };
      const run = (threads: number, ...rest: Spec[]) =>
        runOp("conv2d", attributes, [[c.x, x], [c.weight, weight], ...rest], [[y]], threads);
      const [plain] = await run(2);
      expectClose(plain, naiveConv(c, y, x, weight));
      const [biased] = await run(2, [[c.weight[0]], bias]);
      expectClose(biased, naiveConv(c, y, x, weight, bias));
      for (const threads of [1, 3]) expect((await run(threads))[0]).toEqual(plain);
    });

  test("NaN in the input reaches the outputs that see it, and no others", async () => {
    const x = new Float32Array(36);
    x[0] = Number.NaN;
    const attributes = { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1 };
    const [y] = await runOp("conv2d", attributes, [[[1, 1, 6, 6], x], [[1, 1, 3, 3]]], [[[1, 1, 4, 4]]]);
    expect([...y].map((value) => Number.isNaN(value as number))).toEqual([true, ...new Array(15).fill(false)]);
  });
});

// Numbers made with PyTorch 1.13.1:
//   def grid(*s, k=7): n = math.prod(s); return ((torch.arange(n)*k % 11)-5).float().reshape(s)/4
//   x = grid(1,2,5,6)
//   F.max_pool2d(x,(3,2),(2,3),(1,1),(1,1),ceil_mode=True);  F.max_pool2d(x,2,2,0,2)
//   F.avg_pool2d(x,(3,2),(2,3),(1,1),True,True);  F.avg_pool2d(x,(3,2),(2,3),(1,1),True,False)
//   F.avg_pool2d(grid(1,1,4,4),3,2,0,True,True)
//   bn = torch.nn.BatchNorm2d(2, eps=1e-3); bn.weight.data = torch.tensor([1.5,-.5]); bn.bias.data = torch.tensor([.25,2.])
//   x = grid(2,2,2,3); bn(x); x.mean((0,2,3)); x.var((0,2,3), unbiased=False)
//   F.cross_entropy(grid(3,4), torch.tensor([2,0,3]), label_smoothing=ls, reduction=r)   for ls in (0., .1)
//   F.softmax(grid(2,3,2),1);  F.log_softmax(grid(2,3),1)
describe.each(usableDevices)("as PyTorch on %s", (device) => {
  const runOp = opRunner(device);
  const { expectClose, expectExact } = judgeOf(device);

  const x: Spec = [[1, 2, 5, 6], grid(60)];
  const pool = { kernelSize: [3, 2], stride: [2, 3], padding: [1, 1], dilation: [1, 1], ceilMode: true };

  test("max_pool2d in ceil mode, with padding, and dilated", async () => {
    const [y] = await runOp("max_pool2d", pool, [x], [[[1, 2, 3, 3]]]);
    expect([...y]).toEqual([1, 1.25, -0.75, 1, 1.25, 1, 0, 0.75, 0.5, 1.25, 1, -0.5, 1.25, 1, 1.25, 0.25, 1, 0.75]);
    const dilated = { kernelSize: [2, 2], stride: [2, 2], padding: [0, 0], dilation: [2, 2], ceilMode: false };
    const [z] = await runOp("max_pool2d", dilated, [x], [[[1, 2, 2, 2]]]);
    expect([...z]).toEqual([1.25, 1.25, 1.25, 1.25, 0.75, 0.5, 0.75, 1.25]);
  });

  test("avg_pool2d in ceil mode, padding counted or not, windows past the padding", async () => {
    const [counted] = await runOp("avg_pool2d", { ...pool, countIncludePad: true }, [x], [[[1, 2, 3, 3]]]);
    expectClose(
      counted,
      [
        -0.0416667, 0.0833333, -0.3333333, 0.25, 0.2916667, 0.0416667, -0.0833333, 0, 0.0833333, 0.0416667, -0.2083333,
        -0.25, 0.375, 0.0833333, 0.1666667, 0, 0.1666667, 0.1666667,
      ],
    );
    const [clipped] = await runOp("avg_pool2d", { ...pool, countIncludePad: false }, [x], [[[1, 2, 3, 3]]]);
    expectClose(
      clipped,
      [
        -0.125, 0.125, -1, 0.5, 0.2916667, 0.0833333, -0.25, 0, 0.25, 0.125, -0.3125, -0.75, 0.75, 0.0833333, 0.3333333,
        0, 0.25, 0.5,
      ],
    );
    const over = { kernelSize: [3, 3], stride: [2, 2], padding: [0, 0], ceilMode: true, countIncludePad: true };
    const [past] = await runOp("avg_pool2d", over, [[[1, 1, 4, 4], grid(16)]], [[[1, 1, 2, 2]]]);
    expectClose(past, [-0.1388889, 0.0416667, 0.125, 0]);
  });

  test("batch_norm_train, with and without gamma and beta; batch_norm with its statistics gives the same", async () => {
    const [shape, data] = [[2, 2, 2, 3], grid(24)];
    const gamma: Spec = [[2], Float32Array.of(1.5, -0.5)];
    const beta: Spec = [[2], Float32Array.of(0.25, 2)];
    const outputs: [number[]][] = [[shape], [[2]], [[2]]];
    const [y, mean, variance] = await runOp("batch_norm_train", { eps: 1e-3 }, [[shape, data], gamma, beta], outputs);
    expectClose(
      y,
      [
        -2.2663455, 0.9855472, -0.8726772, 2.3792155, 0.5209911, -1.3372333, 1.2522836, 1.8931834, 2.5340831, 1.4125085,
        2.0534084, 2.694308, 0.9855472, -0.8726772, 2.3792155, 0.5209911, -1.3372333, 1.9146594, 1.8931834, 2.5340831,
        1.4125085, 2.0534084, 2.694308, 1.5727334,
      ],
    );
    expectClose(mean, [0.1041667, -0.1666667]);
    expectClose(variance, [0.6506076, 0.6076389]);
    const stats: Spec[] = [
      [[2], mean],
      [[2], variance],
    ];
    const [evaluated] = await runOp("batch_norm", { eps: 1e-3 }, [[shape, data], ...stats, gamma, beta], [[shape]]);
    expectClose(evaluated, y as Float32Array);
    const [bare] = await runOp("batch_norm_train", { eps: 1e-3 }, [[shape, data]], outputs);
    const [bareEvaluated] = await runOp("batch_norm", { eps: 1e-3 }, [[shape, data], ...stats], [[shape]]);
    expectClose(bareEvaluated, bare as Float32Array);
    expectClose(
      bare,
      [...y].map((v, i) => (Math.floor(i / 6) % 2 ? (Number(v) - 2) / -0.5 : (Number(v) - 0.25) / 1.5)),
      2e-6,
    );
  });

  test("batch_norm_train of large values near each other", async () => {
    const data = Float32Array.from({ length: 1000 }, (_, i) => 4096 + (i % 2));
    const outputs: [number[]][] = [[[1000, 1]], [[1]], [[1]]];
    const [y, mean, variance] = await runOp("batch_norm_train", { eps: 0 }, [[[1000, 1], data]], outputs);
    expectExact(
      Float32Array.of(Number(mean[0]), Number(variance[0]), Number(y[0]), Number(y[1])),
      [4096.5, 0.25, -1, 1],
    );
  });

  test("cross_entropy: each reduction, smoothed or not, int32 and int64 targets", async () => {
    const want: [number, Record<string, number[]>][] = [
      [0, { mean: [2.0880759], sum: [6.2642279], none: [2.2970951, 1.4501327, 2.5169997] }],
      [0.1, { mean: [2.0484924], sum: [6.1454778], none: [2.2470949, 1.4626327, 2.4357498] }],
    ];
    for (const [labelSmoothing, byReduction] of want)
      for (const [reduction, values] of Object.entries(byReduction))
        for (const targets of [
          [[3], Int32Array.of(2, 0, 3), "int32"],
          [[3], BigInt64Array.of(2n, 0n, 3n), "int64"],
        ] satisfies Spec[]) {
          const shape = reduction === "none" ? [3] : [];
          const [y] = await runOp(
            "cross_entropy",
            { labelSmoothing, reduction },
            [[[3, 4], grid(12)], targets],
            [[shape]],
          );
          expectClose(y, values);
        }
  });

  test("softmax and log_softmax", async () => {
    const [y] = await runOp("softmax", { dim: 1 }, [[[2, 3, 2], grid(12)]], [[[2, 3, 2]]]);
    expectClose(
      y,
      [
        0.1316016, 0.2938147, 0.2786007, 0.6220059, 0.5897977, 0.0841793, 0.7033139, 0.2938147, 0.0951832, 0.6220059,
        0.2015028, 0.0841793,
      ],
    );
    const [z] = await runOp("log_softmax", { dim: 1 }, [[[2, 3], grid(6)]], [[[2, 3]]]);
    expectClose(z, [-2.1828556, -0.4328555, -1.4328555, -0.4076059, -1.4076059, -2.4076059]);
    const [large] = await runOp("softmax", { dim: 0 }, [[[2], Float32Array.of(1e30, 1e30)]], [[[2]]]);
    expectExact(large, [0.5, 0.5]);
  });
});
