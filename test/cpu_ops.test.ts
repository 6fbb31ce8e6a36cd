import { describe, expect, test } from "vitest";
import { DeviceError } from "../dist/lib/errors.js";
import { cpuExecutor } from "../dist/lib/executors/cpu.js";
import { nativeVersions } from "../dist/lib/executors/native.js";
import { referenceExecutor } from "../dist/lib/executors/reference/executor.js";
import type { Attributes, Plan } from "../dist/lib/plan/plan.js";
import { relativeError } from "./support/compare.js";
import { contents, conv, type Line, planOf, runPlan, single, type Type, withConstants } from "./support/plans.js";

const built = nativeVersions()?.onednn != null;
const limit = 1e-5;

if (!built)
  test("without oneDNN the executor says so", () => {
    expect(() => cpuExecutor()).toThrow(DeviceError);
    console.warn("cpu.test: this build has no oneDNN; the device cpu is not tested");
  });

/** Runs `ours` on the CPU and `theirs` on the reference and returns the largest relative error of the outputs. */
async function compare(ours: Plan, theirs: Plan = ours): Promise<number> {
  const data = theirs.inputs.map((slot) => contents(theirs.slots[slot]));
  const wanted = await runPlan(referenceExecutor(), theirs, data);
  const errors: number[] = [];
  for (const plan of [ours, withConstants(ours)])
    for (const threads of [1, 2]) {
      const got = await runPlan(cpuExecutor(), plan, data, { threads });
      errors.push(...got.map((output, i) => relativeError(output, wanted[i])));
    }
  return Math.max(...errors);
}

interface ConvCase {
  name: string;
  x: number[];
  w: number[];
  attributes: ReturnType<typeof conv>;
}

const convs: ConvCase[] = [
  { name: "3x3", x: [1, 16, 14, 14], w: [32, 16, 3, 3], attributes: conv(1, 1) },
  { name: "1x1 of stride 2, batch 3", x: [3, 64, 15, 13], w: [24, 64, 1, 1], attributes: conv(2) },
  { name: "stem", x: [2, 3, 33, 31], w: [64, 3, 7, 7], attributes: conv(2, 3) },
  { name: "odd channels", x: [1, 5, 9, 7], w: [7, 5, 3, 3], attributes: conv(1, 1) },
  { name: "one channel", x: [1, 1, 8, 8], w: [3, 1, 3, 3], attributes: conv(1, 1) },
  { name: "one pixel", x: [3, 32, 1, 1], w: [8, 32, 1, 1], attributes: conv() },
  { name: "dilated", x: [1, 8, 17, 17], w: [8, 8, 3, 3], attributes: conv(1, 2, 2) },
  { name: "grouped", x: [2, 32, 10, 10], w: [32, 4, 3, 3], attributes: conv(1, 1, 1, 8) },
  { name: "of 32 groups of 4", x: [2, 128, 9, 7], w: [128, 4, 3, 3], attributes: conv(1, 1, 1, 32) },
  { name: "of 6 groups, 2 to 4 channels", x: [1, 12, 9, 7], w: [24, 2, 3, 3], attributes: conv(2, 1, 1, 6) },
  { name: "of 4 groups, 3 to 5 channels", x: [1, 12, 9, 7], w: [20, 3, 3, 3], attributes: conv(1, 1, 1, 4) },
  { name: "depthwise", x: [1, 12, 10, 10], w: [12, 1, 3, 3], attributes: conv(2, 1, 1, 12) },
  { name: "wide kernel", x: [1, 4, 12, 12], w: [6, 4, 5, 3], attributes: conv(1, 0) },
];

const outputOf = ({ x, w, attributes: { stride, padding, dilation } }: ConvCase) => [
  x[0],
  w[0],
  ...[0, 1].map((i) => Math.floor((x[2 + i] + 2 * padding[i] - dilation[i] * (w[2 + i] - 1) - 1) / stride[i]) + 1),
];

describe.runIf(built)("ops on the CPU equal the reference", () => {
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

  const norm = { eps: 1e-5 };
  const positive = (from: number, shape: number[]): Line[] => [{ op: "exp", from: [from], to: [shape] }];

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
    const wanted = await runPlan(referenceExecutor(), plan, data);
    const got = await runPlan(cpuExecutor(), plan, data);
    for (const [i, output] of got.entries()) expect(relativeError(output, wanted[i])).toBeLessThan(limit);
  });

  const pool = (kernel: number, stride: number, padding: number, ceilMode = false) => ({
    kernelSize: [kernel, kernel],
    stride: [stride, stride],
    padding: [padding, padding],
    ceilMode,
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

  const integer = (dtype: "int32" | "int64" | "uint8", ...shape: number[]): Type => ({ shape, dtype });

  const others: [string, Plan][] = [
    ...["add", "sub", "mul", "div"].flatMap((op): [string, Plan][] =>
      (
        [
          [
            [2, 3, 4, 5],
            [2, 3, 4, 5],
            [2, 3, 4, 5],
          ],
          [
            [2, 3, 4, 5],
            [3, 1, 1],
            [2, 3, 4, 5],
          ],
          [
            [3, 1, 5],
            [2, 3, 4, 1],
            [2, 3, 4, 5],
          ],
          [[], [4], [4]],
          [[1, 1], [], [1, 1]],
          [[0, 3], [3], [0, 3]],
        ] as number[][][]
      ).map(([a, b, y]) => [`${op} of [${a}] and [${b}]`, single(op, {}, [a, b], [y])]),
    ),
    ...["add", "sub", "mul"].flatMap((op): [string, Plan][] =>
      (["int32", "int64", "uint8"] as const).map((dtype) => [
        `${op} of ${dtype}`,
        single(op, {}, [integer(dtype, 3, 5), integer(dtype, 5)], [integer(dtype, 3, 5)]),
      ]),
    ),
    ...["relu", "sigmoid", "exp", "neg"].map((op): [string, Plan] => [op, single(op, {}, [[3, 37]], [[3, 37]])]),
    ...["sqrt", "log"].map((op): [string, Plan] => [
      op,
      planOf([[41]], [...positive(0, [41]), { op, from: [1], to: [[41]] }]),
    ]),
    ...(["int32", "int64", "uint8"] as const).flatMap((dtype): [string, Plan][] => [
      [`cast of ${dtype} to float32`, single("cast", {}, [integer(dtype, 30)], [[30]])],
      [
        `cast of float32 to ${dtype}`,
        planOf(
          [[30], []],
          [
            { op: "mul", from: [0, 1], to: [[30]] },
            { op: "div", from: [2, 0], to: [[30]] },
            { op: "cast", from: [3], to: [integer(dtype, 30)] },
          ],
        ),
      ],
      [`sum of ${dtype}`, single("sum", { dims: [1], keepDims: false }, [integer(dtype, 4, 9)], [integer(dtype, 4)])],
    ]),
    ...["sum", "mean"].flatMap((op): [string, Plan][] => [
      [`${op} over all`, single(op, { dims: [0, 1, 2], keepDims: false }, [[3, 4, 5]], [[]])],
      [`${op} over the middle`, single(op, { dims: [1], keepDims: true }, [[3, 40, 5]], [[3, 1, 5]])],
      [`${op} over pixels`, single(op, { dims: [2, 3], keepDims: false }, [[2, 5, 7, 7]], [[2, 5]])],
    ]),
    ...["softmax", "log_softmax"].flatMap((op): [string, Plan][] => [
      [`${op} over the last dim`, single(op, { dim: 1 }, [[3, 10]], [[3, 10]])],
      [`${op} over the first dim`, single(op, { dim: 0 }, [[7, 2, 3]], [[7, 2, 3]])],
    ]),
    ["linear of 1 row", single("linear", {}, [[1, 130], [11, 130], [11]], [[1, 11]])],
    ["linear of many rows", single("linear", {}, [[2, 5, 33], [7, 33], [7]], [[2, 5, 7]])],
    ["linear without bias", single("linear", {}, [[33], [7, 33]], [[7]])],
    [
      "matmul",
      single(
        "matmul",
        {},
        [
          [5, 17],
          [17, 3],
        ],
        [[5, 3]],
      ),
    ],
    [
      "matmul of stacks",
      single(
        "matmul",
        {},
        [
          [4, 1, 5, 6],
          [3, 6, 2],
        ],
        [[4, 3, 5, 2]],
      ),
    ],
    ["pad", single("pad", { before: [0, 1, 2, 0], after: [0, 3, 0, 1] }, [[2, 3, 4, 5]], [[2, 7, 6, 6]])],
    ["slice", single("slice", { starts: [0, 1, 0, 1], steps: [1, 2, 3, 2] }, [[2, 6, 7, 5]], [[2, 3, 3, 2]])],
    ["reshape", single("reshape", {}, [[2, 6]], [[3, 4]])],
    [
      "a half-precision result",
      single("exp", {}, [{ shape: [99], dtype: "bfloat16" }], [{ shape: [99], dtype: "bfloat16" }]),
    ],
    ["a float16 result", single("exp", {}, [{ shape: [99], dtype: "float16" }], [{ shape: [99], dtype: "float16" }])],
  ];
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

  const scalars = (count: number) => new Array<number[]>(count).fill([]);
  others.push(
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
  );
  for (const [name, plan] of others)
    test(name, async () => {
      expect(await compare(plan)).toBeLessThan(limit);
    });

  for (const reduction of ["none", "sum", "mean"])
    for (const dtype of ["int32", "int64"] as const)
      test(`cross-entropy, ${reduction}, ${dtype} targets`, async () => {
        const attributes = { labelSmoothing: 0.1, reduction };
        const plan = single(
          "cross_entropy",
          attributes,
          [[3, 9], integer(dtype, 3)],
          [reduction === "none" ? [3] : []],
        );
        const data = [
          contents(plan.slots[0]),
          dtype === "int32" ? Int32Array.of(8, 0, 3) : BigInt64Array.of(8n, 0n, 3n),
        ];
        const wanted = await runPlan(referenceExecutor(), plan, data);
        const got = await runPlan(cpuExecutor(), plan, data);
        expect(relativeError(got[0], wanted[0])).toBeLessThan(limit);
      });

  test("adamw", async () => {
    const plan = single("adamw", {}, [[31], [31], [31], [31], ...scalars(6)], [[31], [31], [31]]);
    const [p, g, m, v] = [0, 1, 2, 3].map((slot) => contents(plan.slots[slot]) as Float32Array);
    const settings = [0.01, 0.9, 0.999, 1e-8, 0.1, 3].map((value) => Float32Array.of(value));
    const data = [p, g, m, v.map(Math.abs), ...settings];
    const wanted = await runPlan(referenceExecutor(), plan, data);
    const got = await runPlan(cpuExecutor(), plan, data);
    for (const [i, output] of got.entries()) expect(relativeError(output, wanted[i])).toBeLessThan(limit);
  });

  test("the gradient of cross-entropy", async () => {
    for (const reduction of ["none", "sum", "mean"]) {
      const attributes = { labelSmoothing: 0.1, reduction };
      const inputs: Type[] = [[3, 9], integer("int64", 3), reduction === "none" ? [3] : []];
      const plan = single("cross_entropy_gradient", attributes, inputs, [[3, 9]]);
      const data = [contents(plan.slots[0]), BigInt64Array.of(8n, 0n, 3n), contents(plan.slots[2])];
      const wanted = await runPlan(referenceExecutor(), plan, data);
      expect(relativeError((await runPlan(cpuExecutor(), plan, data))[0], wanted[0])).toBeLessThan(limit);
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
