import { createModel, DtypeError, functional, type nn, optim, setDefaultDevice, type Tensor, tensor } from "seresnet";
import { SEBlock } from "seresnet/models";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { referenceExecutor } from "#lib/devices/reference/executor.js";
import { planMemory } from "#lib/plan/memory.js";
import type { Plan } from "#lib/plan/plan.js";
import { usableDevices } from "./support/devices.js";
import { fill, image } from "./support/weights.js";

const { checkpoint, crossEntropy } = functional;
afterAll(() => setDefaultDevice("auto"));

/** Every weight, statistic and loss of some training steps. */
async function course(model: nn.Module, x: Tensor, forward = (images: Tensor) => model.forward(images)) {
  const optimizer = new optim.SGD(optim.withoutNormDecay(model, 1e-3), { lr: 0.05, momentum: 0.9 });
  const labels = tensor(Int32Array.from({ length: x.shape[0] }, (_, i) => i % 3));
  const losses: number[] = [];
  for (let step = 0; step < 2; step++) {
    optimizer.zeroGrad();
    const loss = crossEntropy(forward(x), labels);
    loss.backward();
    optimizer.step();
    losses.push(await loss.item());
  }
  const state = Object.entries(model.stateDict());
  const values = await Promise.all(state.map(async ([name, t]) => [name, await t.data()] as const));
  return { losses, state: Object.fromEntries(values) };
}

describe.each(usableDevices.filter((name) => name !== "cuda"))("recomputation on %s changes no bit", (device) => {
  beforeAll(() => setDefaultDevice(device));
  const x = image("checkpoint", [4, 3, 10, 10]);

  it("of whole networks", async () => {
    const make = (checkpoint: boolean) =>
      fill(createModel("seresnet14_cifar", { numClasses: 3, checkpoint }), "whole").train();
    expect(await course(make(true), x)).toEqual(await course(make(false), x));
  });

  it("of one stage, of frozen norms and of blocks inside blocks, and statistics are tracked once", async () => {
    const make = () => {
      const model = fill(createModel("seresnet14_cifar", { numClasses: 3 }), "stage").train();
      for (const module of model.children().slice(0, 3)) module.eval();
      return model;
    };
    const whole = await course(make(), x);
    const model = make();
    (model.children()[4] as nn.Sequential).checkpoint = true;
    expect(await course(model, x, (images) => checkpoint((t) => model.forward(t), images))).toEqual(whole);
    expect(whole.state["layer3.0.bn1.num_batches_tracked"]).toEqual(BigInt64Array.of(2n));
  });

  it("where several inputs want gradients and a value inside was asked for", async () => {
    const run = async (through: typeof checkpoint) => {
      const [a, b] = ["a", "b"].map((name) => image(name, [2, 4, 5, 5]));
      const leaves = await Promise.all(
        [a, b].map(async (t) => tensor(await t.data(), t.shape, { requiresGrad: true })),
      );
      const block = fill(new SEBlock(4, 4, 4, { reduction: 2 }), "inputs");
      let inside: Tensor | undefined;
      const y = through(
        (left, right) => {
          inside = block.forward(left.mul(right));
          return inside.sigmoid().mul(left);
        },
        ...leaves,
      );
      const asked = await inside?.data();
      const loss = y.mul(y).sum();
      loss.backward();
      const gradients = [...leaves, ...block.parameters()].map((t) => t.grad?.data());
      return [asked, await loss.item(), await Promise.all(gradients)];
    };
    expect(await run(checkpoint)).toEqual(await run((record, ...inputs) => record(...inputs)));
  });
});

describe("recomputation", () => {
  /** What a training step's plan keeps in memory; nothing is run. */
  async function planned(name: string, checkpoint: boolean) {
    setDefaultDevice("reference");
    const plans: Plan[] = [];
    const load = vi.spyOn(referenceExecutor(), "load").mockImplementation(async (plan) => {
      plans.push(plan);
      throw new Error("not run");
    });
    const model = createModel(name, { checkpoint });
    const loss = crossEntropy(
      model.forward(tensor(new Float32Array(64 * 3 * 1024), [64, 3, 32, 32])),
      tensor(new Int32Array(64)),
    );
    loss.backward();
    new optim.SGD(model.parameters(), { momentum: 0.9 }).step();
    await expect(loss.item()).rejects.toThrow("not run");
    load.mockRestore();
    expect(plans).toHaveLength(1);
    const [{ steps }] = plans;
    return {
      bytes: planMemory(plans[0]).bytes,
      count: (op: string) => steps.filter((step) => step.op === op).length,
    };
  }

  it("takes less than half the memory of plain20_cifar at batch 64, and one more forward pass of its blocks", async () => {
    const [kept, again] = [await planned("plain20_cifar", false), await planned("plain20_cifar", true)];
    expect(again.bytes).toBeLessThan(kept.bytes / 2);
    expect([kept.count("conv2d"), again.count("conv2d")]).toEqual([19, 37]);
    expect(again.count("conv2d_weight_gradient")).toBe(kept.count("conv2d_weight_gradient"));
    const [deep, deepAgain] = [await planned("plain56_cifar", false), await planned("plain56_cifar", true)];
    expect(deepAgain.bytes).toBeLessThan(deep.bytes / 3);
  });

  it("is no part of a model's options, and refuses what is no tensor or no switch", () => {
    const model = createModel("plain20_cifar", { checkpoint: true });
    expect([model.checkpoint, "checkpoint" in model.options]).toEqual([true, false]);
    expect(() => checkpoint(() => 1 as unknown as Tensor)).toThrow(DtypeError);
    expect(() => createModel("plain20_cifar", { checkpoint: 1 as unknown as boolean })).toThrow(
      /checkpoint to be true or false/,
    );
  });
});
