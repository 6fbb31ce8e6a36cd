import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { amp, functional, nn, optim, setDefaultDevice, type Tensor, tensor } from "seresnet";
import { SEBlock } from "seresnet/models";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { relativeError } from "./support/compare.js";
import { usableDevices } from "./support/devices.js";
import { fill, image } from "./support/weights.js";

interface Trajectory {
  readonly losses: readonly number[];
  readonly state: Readonly<Record<string, readonly number[]>>;
  readonly evalLogits: readonly number[];
}
const names = ["SGD", "SGD, clipped", "SGD in bfloat16"] as const;
// six training steps of a small network of SE blocks, as PyTorch makes them: test/fixtures/trajectory.py wrote it
const golden = JSON.parse(readFileSync(resolve("test/fixtures/trajectory.json"), "utf8")) as Record<
  (typeof names)[number],
  Trajectory
>;
const limits = { SGD: 1e-4, "SGD, clipped": 1e-4, "SGD in bfloat16": 2e-2 };

class Net extends nn.Module {
  readonly body = new nn.Sequential(new SEBlock(3, 6, 8, { reduction: 4 }), new SEBlock(8, 8, 12, { reduction: 4 }));
  readonly fc = new nn.Linear(12, 4);

  override forward(x: Tensor): Tensor {
    return this.fc.forward(this.body.forward(x).mean([2, 3]));
  }
}

afterAll(() => setDefaultDevice("auto"));

describe.each(usableDevices)("six steps on %s follow PyTorch's", (device) => {
  beforeAll(() => setDefaultDevice(device));

  it.each(names)("%s", async (name) => {
    const net = fill(new Net(), "trajectory").train();
    const options = { lr: 0.05, momentum: 0.9, weightDecay: 1e-4, nesterov: true };
    const optimizer = new optim.SGD(net.parameters(), options);
    const shape = [8, 3, 9, 7];
    const labels = tensor(Int32Array.from({ length: 8 }, (_, i) => i % 4));
    const brightness = labels.cast("float32").div(4).reshape([8, 1, 1, 1]);
    const losses: number[] = [];
    for (let k = 0; k < 6; k++) {
      optimizer.zeroGrad();
      const loss = amp.autocast(name === "SGD in bfloat16" ? "bfloat16" : "float32", () => {
        const logits = net.forward(image(`trajectory/${k % 2}`, shape).add(brightness));
        return functional.crossEntropy(logits, labels, { labelSmoothing: 0.1 });
      });
      loss.backward();
      if (name === "SGD, clipped") optim.clipGradNorm(net.parameters(), 0.5);
      optimizer.step();
      losses.push(await loss.item());
    }
    const want = golden[name];
    expect(relativeError(losses, want.losses)).toBeLessThan(limits[name]);
    const state = net.stateDict();
    for (const [key, values] of Object.entries(want.state))
      expect(relativeError(await state[key].data(), values), key).toBeLessThan(limits[name]);
    const logits = await net.eval().forward(image("trajectory/0", shape)).data();
    expect(relativeError(logits, want.evalLogits)).toBeLessThan(limits[name]);
  });
});
