import { compile, createModel, functional, nn, type Tensor, tensor } from "seresnet";
import { afterAll, describe, expect, it } from "vitest";
import { inParts } from "../dist/lib/plan/images.js";
import type { Plan, Step } from "../dist/lib/plan/plan.js";
import { relativeError } from "./support/compare.js";
import { usableDevices } from "./support/devices.js";
import { fill, image } from "./support/weights.js";

const floats = async (x: Tensor) => (await x.data()) as Float32Array;

/** Slot 0 is the input, slot 1 a constant, and each step adds one. */
function planOf(shapes: number[][], ...steps: [op: string, inputs: number[], attributes?: Step["attributes"]][]): Plan {
  return {
    slots: shapes.map((shape) => ({ shape, dtype: "float32" })),
    inputs: [0],
    constants: [1],
    variables: [],
    outputs: [shapes.length - 1],
    written: [],
    steps: steps.map(([op, inputs, attributes = {}], i) => ({ op, attributes, inputs, outputs: [i + 2] })),
  };
}

describe("a plan for several images", () => {
  const images = [6, 3, 4, 4]; // 192 bytes each
  const relu = planOf([images, [1], images], ["relu", [0]]);

  it("is one for fewer where they are computed apart", () => {
    const parts = inParts(relu, 800);
    expect(parts?.counts).toEqual([2, 2, 2]);
    expect(parts?.planFor(2).slots.map(({ shape }) => shape)).toEqual([[2, 3, 4, 4], [1], [2, 3, 4, 4]]);
    expect(inParts(relu, 1600)?.counts).toEqual([3, 3]);
    expect(inParts(planOf([[7, 3, 4, 4], [1], [7, 3, 4, 4]], ["relu", [0]]), 800)?.counts).toEqual([2, 2, 2, 1]);
    expect(inParts(relu, 1)?.counts).toEqual([1, 1, 1, 1, 1, 1]);
  });

  it("stays whole where it fits", () => {
    expect(inParts(relu, 6 * 384)).toBeUndefined();
  });

  it.each<[string, Plan]>([
    ["a mean over them", planOf([images, [1], [1, 3, 4, 4]], ["mean", [0], { dims: [0], keepDims: true }])],
    ["a softmax over them", planOf([images, [1], images], ["softmax", [0], { dim: 0 }])],
    ["a constant for each of them", planOf([images, images, images], ["add", [0, 1]])],
    ["weights made of them", planOf([images, [6, 3, 4, 4], [6, 6, 1, 1]], ["conv2d", [1, 0]])],
    ["a reshape across them", planOf([images, [1], [3, 6, 4, 4]], ["reshape", [0]])],
    ["an op nobody knows", planOf([images, [1], images], ["shuffle", [0]])],
    ["an output that is no image's", { ...relu, outputs: [1] }],
    ["a result that is kept on the device", { ...relu, written: [2] }],
    ["an input that is no batch of images", planOf([[6, 48], [1], [6, 48]], ["relu", [0]])],
  ])("stays whole with %s", (_, plan) => {
    expect(inParts(plan, 1)).toBeUndefined();
  });
});

describe.runIf(usableDevices.includes("cpu"))("on cpu", () => {
  const model = fill(createModel("seresnet18"), "parts").eval();
  const x = image("parts/x", [5, 3, 160, 160]);
  const compiled = compile(model, { device: "cpu", threads: 2 });
  afterAll(async () => (await compiled).dispose());

  it("each of many large images gets what it gets alone", async () => {
    const network = await compiled;
    const together = await floats(await network.run(x));
    const pixels = await floats(x);
    const size = pixels.length / 5;
    for (let i = 0; i < 5; i++) {
      const one = await network.run(tensor(pixels.slice(i * size, (i + 1) * size), [1, 3, 160, 160]));
      expect(relativeError(together.subarray(i * 1000, (i + 1) * 1000), await floats(one))).toBeLessThan(1e-5);
    }
  });

  it("a profile counts each kernel once, with the bytes of all images", async () => {
    const network = await compiled;
    const [five, one] = [await network.profile(x), await network.profile(image("parts/y", [1, 3, 160, 160]))];
    const bytes = ({ steps }: typeof one) => steps.reduce((sum, step) => sum + step.bytes, 0);
    expect(five.steps.length).toBeLessThan(1.5 * one.steps.length);
    expect(bytes(five)).toBeGreaterThan(2.5 * bytes(one));
    for (const [i, step] of five.steps.entries())
      if (i > 0) expect(step.start).toBeGreaterThanOrEqual(five.steps[i - 1].start);
  });

  it("an abort drops the parts that have not started, and the next run is right", async () => {
    const network = await compiled;
    const before = await floats(await network.run(x));
    const stop = new AbortController();
    const dropped = network.run(x, { signal: stop.signal });
    setImmediate(() => stop.abort(new Error("enough")));
    await expect(dropped).rejects.toThrow("enough");
    expect(await floats(await network.run(x))).toEqual(before);
  });

  it("a network that mixes its images is left whole", async () => {
    class Centred extends nn.Module {
      readonly conv = new nn.Conv2d(3, 64, { kernelSize: 3, padding: 1 });
      override forward(input: Tensor): Tensor {
        const y = this.conv.forward(input);
        return functional.sub(y, functional.mean(y, [0], { keepDims: true }));
      }
    }
    const centred = new Centred();
    const input = image("parts/z", [3, 3, 160, 160]);
    const [cpu, reference] = await Promise.all(
      (["cpu", "reference"] as const).map(async (device) =>
        floats(await (await compile(centred, { device })).run(input)),
      ),
    );
    expect(relativeError(cpu, reference)).toBeLessThan(1e-5);
  });
});
