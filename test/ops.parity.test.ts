import { describe, expect, test } from "vitest";
import type { Plan } from "#lib/plan/plan.js";
import { comparer, expectNear, integer, judgedDevices, limit, positive } from "./support/judged.js";
import { contents, planOf, single } from "./support/plans.js";

if (judgedDevices.length === 0)
  test("no device but the reference", () =>
    console.warn("ops.parity.test: LEFT OUT: no device but the reference works here"));

describe.each(judgedDevices)("small ops on %s equal the reference", (device) => {
  const compare = comparer(device);

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
        await expectNear(device, plan, data);
      });
});
