import { describe, expect, test } from "vitest";
import type { Attributes } from "#lib/graph/attributes.js";
import { comparer, convs, expectNear, judgedDevices, limit, norm, outputOf, pool, positive } from "./support/judged.js";
import { contents, conv, type Line, planOf, single } from "./support/plans.js";

if (judgedDevices.length === 0)
  test("no device but the reference", () =>
    console.warn("layers.parity.test: LEFT OUT: no device but the reference works here"));

describe.each(judgedDevices)("layers on %s equal the reference", (device) => {
  const compare = comparer(device);

  for (const c of convs)
    test(`convolution: ${c.name}`, async () => {
      const y = outputOf(c);
      expect(await compare(single("conv2d", c.attributes, [c.x, c.w], [y]))).toBeLessThan(limit);
      expect(await compare(single("conv2d", c.attributes, [c.x, c.w, [c.w[0]]], [y]))).toBeLessThan(limit);
    });

  for (const c of convs)
    test(`fused convolution: ${c.name}`, async () => {
      const y = outputOf(c);
      for (const [bias, residual, relu] of [
        [true, true, true],
        [false, true, true],
        [true, true, false],
        [true, false, true],
      ]) {
        const inputs = [c.x, c.w, ...(bias ? [[c.w[0]]] : []), ...(residual ? [y] : [])];
        const from = inputs.map((_, i) => i);
        const fused = { op: "fused_conv2d", attributes: { ...c.attributes, bias, residual, relu }, from, to: [y] };
        const lines: Line[] = [{ op: "conv2d", attributes: c.attributes, from: from.slice(0, bias ? 3 : 2), to: [y] }];
        const last = () => inputs.length + lines.length - 1;
        if (residual) lines.push({ op: "add", from: [last(), inputs.length - 1], to: [y] });
        if (relu) lines.push({ op: "relu", from: [last()], to: [y] });
        expect(await compare(planOf(inputs, [fused]), planOf(inputs, lines))).toBeLessThan(limit);
      }
    });

  test("a residual that is read again keeps its contents", async () => {
    const shape = [1, 8, 6, 6];
    const attributes = { ...conv(1, 1), bias: false, residual: true, relu: true };
    const ours = planOf(
      [shape, [8, 8, 3, 3]],
      [
        { op: "relu", from: [0], to: [shape] },
        { op: "fused_conv2d", attributes, from: [2, 1, 2], to: [shape] },
        { op: "fused_conv2d", attributes, from: [3, 1, 2], to: [shape] },
        { op: "reshape", from: [3], to: [[8, 36]] },
        { op: "add", from: [4, 2], to: [shape] },
      ],
      [6, 5, 2],
    );
    const unfused = (from: number, at: number): Line[] => [
      { op: "conv2d", attributes: conv(1, 1), from: [from, 1], to: [shape] },
      { op: "add", from: [at, 2], to: [shape] },
      { op: "relu", from: [at + 1], to: [shape] },
    ];
    const theirs = planOf(
      [shape, [8, 8, 3, 3]],
      [
        { op: "relu", from: [0], to: [shape] },
        ...unfused(2, 3),
        ...unfused(5, 6),
        { op: "reshape", from: [5], to: [[8, 36]] },
        { op: "add", from: [8, 2], to: [shape] },
      ],
      [10, 9, 2],
    );
    expect(await compare(ours, theirs)).toBeLessThan(limit);
  });

  for (const shape of [
    [2, 5, 7, 3],
    [3, 40, 6, 6],
    [4, 7],
    [701, 5],
    [2, 3, 11],
  ])
    test(`batch norm of [${shape}]`, async () => {
      const c = [shape[1]];
      const inputs = [shape, c, c, c, c];
      const plan = planOf(inputs, [
        ...positive(2, c),
        { op: "batch_norm", attributes: norm, from: [0, 1, 5, 3, 4], to: [shape] },
      ]);
      expect(await compare(plan)).toBeLessThan(limit);
      const train = planOf(
        [shape, c, c],
        [{ op: "batch_norm_train", attributes: norm, from: [0, 1, 2], to: [shape, c, c] }],
      );
      expect(await compare(train)).toBeLessThan(limit);
    });

  test("batch norm, residual and ReLU in one step, after a convolution and before it", async () => {
    const shape = [2, 6, 5, 5];
    const inputs = [shape, [6, 6, 3, 3], [6], [6], [6], [6]];
    const head: Line[] = [...positive(3, [6]), { op: "conv2d", attributes: conv(1, 1), from: [0, 1], to: [shape] }];
    const attributes = { ...norm, affine: true, residual: true, relu: true };
    const ours = planOf(inputs, [...head, { op: "batch_norm_act", attributes, from: [7, 2, 6, 4, 5, 0], to: [shape] }]);
    const theirs = planOf(inputs, [
      ...head,
      { op: "batch_norm", attributes: norm, from: [7, 2, 6, 4, 5], to: [shape] },
      { op: "add", from: [8, 0], to: [shape] },
      { op: "relu", from: [9], to: [shape] },
    ]);
    expect(await compare(ours, theirs)).toBeLessThan(limit);
  });

  test("batch statistics of large values near each other, in both layouts", async () => {
    const shape = [4, 3, 8, 8];
    const lines: Line[] = [
      { op: "add", from: [0, 1], to: [shape] },
      { op: "max_pool2d", attributes: { ...pool(1, 1, 0), dilation: [1, 1] }, from: [2], to: [shape] },
      { op: "batch_norm_train", attributes: norm, from: [2], to: [shape, [3], [3]] },
      { op: "batch_norm_train", attributes: norm, from: [3], to: [shape, [3], [3]] },
    ];
    const plan = planOf([shape, []], lines, [4, 5, 6, 7, 8, 9]);
    const data = [contents(plan.slots[0]), Float32Array.of(1000)];
    await expectNear(device, plan, data);
  });

  for (const [kernel, stride, padding, size, out] of [
    [3, 2, 1, 14, 7],
    [3, 2, 0, 8, 4],
    [2, 2, 1, 7, 4],
    [5, 3, 2, 11, 4],
    [7, 7, 0, 7, 1],
  ])
    test(`pooling of ${size} by ${kernel}, stride ${stride}, padding ${padding} to ${out}`, async () => {
      const [x, y] = [
        [2, 9, size, size],
        [2, 9, out, out],
      ];
      const attributes = pool(kernel, stride, padding, true);
      const largest = single("max_pool2d", { ...attributes, dilation: [1, 1] }, [x], [y]);
      expect(await compare(largest)).toBe(0);
      for (const countIncludePad of [true, false])
        expect(await compare(single("avg_pool2d", { ...attributes, countIncludePad }, [x], [y]))).toBeLessThan(limit);
    });

  for (const relu of [true, false])
    for (const residual of [true, false])
      test(`squeeze-excite${residual ? " + residual" : ""}${relu ? " + ReLU" : ""}`, async () => {
        for (const x of [
          [1, 64, 7, 7],
          [3, 70, 5, 3],
        ]) {
          const [n, c] = x;
          const inputs = [x, [4, c], [4], [c, 4], [c], ...(residual ? [x] : [])];
          const from = inputs.map((_, i) => i);
          const first = inputs.length;
          const lines: Line[] = [
            { op: "mean", attributes: { dims: [2, 3], keepDims: false }, from: [0], to: [[n, c]] },
            { op: "linear", from: [first, 1, 2], to: [[n, 4]] },
            { op: "relu", from: [first + 1], to: [[n, 4]] },
            { op: "linear", from: [first + 2, 3, 4], to: [[n, c]] },
            { op: "sigmoid", from: [first + 3], to: [[n, c]] },
            { op: "reshape", from: [first + 4], to: [[n, c, 1, 1]] },
            { op: "mul", from: [0, first + 5], to: [x] },
          ];
          if (residual) lines.push({ op: "add", from: [first + 6, 5], to: [x] });
          if (relu) lines.push({ op: "relu", from: [first + lines.length - 1], to: [x] });
          const ours = planOf(inputs, [{ op: "squeeze_excite", attributes: { residual, relu }, from, to: [x] }]);
          expect(await compare(ours, planOf(inputs, lines))).toBeLessThan(limit);
        }
      });

  test("ops between convolutions work on what these leave, and mixed layouts meet", async () => {
    const shape = [2, 8, 6, 6];
    const chain = (op: string, from: number[], at: number[] = shape, attributes: Attributes = {}): Line => ({
      op,
      attributes,
      from,
      to: [at],
    });
    const plan = planOf(
      [shape, [8, 8, 3, 3], [1, 8, 1, 1], [8, 6, 6]],
      [
        chain("conv2d", [0, 1], shape, conv(1, 1)), // 4
        chain("add", [4, 0]), // 5
        chain("mul", [5, 2]), // 6
        chain("sub", [6, 3]), // 7
        chain("sigmoid", [7]), // 8
        chain("pad", [8], [2, 10, 6, 6], { before: [0, 1, 0, 0], after: [0, 1, 0, 0] }), // 9
        chain("slice", [9], [2, 8, 3, 3], { starts: [0, 2, 0, 0], steps: [1, 1, 2, 2] }), // 10
        chain("mean", [8], [2, 8], { dims: [2, 3], keepDims: false }), // 11
        chain("mean", [8], [2, 6, 6], { dims: [1], keepDims: false }), // 12
        chain("softmax", [8], shape, { dim: 1 }), // 13
        chain("reshape", [8], [2, 288]), // 14
        chain("conv2d", [8, 1], shape, conv(1, 1)), // 15
      ],
      [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    );
    expect(await compare(plan)).toBeLessThan(limit);
  });
});
