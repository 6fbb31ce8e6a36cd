import {
  createModel,
  DeviceError,
  functional,
  nn,
  StaleTensorError,
  setDefaultDevice,
  type Tensor,
  tensor,
} from "seresnet";
import { afterEach, describe, expect, it } from "vitest";
import { submit } from "#lib/lazy/flush.js";
import { inIsolation } from "#lib/lazy/recording.js";
import { usableDevices } from "./support/devices.js";

afterEach(() => setDefaultDevice("auto"));

/** A batch norm of one channel whose running mean moves by 0.1 of each batch's mean. */
function tracked() {
  const norm = new nn.BatchNorm2d(1);
  const batch = (mean: number) => tensor([mean - 1, mean + 1], [2, 1, 1, 1]);
  return { norm, batch, mean: () => (norm.running_mean as Tensor).item() };
}

describe("lazy values", () => {
  it("compute nothing until asked, and keep what was asked", async () => {
    const x = tensor([1, 2, 3]);
    const y = x.mul(2);
    const first = await y.data();
    expect([...first]).toEqual([2, 4, 6]);
    first[0] = 99; // the caller's own copy
    expect([...(await y.data())]).toEqual([2, 4, 6]);
    expect([...(await y.add(1).data())]).toEqual([3, 5, 7]);
  });

  it("give the same answer asked together, apart, or twice in one tick", async () => {
    const x = tensor([
      [1, 2],
      [3, 4],
    ]);
    const y = x.matmul(x);
    const z = y.sum();
    const [a, b, c] = await Promise.all([y.data(), z.item(), y.data()]);
    expect([...a]).toEqual([7, 10, 15, 22]);
    expect(b).toBe(54);
    expect([...c]).toEqual([...a]);
    expect(a).not.toBe(c);
  });

  it("use a value under way in a later flush", async () => {
    const y = tensor([2]).mul(3);
    const asked = y.data();
    await Promise.resolve(); // the flush is submitted, not done
    await Promise.resolve();
    const z = await y.add(1).item();
    expect(z).toBe(7);
    expect((await asked)[0]).toBe(6);
  });

  it("do not depend on how deep the graph is", async () => {
    let y = tensor([0]);
    for (let i = 0; i < 5_000; i++) y = y.add(1);
    expect(await y.item()).toBe(5_000);
  });
});

it("a value that was asked for lets go of what it was computed from, unless a gradient could need it", async () => {
  const x = tensor([1]).add(1);
  const p = new nn.Parameter([1], 1).mul(2);
  await Promise.all([x.data(), p.data()]);
  expect([x.value.node.inputs.length, p.value.node.inputs.length]).toEqual([0, 2]);
  expect(await x.add(1).item()).toBe(3);
});

describe("writes", () => {
  it("track running statistics once a forward, in program order, whoever asks", async () => {
    const { norm, batch, mean } = tracked();
    const y = norm.forward(batch(10));
    await y.data();
    await y.add(1).data();
    await y.mul(2).data();
    expect(await mean()).toBeCloseTo(1, 6);
    norm.forward(batch(10)); // nobody asks for this one
    expect(await mean()).toBeCloseTo(0.9 * 1 + 1, 6);
    expect((await (norm.num_batches_tracked as Tensor).data())[0]).toBe(2n);
  });

  it("let a read see the version current when it was recorded", async () => {
    const p = new nn.Parameter([1], 1);
    const before = p.mul(10);
    p.fill(2);
    const after = p.mul(10);
    expect(await Promise.all([before.item(), after.item()])).toEqual([10, 20]);
  });

  it("refuse a value whose variable was overwritten by a flush, and say how to ask", async () => {
    const p = new nn.Parameter([1], 1);
    p.variable.name = "scale";
    const stale = p.mul(10);
    const kept = p.mul(100);
    await kept.item();
    p.fill(2);
    expect(await p.item()).toBe(2);
    await expect(stale.item()).rejects.toThrow(StaleTensorError);
    await expect(stale.item()).rejects.toThrow(/scale was overwritten.*await data\(\)/);
    expect(await kept.item()).toBe(100);
    expect(await kept.add(1).item()).toBe(101);
  });

  it("computed from what was overwritten are refused where they are recorded, and nothing is written", async () => {
    const p = new nn.Parameter([2, 3], 1);
    const norm = new nn.BatchNorm2d(3);
    const q = new nn.Parameter([2, 3], 5);
    const [early, stale, loss] = [p.mul(10), p.mul(7), p.mul(2).sum()];
    q.variable.write(early.value); // p is overwritten in the same flush, and read before that
    p.fill(2);
    expect(await q.sum().item()).toBe(60);
    expect(() => q.variable.write(stale.value)).toThrow(StaleTensorError);
    expect(() => norm.forward(stale.reshape([2, 3, 1, 1]))).toThrow(/parameter was overwritten.*await data\(\)/);
    expect(() => loss.backward()).toThrow(StaleTensorError);
    expect(p.grad).toBeUndefined();
    expect([...(await (norm.running_mean as Tensor).data())]).toEqual([0, 0, 0]);
    expect(await (norm.num_batches_tracked as Tensor).item()).toBe(0);
    q.variable.write(p.mul(3).value);
    expect(await q.sum().item()).toBe(36);
  });

  it("reject only the stale request of a flush", async () => {
    const p = new nn.Parameter([1], 1);
    const stale = p.mul(10);
    p.fill(2);
    await p.item();
    const fine = p.mul(3).item();
    const refused = stale.item();
    await expect(refused).rejects.toThrow(StaleTensorError);
    expect(await fine).toBe(6);
  });

  it("resolve a pending written value through its variable later", async () => {
    const p = new nn.Parameter([1], 1);
    const next = p.add(1);
    p.variable.write(next.value);
    submit();
    expect(await next.mul(5).item()).toBe(10);
    expect(await p.item()).toBe(2);
  });

  it("write one variable's value to another, and swap two", async () => {
    const a = new nn.Parameter([1], 1);
    const b = new nn.Parameter([1], 2);
    const [va, vb] = [a.value, b.value];
    a.variable.write(vb);
    b.variable.write(va);
    expect(await Promise.all([a.item(), b.item()])).toEqual([2, 1]);
    a.fill(7);
    expect(await Promise.all([a.item(), b.item()])).toEqual([7, 1]);
  });

  it.each(usableDevices)("are read before and after their flush in one graph, on %s", async (device) => {
    setDefaultDevice(device);
    const filled = new nn.Parameter([2], 1).fill(3);
    const before = filled.mul(2);
    await filled.data();
    expect([...(await before.add(filled.mul(5)).data())]).toEqual([21, 21]);
  });

  it("make no plan for those that take the same from the host", async () => {
    const weight = new nn.Parameter([2], 2);
    weight.mul(weight).sum().backward();
    const early = (weight.grad as Tensor).mul(7);
    await (weight.grad as Tensor).data(); // what `early` reads is kept; what `late` reads is on the device
    const late = (weight.grad as Tensor).mul(7);
    expect([...(await early.data()), ...(await late.data())]).toEqual([28, 28, 28, 28]);
  });

  it("are dropped while recording in isolation", async () => {
    const { norm, batch, mean } = tracked();
    inIsolation(() => norm.forward(batch(10)), { training: true });
    expect(await mean()).toBe(0);
  });

  it("neither grow nor leak in a loop that flushes without waiting", async () => {
    const { norm, batch, mean } = tracked();
    for (let i = 0; i < 200; i++) {
      norm.forward(batch(10));
      submit();
    }
    expect(await mean()).toBeCloseTo(10 * (1 - 0.9 ** 200), 4);
  });
});

describe("a flush that fails", () => {
  it("changes no variable, rejects those who wait, and leaves everything usable", async () => {
    const p = new nn.Parameter([1], 1);
    const logits = tensor([[1, 2]]);
    const loss = functional.crossEntropy(logits, tensor(new Int32Array([5])));
    const doomed = p.add(loss);
    p.variable.write(doomed.value);
    await expect(p.item()).rejects.toThrow(/5/);
    expect(await p.item()).toBe(1);
    p.variable.write(p.add(1).value);
    expect(await p.item()).toBe(2);
  });

  it("for want of a device leaves the writes waiting for one", async () => {
    const p = new nn.Parameter([1], 1);
    setDefaultDevice("auto");
    process.env.SERESNET_DEVICE = "abacus";
    p.fill(2);
    await expect(p.mul(1).item()).rejects.toThrow(DeviceError);
    delete process.env.SERESNET_DEVICE;
    expect(await p.item()).toBe(2);
  });

  it("takes the flushes that read its writes with it, and only those", async () => {
    const p = new nn.Parameter([1], 1);
    const q = new nn.Parameter([1], 5);
    p.variable.write(p.add(functional.crossEntropy(tensor([[1, 2]]), tensor(new Int32Array([9])))).value);
    submit();
    const dependent = p.mul(2).item();
    await expect(dependent).rejects.toThrow(DeviceError);
    expect(await q.mul(2).item()).toBe(10);
    expect(await p.item()).toBe(1);
  });
});

it("the same seed gives the same weights, another seed others", async () => {
  const weights = async (seed: number) => [...(await createModel("resnet14_cifar", { seed }).parameters()[3].data())];
  expect(await weights(3)).toEqual(await weights(3));
  expect(await weights(3)).not.toEqual(await weights(4));
});
