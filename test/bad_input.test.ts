import { type CompiledModel, compile, nn, type SeresnetError, type Tensor, tensor } from "seresnet";
import { describe, expect, test } from "vitest";
import type { DeviceBuffer, LoadedPlan, RunRequest } from "#lib/devices/executor.js";
import type { DType, HostArray } from "#lib/dtype.js";
import { ArgumentError, DeviceError, DisposedError, DtypeError, ShapeError } from "#lib/errors.js";
import type { Plan } from "#lib/plan/plan.js";
import { executorOf, usableDevices } from "./support/devices.js";
import { contents, planOf, single, withConstants } from "./support/plans.js";

/** Whatever untyped code may pass. */
const any = (value: unknown) => value as never;
const badThreads = [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 1e9, 1e5, "2", null, {}, [2], 2n];

type Refusal = new (message: string) => SeresnetError;

/** Every call fails with the class of error named, in one line, and what is there goes on working. */
async function refuses(
  calls: readonly (readonly [what: string, Refusal, call: () => unknown])[],
  works: () => Promise<unknown>,
) {
  for (const [what, kind, call] of calls) {
    const error = await (async () => call())().catch((thrown: unknown) => thrown);
    expect(error, what).toBeInstanceOf(kind);
    expect((error as Error).message, what).toMatch(/^[^\n:]+: [^\n]+$/);
    await works();
  }
}

const request = (...inputs: unknown[]): RunRequest => ({ inputs: inputs as HostArray[], variables: [] });

describe.each(usableDevices)("the executor of %s", (device) => {
  const executor = executorOf(device);
  const ones = (length = 4) => new Float32Array(length).fill(1);
  const addOne = withConstants(single("add", {}, [[4], []], [[4]]));
  const two = new Float32Array(4).fill(2);
  const expectTwo = async (plan: LoadedPlan) => expect((await plan.run(request(ones()))).outputs).toEqual([two]);
  const loads = async () => {
    const plan = await executor.load(addOne, [ones(1)]);
    await expectTwo(plan);
    await plan.dispose();
  };

  test("refuses what is not a plan, constants or options", async () => {
    await refuses(
      [
        ["nothing", ArgumentError, () => executor.load(any(undefined), [])],
        ["null", ArgumentError, () => executor.load(any(null), [])],
        ["an empty object", ArgumentError, () => executor.load(any({}), [])],
        ["a plan without slots", ArgumentError, () => executor.load(any({ ...addOne, slots: undefined }), [ones(1)])],
        ["an op without a kernel", DeviceError, () => executor.load(single("frobnicate", {}, [[4]], [[4]]), [])],
        ["no constants", ArgumentError, () => executor.load(addOne, any(undefined))],
        ["too few constants", ArgumentError, () => executor.load(addOne, [])],
        ["a constant that is missing", DtypeError, () => executor.load(addOne, [any(undefined)])],
        ["a constant of numbers", DtypeError, () => executor.load(addOne, [any([1])])],
        ["a constant of doubles", DtypeError, () => executor.load(addOne, [any(new Float64Array(1))])],
        ["a constant of integers", DtypeError, () => executor.load(addOne, [new Int32Array(1)])],
        ["a constant that is too long", ShapeError, () => executor.load(addOne, [ones(2)])],
        ["options that are null", ArgumentError, () => executor.load(addOne, [ones(1)], any(null))],
        ...badThreads.map(
          (threads) =>
            [
              `threads ${String(threads)}`,
              ArgumentError,
              () => executor.load(addOne, [ones(1)], { threads: any(threads) }),
            ] as const,
        ),
      ],
      loads,
    );
  });

  test("refuses uploads that are not host arrays", async () => {
    const works = async () => expect(await (await executor.upload(ones(), "float32")).read()).toEqual(ones());
    await refuses(
      [
        ["nothing", DtypeError, () => executor.upload(any(undefined), "float32")],
        ["numbers", DtypeError, () => executor.upload(any([1, 2]), "float32")],
        ["doubles", DtypeError, () => executor.upload(any(new Float64Array(4)), "float32")],
        ["another dtype", DtypeError, () => executor.upload(ones(), "int32")],
        ["an unknown dtype", DtypeError, () => executor.upload(ones(), any("float64"))],
        ["no dtype", DtypeError, () => executor.upload(ones(), any(undefined))],
      ],
      works,
    );
  });

  test("refuses requests that do not fit the plan", async () => {
    const plan = await executor.load(addOne, [ones(1)]);
    const detached = ones();
    structuredClone(detached, { transfer: [detached.buffer] });
    await refuses(
      [
        ["nothing", ArgumentError, () => plan.run(any(undefined))],
        ["null", ArgumentError, () => plan.run(any(null))],
        ["no inputs", ArgumentError, () => plan.run(any({ variables: [] }))],
        ["too few inputs", ArgumentError, () => plan.run(request())],
        ["too many inputs", ArgumentError, () => plan.run(request(ones(), ones()))],
        ["too many variables", ArgumentError, () => plan.run({ inputs: [ones()], variables: [any(ones())] })],
        ["an input that is missing", DtypeError, () => plan.run(request(undefined))],
        ["an input of numbers", DtypeError, () => plan.run(request([1, 2, 3, 4]))],
        ["an input of doubles", DtypeError, () => plan.run(request(new Float64Array(4)))],
        ["an input of integers", DtypeError, () => plan.run(request(new Int32Array(4)))],
        ["an input of another view", DtypeError, () => plan.run(request(new DataView(new ArrayBuffer(16))))],
        ["an input that is too short", ShapeError, () => plan.run(request(ones(3)))],
        ["an input that is too long", ShapeError, () => plan.run(request(ones(5)))],
        ["an input that was given away", ShapeError, () => plan.run(request(detached))],
        ["a signal of another kind", ArgumentError, () => plan.run({ ...request(ones()), signal: any({}) })],
        ["profiling nothing", ArgumentError, () => plan.profile(any(undefined))],
      ],
      () => expectTwo(plan),
    );
    await plan.dispose();
  });

  test("refuses variables that are not its own, or of another dtype or length", async () => {
    const plan = await executor.load({ ...single("relu", {}, [[4]], [[4]]), inputs: [], variables: [0] }, []);
    const good = await executor.upload(ones(), "float32");
    const run = (buffer: unknown) => plan.run({ inputs: [], variables: [buffer as DeviceBuffer] });
    const works = async () => expect((await run(good)).outputs).toEqual([ones()]);
    const foreign = usableDevices.filter((other) => other !== device);
    const buffers = await Promise.all(foreign.map((other) => executorOf(other).upload(ones(), "float32")));
    const integers = await executor.upload(new Int32Array(4), "int32");
    const short = await executor.upload(ones(3), "float32");
    await refuses(
      [
        ["nothing", DeviceError, () => run(undefined)],
        ["an object", DeviceError, () => run({})],
        ["a host array", DeviceError, () => run(ones())],
        ["an executor of nothing", DeviceError, () => run({ executor: null })],
        ["another dtype", DtypeError, () => run(integers)],
        ["another length", ShapeError, () => run(short)],
        ...buffers.map((buffer, i) => [`a buffer of ${foreign[i]}`, DeviceError, () => run(buffer)] as const),
      ],
      works,
    );
    await plan.dispose();
  });

  test("refuses disposed plans, and disposing twice is disposing once", async () => {
    const plan = await executor.load(addOne, [ones(1)]);
    const flying = expectTwo(plan);
    await Promise.all([plan.dispose(), plan.dispose()]);
    await flying;
    await refuses(
      [
        ["run", DisposedError, () => plan.run(request(ones()))],
        ["profile", DisposedError, () => plan.profile(request(ones()))],
      ],
      loads,
    );
    await plan.dispose();
  });

  test("refuses plans larger than memory", async () => {
    const huge = (extent: number): Plan => planOf([[1], [1]], [{ op: "add", from: [0, 1], to: [[extent]] }]);
    await refuses(
      [2 ** 38, 2 ** 39, 2 ** 41, 2 ** 50, Number.MAX_SAFE_INTEGER].map((extent) => [
        `${extent} elements`,
        DeviceError,
        async () => {
          const plan = { ...huge(extent), outputs: [], written: [] };
          await (await executor.load(plan, [])).run(request(ones(1), ones(1)));
        },
      ]),
      loads,
    );
  });

  test("drops what was aborted, before or in the queue, and nothing that has begun", async () => {
    const plan = await executor.load(addOne, [ones(1)]);
    const reason = new Error("no longer wanted");
    const run = (signal: AbortSignal) => plan.run({ ...request(ones()), signal });
    await expect(run(AbortSignal.abort(reason))).rejects.toBe(reason);
    const controllers = Array.from({ length: 20 }, () => new AbortController());
    const runs = controllers.map(({ signal }) => run(signal));
    for (const controller of controllers) controller.abort(reason);
    for (const ended of await Promise.allSettled(runs))
      if (ended.status === "rejected") expect(ended.reason).toBe(reason);
      else expect(ended.value.outputs).toEqual([two]);
    controllers[0].abort(new Error("again"));
    await expectTwo(plan);
    await plan.dispose();
  });
});

const native = usableDevices.filter((name) => name !== "reference");
describe.each(native)("the executor of %s", (device) => {
  // x, a gate, a channel vector, a scalar, and what fits none of them
  const shapes = [[2, 3, 4, 4], [2, 3, 1, 1], [3], [], [2, 3], [2, 4, 4, 4], [4], [2, 3, 4]];
  // inputs and outputs of a step that is right, by their places in `shapes`; with a residual and a ReLU one more each
  const right: Readonly<Record<string, readonly [readonly number[], readonly number[]]>> = {
    batch_norm_gradient: [
      [0, 2, 2, 0, 2, 0],
      [0, 2, 2, 0],
    ],
    batch_norm_train: [
      [0, 2, 2, 0],
      [0, 2, 2],
    ],
    found_inf: [[0, 1], [3]],
    gate: [[0, 1, 0], [0]],
    gate_gradient: [
      [0, 1, 0, 0],
      [0, 1, 0],
    ],
    global_norm: [[0, 1, 2], [3]],
    lerp: [
      [0, 1, 0, 1, 3],
      [0, 1],
    ],
    running_statistics: [
      [2, 2, 2, 2, 3],
      [2, 2],
    ],
    scale: [
      [0, 1, 3],
      [0, 1],
    ],
    sgd: [
      [2, 2, 2, 3, 3, 3],
      [2, 2],
    ],
  };

  test.each(Object.keys(right))("runs %s or refuses it, whatever operands and flags it is given", async (name) => {
    const executor = executorOf(device);
    let seed = 1;
    const random = (below: number) => {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      return Math.floor((seed / 2 ** 32) * below);
    };
    let ran = 0;
    for (let round = 0; round < 150; round++) {
      const [from, to] = right[name].map((places) => [...places]);
      for (let change = random(4); change > 0; change--) {
        const places = random(2) === 0 ? from : to;
        const kind = random(4);
        if (kind === 0) places.pop();
        else if (kind === 1) places.push(random(shapes.length));
        else if (places.length > 0) places[random(places.length)] = random(shapes.length);
      }
      const dtype = (): DType =>
        random(12) === 0 ? (["float16", "int32", "bfloat16"] as const)[random(3)] : "float32";
      const type = (place: number) => ({ shape: shapes[place], dtype: dtype() });
      const attributes = {
        residual: round === 0 || random(3) > 0,
        relu: round === 0 || random(3) > 0,
        eps: 1e-5,
        training: random(2) === 0,
        nesterov: false,
        count: random(4),
      };
      const plan = single(name, attributes, from.map(type), to.map(type));
      try {
        const loaded = await executor.load(plan, []);
        const data = plan.inputs.map((slot) => contents(plan.slots[slot]));
        await loaded.run(request(...data));
        await loaded.dispose();
        ran++;
      } catch (error) {
        expect(error).toBeInstanceOf(DeviceError);
        expect((error as Error).message).toMatch(/^[^\n:]+: [^\n]+$/);
      }
    }
    expect(ran).toBeGreaterThan(0);
    expect(ran).toBeLessThan(150);
  });
});

describe.each(usableDevices)("compile on %s", (device) => {
  const network = () =>
    new nn.Sequential(new nn.Conv2d(3, 4, { kernelSize: 3 }), new nn.BatchNorm2d(4), new nn.AdaptiveAvgPool2d(1));
  const image = (...shape: number[]) => tensor(new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(0.5), shape);
  const works = async (compiled: CompiledModel) => {
    const y = await compiled.run(image(2, 3, 8, 8));
    expect(y.shape).toEqual([2, 4, 1, 1]);
    for (const value of await y.data()) expect(Math.abs(Number(value))).toBeGreaterThan(1e-9);
  };

  test("refuses absurd options", async () => {
    const make = (options: object) => () => compile(network(), { device, ...options });
    await refuses(
      [
        ...badThreads.map((threads) => [`threads ${String(threads)}`, ArgumentError, make({ threads })] as const),
        ["a shape with a zero", ShapeError, make({ inputShape: [1, 3, 0, 8] })],
        ["a shape with a fraction", ShapeError, make({ inputShape: [1, 3, 8, 1.5] })],
        ["a shape of too few dimensions", ShapeError, make({ inputShape: [3, 8, 8] })],
        ["a shape of other channels", ShapeError, make({ inputShape: [1, 4, 8, 8] })],
        ["a shape smaller than the window", ShapeError, make({ inputShape: [1, 3, 2, 2] })],
        ["more images than memory", DeviceError, make({ inputShape: [2 ** 31, 3, 64, 64] })],
        ["more pixels than can be counted", DeviceError, make({ inputShape: [2 ** 26, 3, 2 ** 26, 2 ** 26] })],
        ["a dtype it has not", DtypeError, make({ dtype: "float64" })],
        ["normalize of nothing", ArgumentError, make({ normalize: null })],
        ["normalize by zero", ArgumentError, make({ normalize: { mean: [0], std: [0] } })],
      ],
      async () => works(await compile(network(), { device, threads: 1 })),
    );
  });

  test("refuses inputs of another shape or dtype", async () => {
    await using compiled = await compile(network(), { device });
    const run = (x: unknown, options?: object) => () => compiled.run(x as Tensor, options as never);
    await refuses(
      [
        ["nothing", DtypeError, run(undefined)],
        ["an array", DtypeError, run(new Float32Array(192))],
        ["one dimension", ShapeError, run(image(192))],
        ["no batch", ShapeError, run(image(3, 8, 8))],
        ["five dimensions", ShapeError, run(image(1, 1, 3, 8, 8))],
        ["other channels", ShapeError, run(image(1, 4, 8, 8))],
        ["an image smaller than the window", ShapeError, run(image(1, 3, 2, 2))],
        ["integers", DtypeError, run(image(1, 3, 8, 8).cast("int32"))],
        ["bytes without normalize", DtypeError, run(image(1, 3, 8, 8).cast("uint8"))],
        ["half precision", DtypeError, run(image(1, 3, 8, 8).cast("bfloat16"))],
        ["options that are null", ArgumentError, run(image(1, 3, 8, 8), any(null))],
        ["a signal of another kind", ArgumentError, run(image(1, 3, 8, 8), { signal: "stop" })],
        ["preparing nothing", ShapeError, () => compiled.prepare(any(undefined))],
        ["preparing half a pixel", ShapeError, () => compiled.prepare([1, 3, 0.5, 8])],
        ["preparing an unknown dtype", DtypeError, () => compiled.prepare([1, 3, 8, 8], any("float64"))],
      ],
      () => works(compiled),
    );
  });

  test("refuses runs after dispose; disposing twice, or in flight, lets the runs end", async () => {
    const compiled = await compile(network(), { device });
    const flying = [works(compiled), works(compiled)];
    await Promise.all([compiled.dispose(), compiled.dispose()]);
    await Promise.all(flying);
    await refuses(
      [
        ["run", DisposedError, () => compiled.run(image(1, 3, 8, 8))],
        ["profile", DisposedError, () => compiled.profile(image(1, 3, 8, 8))],
        ["prepare", DisposedError, () => compiled.prepare([1, 3, 8, 8])],
      ],
      async () => works(await compile(network(), { device })),
    );
    await compiled.dispose();
  });

  test("rejects with the signal's reason what was aborted before it began", async () => {
    await using compiled = await compile(network(), { device });
    const reason = new Error("no longer wanted");
    await expect(compiled.run(image(1, 3, 8, 8), { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    const controller = new AbortController();
    const run = compiled.run(image(1, 3, 9, 9), { signal: controller.signal }); // of a shape still to be prepared
    controller.abort(reason);
    await expect(run).rejects.toBe(reason);
    await works(compiled);
  });
});
