import { spawnSync } from "node:child_process";
import { resolve } from "node:path";
import { describe, expect, test } from "vitest";
import { nativeRuntime, nativeVersions } from "#lib/devices/native/addon.js";

const built = nativeVersions()?.onednn != null;
if (!built) test("without oneDNN there is no native memory", () => expect(nativeVersions()?.onednn ?? null).toBeNull());

const executorFile = JSON.stringify(resolve("dist/lib/devices/native/cpu.js"));

/** A plan of `repeats` 3x3 convolutions, and its inputs: some tens of milliseconds of work. */
const slow = `
  const { cpuExecutor } = require(${executorFile});
  const slot = (...shape) => ({ shape, dtype: "float32" });
  const conv = { stride: [1, 1], padding: [1, 1], dilation: [1, 1], groups: 1 };
  function slowPlan(repeats) {
    const slots = [slot(64, 64, 3, 3), ...Array.from({ length: repeats + 1 }, () => slot(1, 64, 56, 56))];
    const steps = Array.from({ length: repeats }, (_, i) => (
      { op: "conv2d", attributes: conv, inputs: [i + 1, 0], outputs: [i + 2] }));
    return { slots, inputs: [1], constants: [0], variables: [], outputs: [repeats + 1], written: [], steps };
  }
  const weights = new Float32Array(64 * 64 * 9).fill(0.001);
  const inputs = [new Float32Array(64 * 3136).fill(1)];`;

/** Runs a program in a process of its own, which must end by itself with exit code 0; returns what it printed. */
function runProgram(program: string, ...flags: string[]): string {
  const child = spawnSync(process.execPath, [...flags, "-e", program], { encoding: "utf8", timeout: 110_000 });
  expect({ signal: child.signal, status: child.status, stderr: child.stderr }).toEqual({
    signal: null,
    status: 0,
    stderr: "",
  });
  return child.stdout;
}

describe.runIf(built)("process safety", () => {
  test("several workers at once give one answer", () => {
    const program = `
      const { Worker } = require("node:worker_threads");
      const source = ${JSON.stringify(`${slow}
        const { parentPort } = require("node:worker_threads");
        cpuExecutor().load(slowPlan(3), [weights], { threads: 1 }).then(async (plan) => {
          let sum = 0;
          for (let i = 0; i < 5; i++) for (const v of (await plan.run({ inputs, variables: [] })).outputs[0]) sum += v;
          parentPort.postMessage(sum);
        });`)};
      Promise.all([1, 2, 3, 4].map(() => new Promise((resolve, reject) =>
        new Worker(source, { eval: true }).once("message", resolve).once("error", reject))))
        .then((sums) => console.log(new Set(sums).size, sums[0] > 0));`;
    expect(runProgram(program)).toBe("1 true\n");
  }, 120_000);

  test.runIf(process.platform === "linux")(
    "where the address space ends, a program is told so and goes on",
    () => {
      const program = `
        const { compile, createModel, tensor } = require("seresnet");
        (async () => {
          const told = [];
          const kind = (error) => told.push(error.code);
          const model = createModel("resnet18");
          for (const batch of [1, 2, 6]) {
            const x = tensor(new Float32Array(batch * 3 * 96 * 96), [batch, 3, 96, 96]);
            await compile(model, { device: "cpu" }).then((compiled) => compiled.run(x)).then((y) => y.data()).then(() => told.push("ok"), kind);
          }
          console.log(told.join(" "));
        })();`;
      const size = Number(
        runProgram(`require("seresnet").listDevices();
        console.log(/VmSize:\\s*(\\d+)/.exec(require("fs").readFileSync("/proc/self/status", "utf8"))[1])`),
      );
      let refused = 0;
      for (let more = 170_000; more <= 420_000; more += 25_000) {
        const limited = `ulimit -v ${size + more}; exec "$0" -e "$1"`;
        const child = spawnSync("sh", ["-c", limited, process.execPath, program], { encoding: "utf8" });
        const { status, signal, stderr, stdout } = child;
        // V8 ends a process that has no memory for JavaScript
        if (/heap out of memory|V8|Fatal (process|JavaScript)/.test(stderr)) continue;
        expect({ status, signal, stderr, more }).toEqual({ status: 0, signal: null, stderr: "", more });
        for (const told of stdout.trim().split(" ")) {
          expect(["ok", "ERR_MEMORY"]).toContain(told);
          if (told === "ERR_MEMORY") refused++;
        }
      }
      expect(refused).toBeGreaterThan(0);
    },
    300_000,
  );

  test("a program ends by itself after its last run, and not before", () => {
    const program = `${slow}
      cpuExecutor().load(slowPlan(20), [weights])
        .then((plan) => plan.run({ inputs, variables: [] }))
        .then(({ outputs }) => console.log(outputs[0].length));`;
    expect(runProgram(program)).toBe(`${64 * 3136}\n`);
  });

  test("threads that the system does not start are an error, and the process lives on", (context) => {
    const program = `${slow}
      (async () => {
        const why = await cpuExecutor().load(slowPlan(2), [weights], { threads: 64 }).catch((error) => error);
        const plan = await cpuExecutor().load(slowPlan(2), [weights], { threads: 2 });
        const { outputs } = await plan.run({ inputs, variables: [] });
        console.log(why.name, why.message.split(",")[0], outputs[0].length);
      })();`;
    // a user of its own, so that the limit counts the threads of this process alone; only root can become one
    const child = spawnSync("bash", ["-c", 'ulimit -u 40 && exec "$0" -e "$1"', process.execPath, program], {
      encoding: "utf8",
      timeout: 60_000,
      uid: process.getuid?.() === 0 ? 54_321 : undefined,
    });
    if (process.getuid?.() !== 0 || child.error !== undefined || /EACCES|EPERM|Cannot find/.test(child.stderr)) {
      console.warn("native_memory.test: no user of its own for a limit on threads; that limit is not tested");
      return context.skip();
    }
    const want = `DeviceError cpu: expected to start 64 threads ${64 * 3136}\n`;
    expect({ signal: child.signal, stdout: child.stdout, stderr: child.stderr }).toEqual({
      signal: null,
      stdout: want,
      stderr: "",
    });
  });

  test("large results are JavaScript's own: changing one changes no other and no buffer", () => {
    const program = `${slow}
      (async () => {
        const n = 2 ** 20;
        const shape = { shape: [n], dtype: "float32" };
        const steps = [{ op: "relu", attributes: {}, inputs: [0], outputs: [1] }];
        const plan = { slots: [shape, shape], inputs: [0], constants: [], variables: [], outputs: [1, 1, 0], written: [1, 1], steps };
        const input = new Float32Array(n).fill(1);
        const { outputs, written } = await (await cpuExecutor().load(plan, [])).run({ inputs: [input], variables: [] });
        const all = [...outputs, ...await Promise.all([...written, written[0]].map((buffer) => buffer.read())), input];
        all.forEach((array, i) => array.fill(10 + i));
        all.push(await written[0].read());
        console.log(all.map((array) => array[0] + array[n - 1]).join(" "), all.every(({ length }) => length === n));
      })();`;
    expect(runProgram(program)).toBe("20 22 24 26 28 30 32 2 true\n");
  });

  test("process.exit drops the runs in flight: it does not wait the minutes they would take", () => {
    const program = `${slow}
      cpuExecutor().load(slowPlan(2000), [weights]).then((plan) => {
        for (let i = 0; i < 300; i++) plan.run({ inputs, variables: [] });
        setTimeout(() => process.exit(0), 20);
      });`;
    expect(runProgram(program)).toBe("");
  }, 120_000);

  test("plans and buffers are freed: disposed or let go of, memory stays flat, and V8 knows of it", () => {
    const program = `${slow}
      (async () => {
        const cpu = cpuExecutor();
        const megabytes = () => process.memoryUsage.rss() / 2 ** 20;
        const round = async (dispose) => {
          const plan = await cpu.load({ ...slowPlan(2), written: [3] }, [weights]);
          const { written } = await plan.run({ inputs, variables: [] });
          await written[0].read();
          if (dispose) await plan.dispose();
        };
        for (let i = 0; i < 40; i++) { await round(i % 2 === 0); if (i % 8 === 7) gc(); }
        gc();
        await new Promise(setImmediate);
        const before = megabytes();
        for (let i = 0; i < 200; i++) { await round(i % 2 === 0); if (i % 8 === 7) gc(); }
        gc();
        await new Promise(setImmediate);
        const external = process.memoryUsage().external;
        const big = await cpu.upload(new Float32Array(2 ** 22), "float32");
        const reported = process.memoryUsage().external - external >= 2 ** 24;
        console.log(megabytes() - before < 80, reported, big.length);
      })();`;
    expect(runProgram(program, "--expose-gc")).toBe(`true true ${2 ** 22}\n`);
  }, 120_000);

  test("plans of one device share the memory of their runs, as large as the largest needs, and let go of it", () => {
    const program = `
      const { cpuExecutor } = require(${executorFile});
      const slot = (...shape) => ({ shape, dtype: "float32" });
      // x + x in an arena of \`mebibytes\`, of which the sum is the answer
      const plan = (mebibytes) => ({ slots: [slot(1), slot(mebibytes, 262144), slot(mebibytes, 262144), slot()], inputs: [0],
        constants: [], variables: [], outputs: [3], written: [], steps: [
          { op: "broadcast", attributes: { scale: 1 }, inputs: [0], outputs: [1] },
          { op: "add", attributes: {}, inputs: [1, 1], outputs: [2] },
          { op: "sum", attributes: { dims: [0, 1], keepDims: false }, inputs: [2], outputs: [3] }] });
      const executor = cpuExecutor();
      const mebibytes = () => Math.round(process.memoryUsage().rss / 2 ** 20);
      (async () => {
        const sums = [];
        const run = async (loaded, x) => sums.push((await loaded.run({ inputs: [Float32Array.of(x)], variables: [] })).outputs[0][0] / 2 ** 19);
        await (await executor.load(plan(1), [])).dispose();
        const before = mebibytes();
        const small = await executor.load(plan(100), []);
        const all = [small];
        for (let i = 0; i < 5; i++) all.push(await executor.load(plan(150), []));
        for (const loaded of all) await run(loaded, 1);
        const held = mebibytes() - before;
        for (const loaded of all.slice(1)) await loaded.dispose();
        await run(small, 2);
        const less = mebibytes() - before;
        await small.dispose();
        const none = mebibytes() - before;
        console.log(JSON.stringify({ sums, held, less, none }));
      })();`;
    const { sums, held, less, none } = JSON.parse(runProgram(program));
    expect(sums).toEqual([100, 150, 150, 150, 150, 150, 200]);
    expect(held).toBeGreaterThan(290);
    expect(held).toBeLessThan(450); // alone, the six plans need 1,700
    expect(less).toBeLessThan(held - 80);
    expect(none).toBeLessThan(100);
  });

  test("the event loop turns while plans run", () => {
    const program = `${slow}
      (async () => {
        const plan = await cpuExecutor().load(slowPlan(40), [weights], { threads: 1 });
        const turnsOfRuns = [];
        for (let i = 0; i < 5; i++) {
          let turns = 0;
          let running = true;
          const count = () => { if (running) { turns++; setImmediate(count); } };
          setImmediate(count);
          await plan.run({ inputs, variables: [] });
          running = false;
          turnsOfRuns.push(turns);
        }
        // a run that held the event loop would let it turn once or twice; beside one it turns thousands of times
        console.log(turnsOfRuns.every((turns) => turns > 5) || turnsOfRuns);
      })();`;
    expect(runProgram(program)).toBe("true\n");
  });
});

describe.runIf(built)("the native boundary", () => {
  const addon = nativeRuntime().addon as unknown as Record<string, (...args: unknown[]) => unknown>;
  const slots = [
    { shape: [4], dtype: "float32" },
    { shape: [4], dtype: "float32" },
  ];
  const steps = [{ op: "relu", attributes: {}, inputs: [0], outputs: [1] }];
  const good = { slots, inputs: [0], constants: [], variables: [], outputs: [1], written: [], steps };
  const step = (change: object) => ({ ...good, steps: [{ ...steps[0], ...change }] });
  const slot = (change: object) => ({ ...good, slots: [{ ...slots[0], ...change }, slots[1]] });

  test("what is not a plan is refused with an error that has a code", async () => {
    const device = addon.open("cpu");
    const plans: unknown[] = [
      undefined,
      null,
      7,
      "plan",
      [],
      {},
      { ...good, slots: undefined },
      { ...good, slots: { length: 5 } },
      slot({ shape: [-1] }),
      slot({ shape: [1.5] }),
      slot({ shape: [Number.NaN] }),
      slot({ shape: ["4"] }),
      slot({ shape: [2 ** 53] }),
      slot({ shape: [2 ** 30, 2 ** 30, 2 ** 30] }),
      slot({ shape: new Array(50).fill(1) }),
      slot({ dtype: "float64" }),
      slot({ dtype: 3 }),
      { ...good, inputs: [7] },
      { ...good, inputs: [-1] },
      { ...good, inputs: [0, 0] },
      { ...good, inputs: [] },
      { ...good, outputs: [9] },
      { ...good, written: [4_294_967_296] },
      step({ inputs: [2] }),
      step({ inputs: [1] }),
      step({ outputs: [0] }),
      step({ outputs: [] }),
      step({ outputs: [1, 1] }),
      step({ inputs: [] }),
      step({ inputs: [0, 0] }),
      step({ op: 4 }),
      step({ op: "softmax" }),
      step({ op: "softmax", attributes: { dim: -1 } }),
      step({ op: "softmax", attributes: { dim: 1e300 } }),
      step({ op: "mean", attributes: { dims: [Number.POSITIVE_INFINITY] } }),
      step({ op: "conv2d" }),
      step({ op: "squeeze_excite" }),
      step({ attributes: { a: {} } }),
      step({ attributes: null }),
    ];
    for (const plan of plans) {
      const load = async () => addon.load(device, plan, []);
      await expect(load(), JSON.stringify(plan)).rejects.toMatchObject({ code: "ERR_DEVICE" });
    }
    await addon.load(device, good, []);
  });

  test("handles are told apart, and arrays are measured", async () => {
    const device = addon.open("cpu");
    const other = addon.open("cpu");
    const plan = await addon.load(device, { ...good, inputs: [], variables: [0] }, []);
    const buffer = await addon.upload(device, new Float32Array(4), "float32");
    const foreign = await addon.upload(other, new Float32Array(4), "float32");
    const wrong = await addon.upload(device, new Int32Array(4), "int32");
    const short = await addon.upload(device, new Float32Array(3), "float32");
    const gone = await addon.load(device, { ...good, inputs: [], variables: [0] }, []);
    await addon.dispose(gone);
    const detached = new Float32Array(4);
    structuredClone(detached, { transfer: [detached.buffer] });
    const calls: [string, ...unknown[]][] = [
      ["open", "gpu"],
      ["open"],
      ["upload", buffer, new Float32Array(4), "float32"],
      ["upload", {}, new Float32Array(4), "float32"],
      ["upload", device, [1, 2], "float32"],
      ["upload", device, new Float64Array(4), "float32"],
      ["upload", device, new Float32Array(4), "int32"],
      ["upload", device, new Float32Array(4), "float99"],
      ["read", device],
      ["read"],
      ["run", buffer, [], []],
      ["run", plan, [new Float32Array(4)], []],
      ["run", plan, [], []],
      ["run", plan, [], [device]],
      ["run", plan, [], [{}]],
      ["run", plan, [], [foreign]],
      ["run", plan, [], [wrong]],
      ["run", plan, [], [short]],
      ["run", plan, "inputs", [buffer]],
      ["load", device, { ...good, inputs: [], constants: [0] }, [detached]],
      ["load", device, { ...good, inputs: [], constants: [0] }, []],
      ["load", device, good, [], { threads: -1 }],
      ["load", device, good, [], { threads: 1.5 }],
      ["load", device, good, [], { threads: 1e9 }],
      ["load", device, good, [], { threads: Number.NaN }],
      ["load", device, good, [], { threads: "two" }],
      ["load", device, good, [], null],
      ["load", device, good, [], { names: ["one too many"] }],
      ["load", buffer, good, []],
      ["run", gone, [], [buffer]],
      ["profile", gone, [], [buffer]],
      ["profile", plan, [], [foreign]],
      ["kernels", gone],
      ["drop", device, "id"],
      ["drop", plan, 1],
      ["dispose", buffer],
      ["kernels", device],
    ];
    for (const [name, ...args] of calls) {
      const call = async () => addon[name](...args);
      await expect(call(), `${name} ${args.length}`).rejects.toMatchObject({ code: "ERR_DEVICE" });
    }
    for (const id of [12345, 0, -1, 1.5, Number.NaN, 1e300]) expect(addon.drop(device, id, undefined)).toBe(false);
    for (const handle of [device, plan, buffer]) expect(() => structuredClone(handle)).toThrow(); // none reaches a worker
    const run = addon.run(plan, [], [buffer]) as { result: Promise<{ outputs: Float32Array[] }> };
    expect((await run.result).outputs).toEqual([new Float32Array(4)]);
    await addon.dispose(plan);
    await expect(async () => addon.run(plan, [], [buffer])).rejects.toMatchObject({ code: "ERR_DEVICE" });
    await addon.dispose(plan);
  });
});
