import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { describe, expect, it } from "vitest";
import { usableDevices } from "./support/devices.js";

/*
 * A process that ends while a device computes ends with the status it was asked for: libraries free what they hold in exit
 * handlers, and no thread may still be inside them then. CI asks for more tries than the few here: SERESNET_TEST_EXITS.
 */

const root = join(__dirname, "..");
const all = Number(process.env.SERESNET_TEST_EXITS ?? 60);

/** Ways to end, each with the status it has to give. `late` ones ask no JavaScript, and hold once a device has computed. */
const ways: readonly [code: string, status: number, signal?: NodeJS.Signals | "late"][] = [
  ["process.exit(3)", 3],
  ["process.exit()", 0],
  ["process.exitCode = 4; process.exit()", 4],
  ["throw new Error('on purpose')", 1],
  ["Promise.reject(new Error('on purpose'))", 1],
  ["process.on('exit', () => process.exit(5)); process.exit(3)", 5],
  ["process.on('exit', () => { throw new Error('on purpose') }); process.exit(6)", 6],
  ["process.on('uncaughtException', () => process.exit(8)); null.property", 8],
  ["process.on('SIGINT', () => process.exit(130)); process.kill(process.pid, 'SIGINT')", 130],
  ["process.kill(process.pid, 'SIGTERM')", 0, "SIGTERM"],
  ["process.removeAllListeners('exit'); process.exit(9)", 9, "late"],
  ["process.reallyExit(10)", 10, "late"],
];

/** Loads, runs and trains on a device without end, in the main thread or in a worker, until something ends it after `delay` ms. */
function program(device: string, way: string, delay: number, worker: boolean): string {
  const work = `
    const { compile, createModel, functional, optim, setDefaultDevice, tensor } = require("seresnet");
    setDefaultDevice(${JSON.stringify(device)});
    const model = createModel("resnet14_cifar", { numClasses: 10 });
    const x = tensor(new Float32Array(2 * 3 * 32 * 32).fill(0.5), [2, 3, 32, 32]);
    (async () => {
      const optimizer = new optim.SGD(model.parameters(), { lr: 0.01 });
      for (let i = 0; ; i++) {
        const compiled = await compile(model, { device: ${JSON.stringify(device)} });
        for (let j = 0; j < 8; j++) compiled.run(x).catch(() => {});
        const loss = functional.crossEntropy(model.forward(x), tensor(new Int32Array(2)));
        loss.backward();
        optimizer.step();
        await compiled.run(x);
      }
    })().catch(() => {});`;
  const start = worker ? `new (require("node:worker_threads").Worker)(${JSON.stringify(work)}, { eval: true });` : work;
  return `${start} setTimeout(() => { ${way} }, ${delay});`;
}

function end(code: string): Promise<{ status: number | null; signal: NodeJS.Signals | null; stderr: string }> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, ["-e", code], { cwd: root, stdio: ["ignore", "ignore", "pipe"] });
    let stderr = "";
    child.stderr.on("data", (data) => {
      stderr += data;
    });
    child.on("close", (status, signal) => resolve({ status, signal, stderr }));
  });
}

// the reference's threads are Node's own
const cases = usableDevices.map((device) => ({ device, tries: device === "reference" ? Math.ceil(all / 8) : all }));

describe.each(cases)("a process that ends while the device $device computes", ({ device, tries }) => {
  it(`has the status it asked for, ${tries} times`, { timeout: 3_600_000 }, async () => {
    const strange: string[] = [];
    const one = async (i: number) => {
      const [way, status, how] = ways[i % ways.length];
      const signal = how === undefined || how === "late" ? null : how;
      const delay = (how === "late" ? 1500 : 1) + ((i * 37) % 400); // while it loads, compiles, runs and trains
      const worker = i % 3 === 2;
      const got = await end(program(device, way, delay, worker));
      const wanted = signal === null ? got.status === status && got.signal === null : got.signal === signal;
      if (!wanted) strange.push(`${way} after ${delay} ms${worker ? " in a worker" : ""}: ${JSON.stringify(got)}`);
    };
    for (let i = 0; i < tries; i += 2) await Promise.all([one(i), one(i + 1)]);
    expect(strange).toEqual([]);
  });
});

it("a process that ends while images are prepared has the status it asked for", { timeout: 3_600_000 }, async () => {
  const folder = await mkdtemp(join(tmpdir(), "seresnet-exit-"));
  try {
    const image = join(folder, "large.jpg");
    const source = sharp(join(root, "test/fixtures/images/chelsea.png")).resize(3000, 2000, { fit: "fill" });
    await source.withMetadata({ orientation: 6 }).jpeg().toFile(image);
    const code = (delay: number, worker: boolean) => {
      const work = `
        const { loadImage } = require("seresnet");
        const forever = async () => { for (;;) await loadImage(${JSON.stringify(image)}); };
        for (let i = 0; i < 4; i++) forever().catch(() => {});`;
      const start = worker
        ? `new (require("node:worker_threads").Worker)(${JSON.stringify(work)}, { eval: true });`
        : work;
      return `${start} setTimeout(() => process.exit(7), ${delay});`;
    };
    const strange: string[] = [];
    const one = async (i: number) => {
      const got = await end(code(150 + ((i * 37) % 500), i % 3 === 2));
      if (got.status !== 7) strange.push(JSON.stringify(got));
    };
    for (let i = 0; i < Math.ceil(all / 6); i += 2) await Promise.all([one(i), one(i + 1)]);
    expect(strange).toEqual([]);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
