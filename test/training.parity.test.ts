import { describe, expect, test } from "vitest";
import type { Plan } from "#lib/plan/plan.js";
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
    console.warn("training.parity.test: LEFT OUT: no device but the reference works here"));

const tails = [
  { residual: false, relu: true },
  { residual: true, relu: false },
  { residual: true, relu: true },
];

/** A tail as ops of its own: values 8 to 10, the sum, the result and what is let through of the gradient dy. */
function unfused(to: Type, [y, other, dy]: readonly number[], { residual, relu }: (typeof tails)[number]): Line[] {
  return [
    residual ? { op: "add", from: [y, other], to: [to] } : { op: "reshape", from: [y], to: [to] },
    { op: relu ? "relu" : "reshape", from: [8], to: [to] },
    relu ? { op: "relu_gradient", from: [9, dy], to: [to] } : { op: "reshape", from: [dy], to: [to] },
  ];
}

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
    test(`batch norm of [${shape}] with its tail, and its gradients, with gamma and without`, async () => {
      const c = [shape[1]];
      const inputs = [shape, c, c, shape, shape]; // x, gamma, beta, residual, dy; then y, mean and variance
      for (const tail of tails)
        for (const affine of [true, false]) {
          const { residual, relu } = tail;
          const [parameters, gamma] = affine ? [[1, 2], [1]] : [[], []];
          const attributes = { ...norm, residual, relu };
          const other = residual ? [3] : [];
          const kept = residual && relu;
          const ours: Line[] = [
            { op: "batch_norm_train", attributes, from: [0, ...parameters, ...other], to: [shape, c, c] },
            {
              op: "batch_norm_gradient",
              attributes: { ...norm, training: true, residual: kept, relu },
              from: [0, 6, 7, 4, ...gamma, ...(relu ? [5] : [])],
              to: [shape, c, c, ...(kept ? [shape] : [])],
            },
          ];
          const theirs: Line[] = [
            { op: "batch_norm_train", attributes: norm, from: [0, ...parameters], to: [shape, c, c] },
            ...unfused(shape, [5, 3, 4], tail),
            {
              op: "batch_norm_gradient",
              attributes: { ...norm, training: true },
              from: [0, 6, 7, 10, ...gamma],
              to: [shape, c, c],
            },
          ];
          const got = planOf(inputs, ours, [5, 6, 7, 8, 9, 10, ...(kept ? [11] : [])]);
          expect(await compare(got, planOf(inputs, theirs, [9, 6, 7, 11, 12, 13, ...(kept ? [10] : [])]))).toBeLessThan(
            limit,
          );
        }
    });

  test("running statistics", async () => {
    for (const c of [[5], [700]])
      expect(await compare(single("running_statistics", { count: 12 }, [c, c, c, c, []], [c, c]))).toBeLessThan(limit);
  });

  for (const shape of [
    [2, 5, 7, 3],
    [3, 150, 5, 5],
    [2, 16, 33, 8],
  ])
    test(`a gate of [${shape}] with its tail, and its gradients, before a convolution and after one`, async () => {
      const [n, c] = shape;
      const gate = [n, c, 1, 1];
      const inputs = [shape, gate, shape, shape, [c, c, 1, 1]]; // x, gate, residual, dy, filter
      for (const tail of [...tails, { residual: false, relu: false }])
        for (const x of [0, 5]) {
          const { residual, relu } = tail;
          const kept = residual && relu;
          const head: Line[] = [
            { op: "conv2d", attributes: conv(1, 0), from: [0, 4], to: [shape] },
            { op: "reshape", from: [1], to: [gate] },
          ];
          const ours: Line[] = [
            ...head,
            { op: "gate", attributes: { residual, relu }, from: [x, 6, ...(residual ? [2] : [])], to: [shape] },
            {
              op: "gate_gradient",
              attributes: { residual: kept, relu },
              from: [x, 6, 3, ...(relu ? [7] : [])],
              to: [shape, gate, ...(kept ? [shape] : [])],
            },
          ];
          const theirs: Line[] = [
            ...head,
            { op: "mul", from: [x, 6], to: [shape] },
            ...unfused(shape, [7, 2, 3], tail),
            { op: "mul", from: [10, 6], to: [shape] },
            { op: "mul", from: [10, x], to: [shape] },
            { op: "sum", attributes: { dims: [2, 3], keepDims: true }, from: [12], to: [gate] },
          ];
          const got = planOf(inputs, ours, [7, 8, 9, ...(kept ? [10] : [])]);
          expect(await compare(got, planOf(inputs, theirs, [9, 11, 13, ...(kept ? [10] : [])]))).toBeLessThan(limit);
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
    const tail = { ...norm, residual: true, relu: true };
    const lines: Line[] = [
      { op: "conv2d", attributes: conv(1, 1), from: [0, 1], to: [shape] },
      { op: "batch_norm_train", attributes: tail, from: [3, 0], to: [shape, [6], [6]] },
      {
        op: "batch_norm_gradient",
        attributes: { ...tail, training: true },
        from: [3, 5, 6, 4, 2, 4],
        to: [shape, [6], [6], shape],
      },
    ];
    expect(await compare(planOf([shape, [6, 6, 3, 3], [6]], lines, [4, 5, 6, 7, 8, 9, 10]))).toBeLessThan(limit);
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

  test("the norm of more tensors than one launch takes, their scaling and averaging", async () => {
    const shapes = [[5], [3, 4, 5, 6], [20000], ...Array.from({ length: 60 }, (_, i) => [i + 1])];
    const from = shapes.map((_, i) => i);
    const last = shapes.length;
    const lines: Line[] = [
      { op: "global_norm", from, to: [[]] },
      { op: "scale", from: [...from, last], to: shapes },
      { op: "lerp", from: [...from, ...from.map((i) => last + 2 + i), last], to: shapes },
    ];
    const outputs = Array.from({ length: 2 * last + 1 }, (_, i) => last + 1 + i);
    expect(await compare(planOf([...shapes, []], lines, outputs))).toBeLessThan(limit);
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
