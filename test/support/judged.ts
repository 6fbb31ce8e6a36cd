import { expect } from "vitest";
import type { DeviceName } from "#lib/devices/executor.js";
import { referenceExecutor } from "#lib/devices/reference/executor.js";
import type { HostArray } from "#lib/dtype.js";
import type { Plan } from "#lib/plan/plan.js";
import { relativeError } from "./compare.js";
import { executorOf, usableDevices } from "./devices.js";
import { contents, conv, type Line, runPlan, type Type, withConstants } from "./plans.js";

/** The devices of this machine that the reference judges. */
export const judgedDevices = usableDevices.filter((device) => device !== "reference");

/** What an op may be off by. */
export const limit = 1e-5;

/**
 * Runs `ours` on a device, with inputs and with constants, on one thread and on two, and `theirs` on the reference; returns
 * the largest relative error of the outputs.
 */
export const comparer =
  (device: DeviceName) =>
  async (ours: Plan, theirs: Plan = ours): Promise<number> => {
    const data = theirs.inputs.map((slot) => contents(theirs.slots[slot]));
    const wanted = await runPlan(referenceExecutor(), theirs, data);
    const errors: number[] = [];
    for (const plan of [ours, withConstants(ours)])
      for (const threads of [1, 2]) {
        const got = await runPlan(executorOf(device), plan, data, { threads });
        errors.push(...got.map((output, i) => relativeError(output, wanted[i])));
      }
    return Math.max(...errors);
  };

/** Expects a device's answer for this data to be as near to the reference's as an op's must be. */
export async function expectNear(device: DeviceName, plan: Plan, data: readonly HostArray[]) {
  const wanted = await runPlan(referenceExecutor(), plan, data);
  const got = await runPlan(executorOf(device), plan, data);
  expect(got).toHaveLength(wanted.length);
  for (const [i, output] of got.entries()) expect(relativeError(output, wanted[i])).toBeLessThan(limit);
}

export interface ConvCase {
  name: string;
  x: number[];
  w: number[];
  attributes: ReturnType<typeof conv>;
}

/** Convolutions of every kind. */
export const convs: ConvCase[] = [
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

/** The shape of what a convolution makes. */
export const outputOf = ({ x, w, attributes: { stride, padding, dilation } }: ConvCase) => [
  x[0],
  w[0],
  ...[0, 1].map((i) => Math.floor((x[2 + i] + 2 * padding[i] - dilation[i] * (w[2 + i] - 1) - 1) / stride[i]) + 1),
];

/** A batch norm's attributes. */
export const norm = { eps: 1e-5 };
/** A line whose result is positive: a variance. */
export const positive = (from: number, shape: number[]): Line[] => [{ op: "exp", from: [from], to: [shape] }];

/** A pooling's attributes. */
export const pool = (kernel: number, stride: number, padding: number, ceilMode = false) => ({
  kernelSize: [kernel, kernel],
  stride: [stride, stride],
  padding: [padding, padding],
  ceilMode,
});

/** A slot of integers. */
export const integer = (dtype: "int32" | "int64" | "uint8", ...shape: number[]): Type => ({ shape, dtype });
