import { compile, createModel, nn, SeresnetError, setDefaultDevice, summary, type Tensor, tensor } from "seresnet";
import { afterAll, beforeAll, expect, test } from "vitest";
import { collect } from "#lib/devices/reference/garbage.js";

beforeAll(() => setDefaultDevice("reference"));
afterAll(() => setDefaultDevice("auto"));

const network = () =>
  new nn.Sequential(new nn.Conv2d(1, 4, { kernelSize: 3 }), new nn.BatchNorm2d(4), new nn.AdaptiveAvgPool2d(1)).eval();
const images = (size: number) => tensor(new Float32Array(size * size).fill(0.5), [1, 1, size, size]);

test("more shapes at once than plans are kept: every run ends well", async () => {
  await using compiled = await compile(network(), { device: "reference" });
  const outputs = await Promise.all(Array.from({ length: 20 }, (_, i) => compiled.run(images(i + 4))));
  const first = await outputs[0].data();
  for (const output of outputs) expect(output.shape).toEqual([1, 4, 1, 1]);
  for (const output of outputs)
    for (const [c, v] of (await output.data()).entries()) expect(v).toBeCloseTo(Number(first[c]), 5);
});

test.each([undefined, [1, 1, 8, 8]])("dispose waits for the runs under way (ready for %o)", async (inputShape) => {
  const compiled = await compile(network(), { device: "reference", inputShape });
  const ended: number[] = [];
  const runs = [0, 1].map((i) => compiled.run(images(8)).then(() => ended.push(i)));
  await compiled.dispose();
  expect(ended).toEqual([0, 1]);
  await Promise.all(runs);
  await compiled.dispose();
  await expect(compiled.run(images(8))).rejects.toThrow(/disposed/);
});

test("plans of many shapes do not pile up in the worker threads", async () => {
  await using compiled = await compile(new nn.AdaptiveAvgPool2d(1), { device: "reference", threads: 1 });
  const before = process.memoryUsage().arrayBuffers;
  for (let i = 0; i < 300; i++) await compiled.run(images(700 + i));
  const held = () => {
    collect("full"); // what this thread holds is V8's to free when it likes, and it does so on a thread of its own
    return process.memoryUsage().arrayBuffers - before;
  };
  // 300 plans of 2 to 4 MB: without collecting in the workers most of them stay
  await expect.poll(held, { timeout: 10_000 }).toBeLessThan(300e6);
});

const model = createModel("resnet14_cifar");
const untyped = (value: unknown) => value as never;
const circular: Record<string, unknown> = {};
circular.self = circular;

test.each<[string, () => unknown]>([
  ["a dtype named like a property of every object", () => tensor([1], [1], { dtype: untyped("toString") })],
  ["a cast to such a dtype", () => tensor([1]).cast(untyped("constructor"))],
  ["dimensions that are a string", () => tensor([1]).sum(untyped("all"))],
  ["dimensions that are null", () => tensor([1]).softmax(untyped(null))],
  ["a circular stride", () => new nn.Conv2d(1, 1, { kernelSize: 1, stride: untyped(circular) })],
  ["a bigint stride", () => new nn.Conv2d(1, 1, { kernelSize: 1, stride: untyped(1n) })],
  ["Conv2d without options", () => new nn.Conv2d(1, 1, untyped(undefined))],
  ["MaxPool2d without options", () => new nn.MaxPool2d(untyped(undefined))],
  ["AvgPool2d without a kernel", () => new nn.AvgPool2d(untyped({}))],
  ["AdaptiveAvgPool2d of a symbol", () => new nn.AdaptiveAvgPool2d(untyped(Symbol("1")))],
  ["BatchNorm2d with null", () => new nn.BatchNorm2d(1, untyped(null))],
  ["Sequential of null", () => new nn.Sequential(untyped(null))],
  ["a seed that is no number", () => nn.manualSeed(untyped("today"))],
  ["a device that is a bigint", () => setDefaultDevice(untyped(1n))],
  ["summary of nothing", () => summary(untyped(undefined), [1, 3, 8, 8])],
  ["summary for a string", () => summary(model, untyped("1,3,8,8"))],
  ["compile of a plain object", () => compile(untyped({}))],
  ["compile with null", () => compile(model, untyped(null))],
  ["compile for a shape with a zero", () => compile(model, { inputShape: [1, 3, 0, 8] })],
  ["compile with a million threads", () => compile(model, { threads: 1e6 })],
  [
    "a run with a signal of another kind",
    async () => (await compile(network())).run(images(8), { signal: untyped({}) }),
  ],
  ["a run of undefined", async () => (await compile(network())).run(untyped(undefined) as Tensor)],
])("%s is a typed error of one line", async (_, call) => {
  const error = await (async () => call())().catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(SeresnetError);
  expect((error as Error).message).toMatch(/^[^\n]+: expected [^\n]+, got [^\n]+$/);
});
