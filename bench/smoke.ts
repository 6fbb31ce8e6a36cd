import { fork } from "node:child_process";
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import type { DeviceName } from "../lib/devices/executor.js";
import { nativeVersions } from "../lib/devices/native/addon.js";
import {
  compile,
  createModel,
  functional as F,
  nn,
  optim,
  setDefaultDevice,
  type Tensor,
  tensor,
} from "../lib/index.js";
import { sizeOf } from "../lib/shape.js";
import { SqueezeExcite } from "../models/index.js";
import { oneOf, usableDevice } from "./report.js";
import { noise, trainedLooking } from "./weights.js";

/*
 * A first look at a device: one process for each family of ops, so that the one that breaks the device takes no other with
 * it, and every result compared with the reference's.
 *   node dist/bench/smoke.js --device cuda             every family in a process of its own, some seconds at most each
 *   node dist/bench/smoke.js --device cuda --look      only what the device is, or why it cannot be used
 *   node dist/bench/smoke.js --device cuda --only all  all of them in this one, as sanitizers want them; or one by name
 */

/** What a family computes on the default device, by name. */
type Results = Record<string, Promise<ArrayLike<number>>>;
type Family = (device: DeviceName) => Results | Promise<Results>;

const dtypes = { float32: 1e-4, tf32: 3e-3, float16: 5e-3, bfloat16: 2e-2 } as const;
type Dtype = keyof typeof dtypes;

const image = (...shape: number[]) => tensor(noise(sizeOf(shape), -1, 1), shape);
const numbers = (x: Tensor) => x.data() as Promise<ArrayLike<number>>;

/** A module's outputs and gradients, in training. */
function trained(name: string, module: nn.Module, ...shape: number[]): Results {
  const x = new nn.Parameter(image(...shape));
  const y = module.train().forward(x) as Tensor;
  // other numbers than x, along which a norm's gradient is 0
  const factors = tensor(noise(sizeOf(y.shape), -1, 1).reverse(), y.shape);
  y.mul(factors).sum().backward();
  const all: Results = { [`${name} forward`]: numbers(y), [`${name} input gradient`]: numbers(x.grad as Tensor) };
  for (const [parameter, { grad }] of module.namedParameters())
    if (grad) all[`${name} gradient of ${parameter}`] = numbers(grad);
  return all;
}

/** A network's outputs in every dtype; the third run is the one that is replayed. */
function compiled(device: DeviceName, name: string, module: nn.Module, ...shape: number[]): Results {
  const run = async (dtype: Dtype) => {
    const wanted = device === "reference" ? "float32" : dtype;
    const model = await compile(module.eval(), { device, dtype: wanted });
    const x = image(...shape);
    for (let i = 0; i < 2; i++) await (await model.run(x)).data();
    const result = (await (await model.run(x)).data()) as Float32Array;
    await model.dispose();
    return result;
  };
  return Object.fromEntries((Object.keys(dtypes) as Dtype[]).map((dtype) => [`${name} ${dtype}`, run(dtype)]));
}

const conv = (channels: number, out: number, kernelSize: number, options = {}) =>
  new nn.Conv2d(channels, out, { kernelSize, padding: kernelSize >> 1, ...options });

const families: Readonly<Record<string, Family>> = {
  elementwise: () => {
    const [x, y] = [image(3, 5, 7), image(5, 1)];
    return {
      relu: numbers(x.relu()),
      sigmoid: numbers(x.sigmoid()),
      exp: numbers(x.exp().log().neg()),
      arithmetic: numbers(x.add(y).mul(x).sub(y).div(y.exp())),
      cast: numbers(x.mul(100).cast("int32").cast("float32")),
    };
  },
  movement: () => {
    const x = new nn.Parameter(image(2, 3, 6, 5));
    const part = F.pad(
      F.slice(x, { starts: [0, 1, 1, 0], ends: [2, 3, 6, 5], steps: [1, 1, 2, 3] }),
      [0, 1, 0, 2],
      [0, 0, 3, 1],
    );
    part.mul(part).sum().backward();
    return { "slice and pad": numbers(part), gradient: numbers(x.grad as Tensor) };
  },
  reductions: () => {
    const x = image(4, 9, 5);
    const logits = new nn.Parameter(image(6, 11));
    const loss = F.crossEntropy(logits, tensor(Int32Array.of(0, 10, 3, 4, 5, 1), [6]), { labelSmoothing: 0.1 });
    loss.backward();
    return {
      sum: numbers(x.sum([0, 2])),
      mean: numbers(x.mean(1)),
      softmax: numbers(x.softmax(1)),
      "cross-entropy": numbers(loss),
      gradient: numbers(logits.grad as Tensor),
    };
  },
  products: () => ({
    ...trained("linear", new nn.Linear(13, 7), 5, 13),
    matmul: numbers(image(3, 3, 5).matmul(image(3, 5, 1))),
    "large matmul": numbers(image(64, 48).matmul(image(48, 40))),
  }),
  convolutions: (device) => ({
    ...compiled(device, "3x3", new nn.Sequential(conv(5, 7, 3), new nn.BatchNorm2d(7), new nn.ReLU()), 2, 5, 9, 8),
    ...compiled(device, "stem", conv(3, 16, 7, { stride: 2 }), 2, 3, 33, 29),
    ...compiled(device, "grouped", conv(32, 32, 3, { groups: 4 }), 2, 32, 7, 7),
    ...compiled(device, "1x1", conv(64, 128, 1), 2, 64, 7, 7),
  }),
  gradients: () => ({
    ...trained("3x3", conv(6, 8, 3), 2, 6, 9, 8),
    ...trained("strided", conv(6, 4, 3, { stride: 2, groups: 2 }), 2, 6, 9, 8),
    ...trained("1x1", conv(64, 32, 1), 2, 64, 7, 7),
  }),
  norms: () => trained("batch norm", new nn.BatchNorm2d(6), 4, 6, 5, 7),
  pools: () => ({
    ...trained("max", new nn.MaxPool2d({ kernelSize: 3, stride: 2, padding: 1 }), 2, 5, 9, 8),
    ...trained("average", new nn.AvgPool2d({ kernelSize: 2, stride: 2 }), 2, 8, 8, 6),
    ...trained("global", new nn.AdaptiveAvgPool2d(1), 2, 8, 7, 7),
  }),
  squeezeExcite: () => trained("squeeze-and-excitation", new SqueezeExcite(16, 4), 2, 16, 7, 7),
  updates: async () => {
    const results: Results = {};
    for (const [name, make] of Object.entries({
      sgd: (all: nn.Parameter[]) => new optim.SGD(all, { lr: 0.1, momentum: 0.9, weightDecay: 1e-3, nesterov: true }),
      adamw: (all: nn.Parameter[]) => new optim.AdamW(all, { lr: 0.01, eps: 1e-3 }),
    })) {
      const parameters = [new nn.Parameter(image(7, 5)), new nn.Parameter(image(3))];
      const optimizer = make(parameters);
      for (let step = 0; step < 3; step++) {
        optimizer.zeroGrad();
        parameters
          .reduce<Tensor>((sum, p) => sum.add(p.mul(p).sum()), tensor([0]))
          .sum()
          .backward();
        optimizer.step();
      }
      for (const [i, parameter] of parameters.entries()) results[`${name} ${i}`] = numbers(parameter);
    }
    return results;
  },
  network: (device) =>
    compiled(device, "SE-ResNet-14", trainedLooking(createModel("seresnet14_cifar", { numClasses: 10 })), 2, 3, 16, 16),
};

/** Runs a family on both; throws what differs. Returns the largest error in units of what is allowed. */
async function judge(name: string, device: DeviceName): Promise<number> {
  const on = async (which: DeviceName) => {
    nn.manualSeed(1);
    setDefaultDevice(which);
    const promised = Object.entries(await families[name](which));
    return Promise.all(promised.map(async ([what, data]) => [what, await data] as const));
  };
  const wanted = await on("reference");
  let worst = 0;
  for (const [i, [what, got]] of (await on(device)).entries()) {
    const expected = wanted[i][1];
    if (got.length !== expected.length)
      throw new Error(`${what}: expected ${expected.length} numbers, got ${got.length}`);
    const apart = Math.sqrt(sum(got, (value, k) => (value - expected[k]) ** 2));
    const norm = Math.sqrt(sum(expected, (value) => value ** 2)) || 1;
    const allowed = dtypes[what.split(" ").at(-1) as Dtype] ?? dtypes.float32;
    if (!(apart / norm <= allowed)) throw new Error(`${what}: relative error ${(apart / norm).toPrecision(2)}`);
    worst = Math.max(worst, apart / norm / allowed);
  }
  return worst;
}

function sum(all: ArrayLike<number>, term: (value: number, i: number) => number): number {
  let total = 0;
  for (let i = 0; i < all.length; i++) total += term(all[i], i);
  return total;
}

interface Outcome {
  readonly name: string;
  readonly said: string;
  readonly failed: boolean;
}

async function here(name: string, device: DeviceName): Promise<Outcome> {
  const start = performance.now();
  try {
    const worst = await judge(name, device);
    const seconds = ((performance.now() - start) / 1e3).toFixed(1);
    return { name, said: `ok, ${(100 * worst).toFixed(0)} % of the error allowed, ${seconds} s`, failed: false };
  } catch (error) {
    return { name, said: `FAILED ${(error as Error).message}`, failed: true };
  }
}

/** In a process of its own, which names the kernel that fails. */
function apart(name: string, device: DeviceName, seconds: number): Promise<Outcome> {
  return new Promise((resolve) => {
    const env = { ...process.env, SERESNET_CUDA_SYNC: "1" };
    const child = fork(__filename, ["--device", device, "--only", name], {
      env,
      stdio: ["ignore", "pipe", "pipe", "ipc"],
    });
    let words = "";
    for (const stream of [child.stdout, child.stderr])
      stream?.on("data", (chunk: Buffer) => {
        words = (words + chunk.toString()).slice(-2000);
      });
    const timer = setTimeout(() => {
      child.kill("SIGKILL");
      resolve({ name, said: `FAILED no answer in ${seconds} s`, failed: true });
    }, 1e3 * seconds);
    child.on("message", (outcome: Outcome) => resolve(outcome));
    child.on("error", (error) => resolve({ name, said: `FAILED ${error.message}`, failed: true }));
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      const last = words.trim().split("\n").at(-1);
      resolve({
        name,
        said: `FAILED it ended with ${signal ?? `code ${code}`}${last ? `: ${last}` : ""}`,
        failed: true,
      });
    });
  });
}

/** What is there, in a line; throws where it cannot be used. */
function described(device: DeviceName): string {
  const { description, details } = usableDevice(device);
  const facts = Object.entries(details).map(([name, fact]) => `${name} ${fact}`);
  return [description, `cuDNN headers ${nativeVersions()?.cudnn?.compiled ?? "none"}`, ...facts].join("; ");
}

async function main(): Promise<void> {
  const text = { type: "string" } as const;
  const options = {
    device: { ...text, default: "cuda" },
    only: text,
    seconds: { ...text, default: "20" },
    look: { type: "boolean" },
  } as const;
  const { device: asked, only, seconds, look } = parseArgs({ options }).values;
  const device = oneOf("--device", asked, ["cuda", "cuda-sim", "cpu"]) as DeviceName;
  if (look) return console.log(described(device));
  const known = Object.keys(families);
  const names = only === undefined || only === "all" ? known : [oneOf("--only", only, known)];
  const waiting = [...names];
  const failed: string[] = [];
  const work = async () => {
    for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
      const outcome = only === undefined ? await apart(name, device, Number(seconds)) : await here(name, device);
      console.log(`${outcome.name}: ${outcome.said}`);
      process.send?.(outcome);
      if (outcome.failed) failed.push(outcome.name);
    }
  };
  const atOnce = only === undefined ? Math.min(8, availableParallelism()) : 1;
  await Promise.all(Array.from({ length: atOnce }, work));
  console.log(
    `smoke: ${names.length - failed.length} of ${names.length} families of ops right${failed.length ? `; wrong: ${failed.join(", ")}` : ""}`,
  );
  process.exitCode = failed.length > 0 ? 1 : 0;
  process.disconnect?.();
}

main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
});
