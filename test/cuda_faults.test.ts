import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { listDevices } from "seresnet";
import { describe, expect, test } from "vitest";

// What the CUDA executor does where a device fails it: the host executor ("npm run test:sim") is told to fail as a device
// does, native/test/faults_host.h. Each case is a process of its own, which must end by itself.
const sim = listDevices().some(({ name, usable }) => name === "cuda-sim" && usable);
if (!sim) test("a device that fails", (context) => context.skip("LEFT OUT: npm run test:sim runs it"));

const root = join(__dirname, "..");
/** What every case has: the executor, plans of steps, and `tell`, which waits and gives a result or the sentence of an error. */
const preamble = `
  const { compile, createModel, nn, setDefaultDevice, tensor } = require("seresnet");
  const { executorFor, resolveDevice } = require(${JSON.stringify(join(root, "dist/lib/devices/resolve.js"))});
  const device = "cuda-sim";
  const executor = () => executorFor(resolveDevice(device));
  const slot = (shape, dtype = "float32") => ({ shape, dtype });
  const planOf = (inputs, steps, rest) => ({ inputs: inputs.map((_, i) => i), constants: [], variables: [], written: [],
    slots: [...inputs.map((shape) => slot(shape)), ...steps.map((step) => slot(step.to))],
    steps: steps.map(({ op, attributes = {}, from }, i) => ({ op, attributes, inputs: from, outputs: [inputs.length + i] })),
    outputs: [inputs.length + steps.length - 1], ...rest });
  const tell = (promise) => promise.then((result) => result, ({ name, code, message }) => ({ name, code, message }));
  const say = (what) => console.log(JSON.stringify(what));
  const conv = { stride: [1, 1], padding: [1, 1], dilation: [1, 1], groups: 1 };
  const ramp = (count) => Float32Array.from({ length: count }, (_, i) => (i * 7 % 11) / 4 - 1);
  const numbers = async (promise) => { const found = await tell(promise); return found.outputs ? [...found.outputs[0]] : found; };
`;

interface Refusal {
  readonly name: string;
  readonly code: string;
  readonly message: string;
}

/** What a case says, with a device that fails at something. */
function during<T>(fault: string, source: string, environment: Record<string, string> = {}): T {
  const env = { ...process.env, SERESNET_SIM_FAULT: fault, SERESNET_CUDA_SYNC: "", ...environment };
  const script = `${preamble}(async () => { ${source} })().catch((error) => { console.error(error); process.exitCode = 1; });`;
  const child = spawnSync(process.execPath, ["-e", script], { cwd: root, encoding: "utf8", env, timeout: 60_000 });
  expect(child.signal, child.stderr).toBeNull();
  expect(child.status, child.stderr).toBe(0);
  return JSON.parse(child.stdout);
}

/** A chain with a convolution in the middle: whatever the device does, its numbers are these. */
const chain = `
  const x = [1, 2, 4, 3], y = [1, 3, 4, 3];
  const plan = planOf([x, [3, 2, 3, 3]], [{ op: "neg", from: [0], to: x }, { op: "conv2d", attributes: conv, from: [2, 1], to: y },
    { op: "relu", from: [3], to: y }]);
  const request = { inputs: [ramp(24), ramp(54)], variables: [] };`;
const fiveRuns = `${chain}
  const loaded = await executor().load(plan, []);
  const runs = [];
  for (let i = 0; i < 5; i++) runs.push(await numbers(loaded.run(request)));
  const { notReplayed } = await loaded.time(request);
  await loaded.dispose();
  say({ runs, notReplayed });`;

describe.runIf(sim)("a device that fails", () => {
  interface Runs {
    readonly runs: (number[] | Refusal)[];
    readonly notReplayed: string;
  }
  const wanted = () => during<Runs>("", fiveRuns);

  test.each([
    ["capture", /^cudaStreamEndCapture: cudaErrorStreamCaptureInvalidated/],
    ["graph", /^cudaGraphInstantiate: cudaErrorMemoryAllocation/],
  ])("where work cannot be recorded (%s) it runs kernel by kernel, and says so", (fault, why) => {
    const { runs: right, notReplayed } = wanted();
    expect(notReplayed).toBe("");
    expect((right[0] as number[]).some((value) => value > 0)).toBe(true);
    expect(new Set(right.map(String)).size).toBe(1);
    const got = during<Runs>(fault, fiveRuns);
    expect(got.runs).toEqual(right);
    expect(got.notReplayed).toMatch(why);
  });

  test("where one set of addresses cannot be recorded the others are", () => {
    // two lanes, so two sets of addresses; only the first recording is refused
    expect(during<Runs>("capture:@1", fiveRuns).runs).toEqual(wanted().runs);
  });

  test("SERESNET_CUDA_SYNC=1 names the kernel that failed, with its shapes", () => {
    const source = `${chain} say([await numbers((await executor().load(plan, [])).run(request))]);`;
    const [later] = during<Refusal[]>("kernel:conv 1x4x3x2", source);
    expect(later).toMatchObject({ name: "DeviceError", code: "ERR_DEVICE" });
    expect(later.message).toBe(
      "cudaEventSynchronize: cudaErrorIllegalAddress: an illegal memory access was encountered " +
        "(SERESNET_CUDA_SYNC=1 names the kernel that failed)",
    );
    const [named] = during<Refusal[]>("kernel:conv 1x4x3x2", source, { SERESNET_CUDA_SYNC: "1" });
    expect(named.message).toMatch(
      /^cudaStreamSynchronize: cudaErrorIllegalAddress: .+ \(kernel 4 of \d+, conv2d plain loops: \[1, 2, 4, 3\], \[3, 2, 3, 3\] -> \[1, 3, 4, 3\]\)$/,
    );
    // and where nothing fails the numbers are the same
    expect(during<Runs>("", fiveRuns, { SERESNET_CUDA_SYNC: "1" })).toEqual({
      runs: wanted().runs,
      notReplayed: "SERESNET_CUDA_SYNC is set",
    });
    // nor is any run recorded: two kernels each and two lanes, so the third is the first whose addresses come again
    const { runs } = during<Runs>("launch:unary@5", fiveRuns, { SERESNET_CUDA_SYNC: "1" });
    expect(runs.map((run) => "message" in run)).toEqual([false, false, true, false, false]);
    expect((runs[2] as Refusal).message).toMatch(
      /^unary: cudaErrorLaunchOutOfResources: .+ \(kernel \d of \d+, neg: \[1, 2, 4, 3\] -> \[1, 2, 4, 3\]\)$/,
    );
  });

  test("after a kernel's illegal access every call fails in a sentence, and the process ends by itself", () => {
    const failures = during<Refusal[]>(
      "kernel:unary@2",
      `${chain}
      const loaded = await executor().load(plan, []);
      const buffer = await executor().upload(ramp(4), "float32");
      const all = [await numbers(loaded.run(request)), await numbers(loaded.run(request))];
      all.push(await tell(buffer.read()), await tell(executor().upload(ramp(4), "float32")), await tell(executor().load(plan, [])));
      all.push(await tell(loaded.profile(request)), await tell(loaded.time(request)));
      buffer.release();
      all.push(await tell(loaded.dispose().then(() => "disposed")));
      say(all);`,
    );
    for (const failure of failures.slice(0, -1)) {
      expect(failure).toMatchObject({ name: "DeviceError", code: "ERR_DEVICE" });
      expect(failure.message).toMatch(
        /^cuda[A-Z]\w+.*: cudaErrorIllegalAddress: an illegal memory access was encountered/,
      );
    }
    expect(failures).toHaveLength(8);
    expect(failures.at(-1)).toBe("disposed");
  });

  test.each([
    ["memory:2000000", /^memory: \d+ bytes do not fit: the device is full, and \d+ bytes are this process's own$/],
    ["pinned:200000", /^cudaMallocHost: cudaErrorMemoryAllocation: out of memory$/],
  ])("memory that is not there (%s) is an error of its own, and what fits still works", (fault, sentence) => {
    const [large, small] = during<[Refusal, number[]]>(
      fault,
      `const add = (count) => planOf([[count], []], [{ op: "add", from: [0, 1], to: [count] }].map((s) => ({ ...s, to: [count] })));
      const refused = await tell(executor().load(add(2 ** 20), []));
      const loaded = await executor().load(add(4), []);
      say([refused, await numbers(loaded.run({ inputs: [ramp(4), Float32Array.of(1)], variables: [] }))]);`,
    );
    expect(large).toMatchObject({ name: "MemoryError", code: "ERR_MEMORY", message: expect.stringMatching(sentence) });
    expect(small).toEqual([0, 1.75, 0.75, 2.5]);
  });

  const fused = `
    const x = [1, 2, 4, 3], y = [1, 3, 4, 3];
    const plan = planOf([x, [3, 2, 3, 3], [3], y], [{ op: "fused_conv2d", from: [0, 1, 2, 3], to: y,
      attributes: { ...conv, bias: true, residual: true, relu: true } }]);
    const loaded = await tell(executor().load(plan, []));
    if (!loaded.run) return say(loaded);
    const result = await numbers(loaded.run({ inputs: [ramp(24), ramp(54), ramp(3), ramp(36)], variables: [] }));
    say({ result, kernels: loaded.kernels() });`;

  test("an epilogue that no engine supports gets a kernel of its own, and a convolution that none does is refused", () => {
    interface Fused {
      readonly result: number[];
      readonly kernels: string[];
    }
    const whole = during<Fused>("", fused);
    const parted = during<Fused>("engine:relu", fused);
    expect(parted.result).toEqual(whole.result);
    expect(whole.kernels).not.toContain("fused_conv2d epilogue");
    expect(parted.kernels).toContain("fused_conv2d epilogue");
    expect(during<Refusal>("engine:conv", fused)).toEqual({
      name: "DeviceError",
      code: "ERR_DEVICE",
      message: "fused_conv2d: cuDNN has no engine for conv 1x4x3x2 -> 3 3x3 padding 1x1 float32",
    });
  });

  test("an engine that fails when it runs fails that run alone", () => {
    const { runs } = during<Runs>("execute:conv@2", fiveRuns);
    const right = wanted().runs;
    const failed = runs.filter((run) => "message" in run) as Refusal[];
    expect(failed).toHaveLength(1);
    expect(runs.filter((run) => !("message" in run))).toEqual(right.slice(1));
    for (const { message } of failed)
      expect(message).toMatch(/^cudnnBackendExecute conv .+: CUDNN_STATUS_EXECUTION_FAILED \(kernel 4 of \d+, conv2d /);
  });

  test("memory of a run that fails halfway is given back when its kernels are done with it", () => {
    // the first step writes a result that leaves the plan; the second cannot be launched
    const [refused, kept] = during<[Refusal, number[]]>(
      "launch:activation_gradient@1",
      `const plan = planOf([[128], [128]], [{ op: "neg", from: [0], to: [128] }, { op: "relu_gradient", from: [1, 0], to: [128] }],
        { written: [2] });
      const loaded = await executor().load(plan, []);
      const request = { inputs: [ramp(128), ramp(128)], variables: [] };
      const refused = await numbers(loaded.run(request));
      const buffer = await executor().upload(new Float32Array(128).fill(5), "float32"); // of the size that was given back
      await loaded.run(request);
      say([refused, [...(await buffer.read())]]);`,
    );
    expect(refused.message).toMatch(
      /^activation_gradient: cudaErrorLaunchOutOfResources: .+ \(kernel 2 of \d+, relu_gradient/,
    );
    expect(kept).toEqual(Array(128).fill(5));
  });

  test("matrices in the middle of a tensor are not promised to be aligned as its first is", () => {
    const product = `
      const plan = planOf([[3, 3, 5], [3, 5, 1]], [{ op: "matmul", from: [0, 1], to: [3, 3, 1] }]);
      const results = {};
      for (const compute of ["float32", "float16", "bfloat16"]) {
        const loaded = await tell(executor().load(plan, [], { compute }));
        results[compute] = loaded.run ? await numbers(loaded.run({ inputs: [ramp(45), ramp(15)], variables: [] })) : loaded;
      }
      say(results);`;
    const ramp = (count: number) => Array.from({ length: count }, (_, i) => ((i * 7) % 11) / 4 - 1);
    const [a, b] = [ramp(45), ramp(15)];
    const right = Array.from({ length: 9 }, (_, row) =>
      [0, 1, 2, 3, 4].reduce((sum, k) => sum + a[row * 5 + k] * b[Math.floor(row / 3) * 5 + k], 0),
    );
    // quarters up to 2 and their products are exact in every dtype but bfloat16, whose sums lose a bit
    const results = during<Record<string, number[]>>("", product);
    expect(results.float32).toEqual(right);
    expect(results.float16).toEqual(right);
    for (const [i, value] of results.bfloat16.entries()) expect(Math.abs(value - right[i])).toBeLessThan(0.04);
    // what the engine is asked for says so: products of which two are 15 and 3 numbers apart
    const { float32, float16 } = during<Record<string, Refusal>>("engine:x at", product);
    expect(float32.message).toMatch(/^matmul: cuDNN has no engine for conv 3x1x1x5 -> 1 1x1 float32 x at 4 y at 4$/);
    expect(float16.message).toMatch(/ float16 x at 2 y at 2$/);
  });

  test("autotuning takes no engine that is quick and wrong", () => {
    const { kernels, got, plain } = during<{ kernels: string[]; got: number[][]; plain: number[][] }>(
      "",
      `const shapes = { x: [2, 4, 5, 3], w: [6, 2, 3, 3], y: [2, 6, 5, 3] }, attributes = { ...conv, groups: 2 };
      const cases = [["conv2d", "x", "w", "y"], ["conv2d_input_gradient", "y", "w", "x"], ["conv2d_weight_gradient", "x", "y", "w"]];
      const kernels = [];
      const all = async () => {
        const results = [];
        for (const [op, a, b, to] of cases)
          for (const compute of ["float32", "float16", "bfloat16"]) {
            const plan = planOf([shapes[a], shapes[b]], [{ op, attributes, from: [0, 1], to: shapes[to] }]);
            const loaded = await executor().load(plan, [], { compute });
            const size = (shape) => shape.reduce((product, extent) => product * extent, 1);
            results.push(await numbers(loaded.run({ inputs: [ramp(size(shapes[a])), ramp(size(shapes[b]))], variables: [] })));
            kernels.push(...loaded.kernels().filter((name) => name.startsWith(op)));
          }
        return results;
      };
      const plain = await all();
      setDefaultDevice(device, { autotune: true });
      say({ plain, got: await all(), kernels });`,
    );
    expect(got).toEqual(plain);
    expect(kernels).toHaveLength(18);
    expect(new Set(kernels.map((name) => name.replace(/^\S+ /, "")))).toEqual(new Set(["plain loops"]));
  });

  test("an engine that breaks the device in a trial is named", () => {
    const { message } = during<Refusal>(
      "kernel:conv",
      `setDefaultDevice(device, { autotune: true }); ${chain} say(await tell(executor().load(plan, [])));`,
    );
    expect(message).toMatch(
      /^cudaStreamSynchronize: cudaErrorIllegalAddress: .+ \(in a trial of quick loops for conv 1x4x3x2 -> 3 3x3 padding 1x1 float32\)$/,
    );
  });
});
