import { compile, createModel, DisposedError, Profile, ShapeError, tensor } from "seresnet";
import { describe, expect, test } from "vitest";
import { usableDevices } from "./support/devices.js";
import { image } from "./support/weights.js";

const shape = [2, 3, 32, 32];

describe.each(usableDevices)("a profile on %s", (device) => {
  test("names every layer, and tells time, bytes and implementation of each kernel", async () => {
    const compiled = await compile(createModel("seresnet14_cifar"), { device });
    const profile = await compiled.profile(image("profile", shape));
    expect(profile).toBeInstanceOf(Profile);
    expect(profile.device).toBe(device);
    const layers = profile.steps.map(({ layer }) => layer);
    for (const layer of ["conv1", "layer1.0.conv1", "layer2.0.downsample.0", "layer3.1.conv1", "fc"])
      expect(layers, layer).toContain(layer);
    // a gate fused with the block's last convolution belongs to neither, but to the block
    expect(layers.some((layer) => layer === "layer3.1" || layer.startsWith("layer3.1.se"))).toBe(true);
    let end = 0;
    for (const { op, implementation, start, milliseconds, bytes } of profile.steps) {
      expect(op).not.toBe("");
      expect(typeof implementation).toBe("string");
      expect(start).toBeGreaterThanOrEqual(end - 1e-3); // one after the other
      expect(milliseconds).toBeGreaterThanOrEqual(0);
      expect(bytes).toBeGreaterThan(0);
      end = start + milliseconds;
    }
    // image in, weights [16, 3, 3, 3] and bias [16] in, features out; a change of layout moves the image twice
    const [conv] = profile.steps.filter(({ op, layer }) => layer === "conv1" && op.includes("conv2d"));
    expect(conv.bytes).toBeGreaterThanOrEqual(4 * (2 * 3 * 1024 + 2 * 16 * 1024));
    expect(conv.bytes).toBeLessThan(4 * (2 * 3 * 1024 + 2 * 2 * 16 * 1024));
    expect(profile.milliseconds).toBeCloseTo(end - profile.steps[0].start, 6);
    expect(profile.bytes).toBe(profile.steps.reduce((sum, { bytes }) => sum + bytes, 0));
    await compiled.dispose();
    await expect(compiled.profile(image("profile", shape))).rejects.toThrow(DisposedError);
  });

  test("leaves the answers as they are, and refuses what run refuses", async () => {
    const compiled = await compile(createModel("resnet14_cifar"), { device });
    const x = image("profile", shape);
    const before = await (await compiled.run(x)).data();
    await compiled.profile(x);
    expect(await (await compiled.run(x)).data()).toEqual(before);
    await expect(compiled.profile(tensor([1, 2], [1, 2]))).rejects.toThrow(ShapeError);
    const reason = new Error("not wanted");
    await expect(compiled.profile(x, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    await compiled.dispose();
  });
});

test("a profile as a table and as a trace", () => {
  const step = { layer: "conv1", op: "conv2d", implementation: "loops", start: 1, milliseconds: 2, bytes: 4e6 };
  const profile = new Profile("cpu", [step, { ...step, layer: "", op: "relu", start: 3.5, milliseconds: 0.5 }]);
  expect(String(profile).split("\n")).toEqual([
    "layer  operation  implementation     ms   share    MB  GB/s",
    "conv1  conv2d     loops           2.000   66.7%  4.00   2.0",
    "       relu       loops           0.500   16.7%  4.00   8.0",
    "cpu    2 kernels                  3.000  100.0%  8.00   2.7",
  ]);
  const { traceEvents } = JSON.parse(profile.chromeTrace());
  const complete = traceEvents.filter(({ ph }: { ph: string }) => ph === "X");
  expect(complete).toMatchObject([
    { name: "conv1", cat: "conv2d", ts: 1000, dur: 2000, args: { implementation: "loops", bytes: 4e6 } },
    { name: "relu", ts: 3500, dur: 500, args: { layer: "" } },
  ]);
  expect(complete.every(({ pid, tid }: { pid: number; tid: number }) => pid === 1 && tid === 1)).toBe(true);
  expect(String(new Profile("cpu", []))).toContain("0 kernels");
});
