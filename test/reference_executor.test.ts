import { spawnSync } from "node:child_process";
import { resolve } from "node:path";
import type { Worker } from "node:worker_threads";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { LoadedPlan } from "#lib/devices/executor.js";
import { referenceExecutor } from "#lib/devices/reference/executor.js";
import { type HostArray, hostBytes } from "#lib/dtype.js";
import { ArgumentError, DeviceError, DisposedError, DtypeError, MemoryError, ShapeError } from "#lib/errors.js";
import { planMemory } from "#lib/plan/memory.js";
import type { Plan, Slot, Step } from "#lib/plan/plan.js";
import { sizeOf } from "#lib/shape.js";

const workers: Worker[] = [];
process.on("worker", (worker) => workers.push(worker));

const executor = referenceExecutor();
const nothing = { constants: [], variables: [], outputs: [], written: [] };

function step(op: string, inputs: number[], output: number, attributes: Step["attributes"] = {}): Step {
  return { op, attributes, inputs, outputs: [output] };
}

function floats(...shapes: number[][]): Slot[] {
  return shapes.map((shape) => ({ shape, dtype: "float32" }));
}

const addOne: Plan = {
  ...nothing,
  slots: floats([4], [], [4]),
  inputs: [0],
  constants: [1],
  outputs: [2],
  steps: [step("add", [0, 1], 2)],
};

const conv = { stride: [1, 1], padding: [1, 1], dilation: [1, 1], groups: 1 };

/** A plan that keeps the threads busy for a while. */
function slowPlan(repeats: number): Plan {
  const slots = floats([64, 64, 3, 3], ...new Array<number[]>(repeats + 1).fill([1, 64, 56, 56]));
  const steps = Array.from({ length: repeats }, (_, i) => step("conv2d", [i + 1, 0], i + 2, conv));
  return { ...nothing, slots, inputs: [1], constants: [0], outputs: [repeats + 1], steps };
}

async function loadSlow(repeats = 4): Promise<{ plan: LoadedPlan; input: HostArray }> {
  return {
    plan: await executor.load(slowPlan(repeats), [new Float32Array(64 * 64 * 9)]),
    input: new Float32Array(64 * 3136),
  };
}

const ones = (length = 4) => new Float32Array(length).fill(1);

describe("planMemory", () => {
  test("a chain of equal slots needs two places", () => {
    const slots = floats(...new Array<number[]>(11).fill([16]));
    const steps = Array.from({ length: 10 }, (_, i) => step("relu", [i], i + 1));
    expect(planMemory({ ...nothing, slots, inputs: [0], outputs: [10], steps }).bytes).toBe(128);
  });

  test("inputs and outputs that must last keep their place; a reshape shares its input's", () => {
    const slots = floats([16], [4, 4], [16], [16], [16]);
    const steps = [step("reshape", [0], 1), step("relu", [0], 2), step("relu", [2], 3), step("relu", [3], 4)];
    const memory = planMemory({ ...nothing, slots, inputs: [0], outputs: [1, 4], steps });
    expect(memory.roots).toEqual([0, 0, 2, 3, 4]);
    expect(memory.offsets[1]).toBe(memory.offsets[0]);
    expect(new Set([memory.offsets[0], memory.offsets[3], memory.offsets[4]]).size).toBe(3);
  });

  test("constants, variables and what reshapes them take no place", () => {
    const steps = [step("reshape", [0], 2), step("reshape", [1], 3)];
    const memory = planMemory({
      ...nothing,
      slots: floats([4], [4], [2, 2], [2, 2]),
      inputs: [],
      constants: [0],
      variables: [1],
      steps,
    });
    expect(memory).toEqual({ roots: [0, 1, 0, 1], offsets: [-1, -1, -1, -1], bytes: 0 });
  });

  test("no two slots that live at the same time overlap, in any plan", () => {
    const size = fc.integer({ min: 0, max: 70 });
    const plans = fc.record({
      sizes: fc.array(size, { minLength: 2, maxLength: 30 }),
      picks: fc.array(fc.tuple(fc.nat(), fc.nat()), { minLength: 30, maxLength: 30 }),
      outputs: fc.array(fc.nat(), { maxLength: 4 }),
    });
    fc.assert(
      fc.property(plans, ({ sizes, picks, outputs }) => {
        const slots = floats(...sizes.map((extent) => [extent]));
        const steps = sizes.slice(1).map((_, i) =>
          step(
            "add",
            picks[i].map((pick) => pick % (i + 1)),
            i + 1,
          ),
        );
        const plan: Plan = {
          ...nothing,
          slots,
          inputs: [0],
          outputs: outputs.map((slot) => slot % sizes.length),
          steps,
        };
        const { offsets, bytes } = planMemory(plan);
        const born = (slot: number) => slot - 1;
        const dies = (slot: number) =>
          plan.outputs.includes(slot)
            ? steps.length
            : Math.max(born(slot), ...steps.map(({ inputs }, time) => (inputs.includes(slot) ? time : -1)));
        const end = (slot: number) => offsets[slot] + sizeOf(slots[slot].shape) * hostBytes("float32");
        for (let a = 0; a < sizes.length; a++) {
          expect(offsets[a]).toBeGreaterThanOrEqual(0);
          expect(end(a)).toBeLessThanOrEqual(bytes);
          for (let b = 0; b < a; b++)
            if (born(a) <= dies(b) && born(b) <= dies(a) && sizes[a] > 0 && sizes[b] > 0)
              expect(end(a) <= offsets[b] || end(b) <= offsets[a]).toBe(true);
        }
      }),
    );
  });
});

describe("reference executor", () => {
  test("runs a loaded plan again and again, and hands out fresh arrays", async () => {
    const plan = await executor.load(addOne, [ones(1)]);
    const first = await plan.run({ inputs: [Float32Array.of(1, 2, 3, 4)], variables: [] });
    const second = await plan.run({ inputs: [Float32Array.of(5, 6, 7, 8)], variables: [] });
    expect(first.outputs).toEqual([Float32Array.of(2, 3, 4, 5)]);
    expect(second.outputs).toEqual([Float32Array.of(6, 7, 8, 9)]);
    expect(first.outputs[0].buffer).toBeInstanceOf(ArrayBuffer);
    await plan.dispose();
  });

  test("variables come from buffers, written slots become new ones, and old ones stay as they were", async () => {
    const plan = await executor.load(
      {
        ...nothing,
        slots: floats([2], [2], [2]),
        inputs: [0],
        variables: [1],
        outputs: [2],
        written: [2],
        steps: [step("add", [0, 1], 2)],
      },
      [],
    );
    const start = await executor.upload(Float32Array.of(10, 20), "float32");
    const once = await plan.run({ inputs: [ones(2)], variables: [start] });
    const twice = await plan.run({ inputs: [ones(2)], variables: once.written });
    expect(await start.read()).toEqual(Float32Array.of(10, 20));
    expect(await once.written[0].read()).toEqual(Float32Array.of(11, 21));
    expect(await twice.written[0].read()).toEqual(Float32Array.of(12, 22));
    expect(twice.outputs).toEqual([Float32Array.of(12, 22)]);
    await plan.dispose();
  });

  test("an input, a constant, a variable and their reshapes may be outputs and written", async () => {
    const slots = floats([4], [4], [4], [2, 2], [2, 2], [2, 2]);
    const steps = [0, 1, 2].map((slot) => step("reshape", [slot], slot + 3));
    const all = [0, 1, 2, 3, 4, 5];
    const plan = await executor.load(
      { slots, inputs: [0], constants: [1], variables: [2], outputs: all, written: all, steps },
      [Float32Array.of(5, 6, 7, 8)],
    );
    const variable = await executor.upload(Float32Array.of(9, 10, 11, 12), "float32");
    const { outputs, written } = await plan.run({ inputs: [Float32Array.of(1, 2, 3, 4)], variables: [variable] });
    const want = [0, 1, 2, 0, 1, 2].map((i) => Float32Array.of(4 * i + 1, 4 * i + 2, 4 * i + 3, 4 * i + 4));
    expect(outputs).toEqual(want);
    expect(await Promise.all(written.map((buffer) => buffer.read()))).toEqual(want);
    await plan.dispose();
  });

  test("uploads are copied and rounded to their dtype", async () => {
    const data = Float32Array.of(1.00390625, 2);
    const buffer = await executor.upload(data, "bfloat16");
    data[1] = 3;
    expect(await buffer.read()).toEqual(Float32Array.of(1, 2));
  });

  test("a bad target rejects with ArgumentError on any number of threads, and the executor stays usable", async () => {
    for (const threads of [1, 2, 3]) {
      const slots: Slot[] = [...floats([2, 5]), { shape: [2], dtype: "int32" }, ...floats([], [])];
      const steps = [step("cross_entropy", [0, 1], 2, { labelSmoothing: 0, reduction: "mean" }), step("relu", [2], 3)];
      const plan = await executor.load({ ...nothing, slots, inputs: [0, 1], outputs: [3], steps }, [], { threads });
      const run = (target: number) =>
        plan.run({ inputs: [new Float32Array(10), Int32Array.of(1, target)], variables: [] });
      await expect(run(5)).rejects.toThrow(
        new ArgumentError("crossEntropy: expected targets from 0 to 4, got 5 at position 1"),
      );
      await expect(run(-1)).rejects.toBeInstanceOf(ArgumentError);
      expect((await run(4)).outputs[0][0]).toBeCloseTo(Math.log(5), 6);
      await plan.dispose();
    }
  });

  test("a kernel that fails for another reason rejects with DeviceError", async () => {
    const broken = {
      ...nothing,
      slots: floats([1, 1, 2, 2], [1, 1, 2, 2]),
      inputs: [0],
      outputs: [1],
      steps: [step("conv2d", [0], 1)],
    };
    const plan = await executor.load(broken, []);
    const run = plan.run({ inputs: [ones()], variables: [] });
    await expect(run).rejects.toThrow(/^reference: conv2d failed: /);
    await expect(run).rejects.toBeInstanceOf(DeviceError);
    await plan.dispose();
  });

  test("what does not fit the plan is refused", async () => {
    const unknown = { ...addOne, steps: [step("frobnicate", [0, 1], 2)] };
    await expect(executor.load(unknown, [ones(1)])).rejects.toThrow(
      "reference: expected ops it has a kernel for, got frobnicate",
    );
    await expect(executor.load(addOne, [])).rejects.toThrow(ArgumentError);
    await expect(executor.load(addOne, [ones(2)])).rejects.toThrow(ShapeError);
    await expect(executor.load(addOne, [ones(1)], { threads: 0 })).rejects.toThrow(ArgumentError);
    const plan = await executor.load(addOne, [ones(1)]);
    await expect(plan.run({ inputs: [], variables: [] })).rejects.toThrow(ArgumentError);
    await expect(plan.run({ inputs: [ones(5)], variables: [] })).rejects.toThrow(ShapeError);
    await expect(plan.run({ inputs: [new Int32Array(4)], variables: [] })).rejects.toThrow(DtypeError);
    expect((await plan.run({ inputs: [ones()], variables: [] })).outputs).toEqual([new Float32Array(4).fill(2)]);
    await plan.dispose();
  });

  test("memory that cannot be had is a MemoryError that names the bytes", async () => {
    const huge = { ...nothing, slots: floats([2 ** 50]), inputs: [0], steps: [] };
    await expect(executor.load(huge, [])).rejects.toThrow(
      new MemoryError(`reference: ${2 ** 52} bytes of memory could not be allocated`),
    );
  });

  test("runs are first in, first out, over all plans; a queued run can be dropped, one under way cannot", async () => {
    const { plan: slow, input } = await loadSlow();
    const quick = await executor.load(addOne, [ones(1)]);
    const order: string[] = [];
    const [late, early] = [new AbortController(), new AbortController()];
    const reason = new Error("no longer wanted");
    const first = slow.run({ inputs: [input], variables: [], signal: late.signal }).then(() => order.push("first"));
    const dropped = quick.run({ inputs: [ones()], variables: [], signal: early.signal });
    const last = quick.run({ inputs: [ones()], variables: [] }).then(() => order.push("last"));
    early.abort(reason);
    late.abort(reason);
    await expect(dropped).rejects.toBe(reason);
    expect(order).toEqual([]);
    await Promise.all([first, last]);
    expect(order).toEqual(["first", "last"]);
    await expect(quick.run({ inputs: [ones()], variables: [], signal: AbortSignal.abort(reason) })).rejects.toBe(
      reason,
    );
    await Promise.all([slow.dispose(), quick.dispose()]);
  });

  test("dispose waits for runs, and refuses later ones", async () => {
    const { plan, input } = await loadSlow(1);
    let ended = 0;
    const runs = [1, 2].map(() => plan.run({ inputs: [input], variables: [] }).then(() => ended++));
    await plan.dispose();
    expect(ended).toBe(2);
    await expect(plan.run({ inputs: [input], variables: [] })).rejects.toThrow(DisposedError);
    await plan.dispose();
    await Promise.all(runs);
  });

  test("the event loop turns while a plan runs", async () => {
    const { plan, input } = await loadSlow(12);
    const start = performance.now();
    let last = start;
    let longest = 0;
    const timer = setInterval(() => {
      longest = Math.max(longest, performance.now() - last);
      last = performance.now();
    }, 2);
    await plan.run({ inputs: [input], variables: [] });
    longest = Math.max(longest, performance.now() - last);
    clearInterval(timer);
    expect(longest).toBeLessThan((performance.now() - start) / 3);
    await plan.dispose();
  });

  test("a lost worker rejects the run with DeviceError; later runs get new workers", async () => {
    const { plan, input } = await loadSlow();
    const before = workers.length;
    const run = plan.run({ inputs: [input], variables: [] });
    void workers.at(-1)?.terminate();
    await expect(run).rejects.toThrow(/^reference: a worker thread was lost/);
    await expect(run).rejects.toBeInstanceOf(DeviceError);
    expect((await plan.run({ inputs: [input], variables: [] })).outputs[0]).toEqual(new Float32Array(64 * 3136));
    expect(workers.length).toBeGreaterThan(before);
    await plan.dispose();
  });

  test("a program ends by itself after its last run, and not before", () => {
    const file = resolve("dist/lib/devices/reference/executor.js");
    const program = `
      const { referenceExecutor } = require(${JSON.stringify(file)});
      const plan = ${JSON.stringify(slowPlan(2))};
      referenceExecutor().load(plan, [new Float32Array(64 * 64 * 9)])
        .then((loaded) => loaded.run({ inputs: [new Float32Array(64 * 3136)], variables: [] }))
        .then(({ outputs }) => console.log(outputs[0].length));`;
    const { status, stdout } = spawnSync(process.execPath, ["-e", program], { encoding: "utf8", timeout: 60_000 });
    expect({ status, stdout }).toEqual({ status: 0, stdout: `${64 * 3136}\n` });
  });
});
