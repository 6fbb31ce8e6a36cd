import { describe, expect, test } from "vitest";
import type { Plan } from "../dist/lib/plan/plan.js";
import { executorOf } from "./support/devices.js";
import {
  comparer,
  convs,
  expectNear,
  integer,
  judgedDevices,
  limit,
  norm,
  outputOf,
  pool,
  positive,
} from "./support/judged.js";
import { contents, conv, type Line, planOf, runPlan, single, type Type } from "./support/plans.js";

if (judgedDevices.length === 0)
  test("no device but the reference", () =>
    console.warn("judged_training.test: LEFT OUT: no device but the reference works here"));

describe.each(judgedDevices)("gradients and updates on %s equal the reference", (device) => {
  const compare = comparer(device);

  for (const c of convs)
    test(`gradients of the convolution: ${c.name}`, async () => {
      const y = outputOf(c);
      expect(await compare(single("conv2d_input_gradient", c.attributes, [y, c.w], [c.x]))).toBeLessThan(limit);
      expect(await compare(single("conv2d_weight_gradient", c.attributes, [c.x, y], [c.w]))).toBeLessThan(limit);
    });

  for (const shape of [
    [2, 5, 7, 3],
    [3, 40, 6, 6],
    [9, 4],
    [701, 5],
  ])
    test(`gradients of batch norm of [${shape}]`, async () => {
      const c = [shape[1]];
      for (const training of [true, false]) {
        const attributes = { ...norm, training };
        const lines: Line[] = [
          ...positive(2, c),
          { op: "batch_norm_gradient", attributes, from: [0, 1, 5, 3, 4], to: [shape, c, c] },
        ];
        expect(await compare(planOf([shape, c, c, shape, c], lines))).toBeLessThan(limit);
      }
    });

  for (const shape of [
    [2, 5, 7, 3],
    [9, 4],
    [701, 5],
  ])
    test(`batch norm of [${shape}] with a ReLU in it, and its gradients, with gamma and without`, async () => {
      const c = [shape[1]];
      const relu = { ...norm, relu: true };
      for (const affine of [true, false]) {
        const parameters = affine ? [1, 2] : [];
        const lines: Line[] = [
          { op: "batch_norm_train", attributes: relu, from: [0, ...parameters], to: [shape, c, c] },
          {
            op: "batch_norm_gradient",
            attributes: { ...relu, training: true },
            from: [0, 5, 6, 3, ...(affine ? [1] : []), 4],
            to: [shape, c, c],
          },
        ];
        const whole: Line[] = [
          { op: "batch_norm_train", attributes: norm, from: [0, ...parameters], to: [shape, c, c] },
          { op: "relu", from: [4], to: [shape] },
          { op: "relu_gradient", from: [7, 3], to: [shape] },
          {
            op: "batch_norm_gradient",
            attributes: { ...norm, training: true },
            from: [0, 5, 6, 8, ...(affine ? [1] : [])],
            to: [shape, c, c],
          },
        ];
        const inputs = [shape, c, c, shape];
        const ours = planOf(inputs, lines, [4, 7, 8, 9]);
        expect(await compare(ours, planOf(inputs, whole, [7, 9, 10, 11]))).toBeLessThan(limit);
      }
    });

  test("gradients of batch norm and activations after a convolution, over more rows than one task sums", async () => {
    const shape = [3, 6, 17, 19];
    for (const op of ["relu_gradient", "sigmoid_gradient"]) {
      const lines: Line[] = [
        ...positive(3, [6]),
        { op: "conv2d", attributes: conv(1, 1), from: [0, 1], to: [shape] },
        { op: "batch_norm_train", attributes: norm, from: [6], to: [shape, [6], [6]] },
        { op, from: [7, 6], to: [shape] },
        {
          op: "batch_norm_gradient",
          attributes: { ...norm, training: true },
          from: [6, 8, 9, 10, 4],
          to: [shape, [6], [6]],
        },
      ];
      expect(
        await compare(planOf([shape, [6, 6, 3, 3], [6], [6], [6]], lines, [7, 8, 9, 10, 11, 12, 13])),
      ).toBeLessThan(limit);
    }
    const relu = { ...norm, relu: true };
    const lines: Line[] = [
      { op: "conv2d", attributes: conv(1, 1), from: [0, 1], to: [shape] },
      { op: "batch_norm_train", attributes: relu, from: [3], to: [shape, [6], [6]] },
      {
        op: "batch_norm_gradient",
        attributes: { ...relu, training: true },
        from: [3, 5, 6, 4, 2, 4],
        to: [shape, [6], [6]],
      },
    ];
    expect(await compare(planOf([shape, [6, 6, 3, 3], [6]], lines, [4, 5, 6, 7, 8, 9]))).toBeLessThan(limit);
  });

  test("gradients of pooling", async () => {
    const [x, y] = [
      [2, 5, 9, 8],
      [2, 5, 5, 4],
    ];
    const attributes = pool(3, 2, 1);
    const largest = { ...attributes, dilation: [1, 1] };
    expect(await compare(single("max_pool2d_gradient", largest, [x, y], [x]))).toBeLessThan(limit);
    for (const countIncludePad of [true, false])
      expect(await compare(single("avg_pool2d_gradient", { ...attributes, countIncludePad }, [y], [x]))).toBeLessThan(
        limit,
      );
  });

  for (const channels of [7, 70])
    test(`gradient of max pooling after a convolution and ReLU, ${channels} channels: ties go to the first`, async () => {
      const [x, y] = [
        [2, channels, 9, 8],
        [2, channels, 5, 4],
      ];
      const lines: Line[] = [
        { op: "conv2d", attributes: conv(1, 1), from: [0, 1], to: [x] },
        { op: "relu", from: [3], to: [x] },
        { op: "max_pool2d_gradient", attributes: { ...pool(3, 2, 1), dilation: [1, 1] }, from: [4, 2], to: [x] },
        { op: "add", from: [5, 4], to: [x] },
      ];
      expect(await compare(planOf([x, [channels, channels, 3, 3], y], lines, [5, 6]))).toBeLessThan(limit);
    });

  test("a max pooling's gradient meets NaN as its forward pass does", async () => {
    const x = [1, 2, 4, 4];
    const lines: Line[] = [
      { op: "conv2d", attributes: conv(), from: [0, 1], to: [x] },
      { op: "max_pool2d_gradient", attributes: { ...pool(2, 2, 0), dilation: [1, 1] }, from: [3, 2], to: [x] },
    ];
    const plan = planOf([x, [2, 2, 1, 1], [1, 2, 2, 2]], lines);
    const data = [new Float32Array(32).fill(1), Float32Array.of(1, 0, 0, 1), Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8)];
    data[0][5] = Number.NaN;
    data[0][4] = 2;
    const results = await Promise.all(
      (["reference", device] as const).map((name) => runPlan(executorOf(name), plan, data)),
    );
    expect([...(results[1][0] as Float32Array)]).toEqual([...(results[0][0] as Float32Array)]);
  });

  test("arithmetic of images with a vector of each, either way round", async () => {
    for (const shape of [
      [3, 16, 5, 7],
      [2, 5, 3, 3],
      [2, 300, 2, 1],
    ]) {
      const vector = [shape[0], shape[1], 1, 1];
      const lines: Line[] = [{ op: "conv2d", attributes: conv(), from: [0, 1], to: [shape] }];
      for (const op of ["add", "mul", "sub"])
        for (const from of [
          [3, 2],
          [2, 3],
        ])
          lines.push({ op, from, to: [shape] });
      const plan = planOf([shape, [shape[1], shape[1], 1, 1], vector], lines, [4, 5, 6, 7, 8, 9]);
      expect(await compare(plan)).toBeLessThan(limit);
    }
  });

  const scalars = (count: number) => new Array<number[]>(count).fill([]);
  const others: [string, Plan][] = [
    ["fill", single("fill", { value: 1.5 }, [], [[3, 4]])],
    ["broadcast", single("broadcast", { scale: 0.25 }, [[2, 1, 3, 1]], [[2, 4, 3, 5]])],
    ["transpose", single("transpose", {}, [[3, 4, 5]], [[3, 5, 4]])],
    [
      "relu_gradient",
      single(
        "relu_gradient",
        {},
        [
          [3, 7],
          [3, 7],
        ],
        [[3, 7]],
      ),
    ],
    [
      "sigmoid_gradient",
      single(
        "sigmoid_gradient",
        {},
        [
          [3, 7],
          [3, 7],
        ],
        [[3, 7]],
      ),
    ],
    ["slice_gradient", single("slice_gradient", { starts: [0, 1], steps: [2, 3] }, [[2, 3]], [[4, 9]])],
    ["sgd", single("sgd", { nesterov: false }, [[31], [31], [31], ...scalars(3)], [[31], [31]])],
    ["sgd, Nesterov", single("sgd", { nesterov: true }, [[31], [31], [31], ...scalars(3)], [[31], [31]])],
    ["sgd, skipped", single("sgd", { nesterov: true }, [[31], [31], [31], ...scalars(4)], [[31], [31]])],
    ["adamw, skipped", single("adamw", {}, [[31], [31], [31], [31], ...scalars(7)], [[31], [31], [31]])],
  ];
  for (const [name, plan] of others)
    test(name, async () => {
      expect(await compare(plan)).toBeLessThan(limit);
    });

  test("adamw", async () => {
    const plan = single("adamw", {}, [[31], [31], [31], [31], ...scalars(6)], [[31], [31], [31]]);
    const [p, g, m, v] = [0, 1, 2, 3].map((slot) => contents(plan.slots[slot]) as Float32Array);
    const settings = [0.01, 0.9, 0.999, 1e-8, 0.1, 3].map((value) => Float32Array.of(value));
    const data = [p, g, m, v.map(Math.abs), ...settings];
    await expectNear(device, plan, data);
    const gated = single("adamw", {}, [[31], [31], [31], [31], ...scalars(7)], [[31], [31], [31]]);
    await expectNear(device, gated, [...data, Float32Array.of(0)]);
  });

  test("updates of many tensors with the same settings, with others, and of what an update made", async () => {
    // slots 0 to 8: parameter, gradient and velocity of three tensors; 9 to 12: settings
    const shapes = [[5], [3, 70], [31]];
    const inputs: Type[] = [...shapes.flatMap((shape) => [shape, shape, shape]), ...scalars(4)];
    const sgd = (tensor: readonly number[], shape: number[], lr = 9, nesterov = true): Line => ({
      op: "sgd",
      attributes: { nesterov },
      from: [...tensor, lr, 10, 11],
      to: [shape, shape],
    });
    const lines = [
      sgd([0, 1, 2], shapes[0]), // makes 13, 14
      sgd([3, 4, 5], shapes[1]),
      sgd([6, 7, 8], shapes[2]),
      sgd([13, 1, 14], shapes[0]), // makes 19, 20
      sgd([3, 4, 5], shapes[1], 12),
      sgd([6, 7, 8], shapes[2], 12, false),
    ];
    const outputs = [13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24];
    expect(await compare(planOf(inputs, lines, outputs))).toBeLessThan(limit);
  });

  test("found_inf", async () => {
    const shapes = [[5], [3, 4, 5, 6], [20000]];
    const plan = single("found_inf", {}, shapes, [[]]);
    const data = shapes.map((shape) => contents({ shape, dtype: "float32" }) as Float32Array);
    const found = async () => (await runPlan(executorOf(device), plan, data))[0][0];
    expect(await found()).toBe(0);
    for (const wrong of [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN]) {
      const before = data[2][19998];
      data[2][19998] = wrong;
      expect(await found()).toBe(1);
      data[2][19998] = before;
    }
    await expectNear(device, plan, data);
  });

  test("the gradient of cross-entropy", async () => {
    for (const reduction of ["none", "sum", "mean"]) {
      const attributes = { labelSmoothing: 0.1, reduction };
      const inputs: Type[] = [[3, 9], integer("int64", 3), reduction === "none" ? [3] : []];
      const plan = single("cross_entropy_gradient", attributes, inputs, [[3, 9]]);
      const data = [contents(plan.slots[0]), BigInt64Array.of(8n, 0n, 3n), contents(plan.slots[2])];
      await expectNear(device, plan, data);
    }
  });
});
