import { spawnSync } from "node:child_process";
import { resolve } from "node:path";
import { expect, test } from "vitest";
import { addonStatus, nativeVersions } from "#lib/devices/native/addon.js";

const built = nativeVersions()?.onednn != null && process.platform === "linux";
if (!built)
  console.warn("native_workers.test: no addon with oneDNN on Linux here; workers that end early are not tested");

/** `SERESNET_TEST_WORKERS=1000` starts more of them. */
const count = Number(process.env.SERESNET_TEST_WORKERS || 200);

/**
 * Each worker has a device of its own, and when it is terminated a run of some tenths of a second has begun there and two
 * more wait. Every fourth drives a team of OpenMP's threads.
 */
const program = `
  const { Worker, SHARE_ENV } = require("node:worker_threads");
  const { readFileSync } = require("node:fs");
  const [file, executorFile, count] = process.argv.slice(1);
  require(executorFile).cpuExecutor(); // in the main thread first, so that OpenMP's settings are read
  const n = 256;
  const steps = Array.from({ length: 400 }, (_, i) => (
    { op: "matmul", attributes: {}, inputs: [i === 0 ? 0 : i + 1, 1], outputs: [i + 2] }));
  const slots = Array.from({ length: 402 }, () => ({ shape: [n, n], dtype: "float32" }));
  const plan = { slots, inputs: [0], constants: [1], variables: [], outputs: [401], written: [], steps };
  const weights = new Float32Array(n * n);
  const source = \`
    const { parentPort, workerData: { file, plan, weights, threads } } = require("node:worker_threads");
    const holder = { exports: {} };
    process.dlopen(holder, file);
    const addon = holder.exports;
    addon.load(addon.open("cpu"), plan, [weights], { threads }).then((loaded) => {
      const runs = [1, 2, 3].map(() => addon.run(loaded, [weights], []));
      runs[0].result.finally(() => parentPort.postMessage("ended"));
      parentPort.postMessage("running");
    });\`;
  let ended = 0;
  async function one(i) {
    const workerData = { file, plan, weights, threads: i % 4 === 0 ? undefined : 1 };
    const worker = new Worker(source, { eval: true, env: SHARE_ENV, execArgv: [], workerData });
    await new Promise((resolve, reject) => {
      worker.on("message", (what) => (what === "ended" ? ended++ : resolve())).once("error", reject);
    });
    await new Promise((resolve) => setTimeout(resolve, i % 7));
    await worker.terminate();
  }
  /** Four at a time; then what this process holds. */
  async function all(from, to) {
    let next = from;
    await Promise.all([1, 2, 3, 4].map(async () => { while (next < to) await one(next++); }));
    for (let i = 0; i < 5; i++) { gc(); await new Promise((resolve) => setTimeout(resolve, 20)); }
    const status = readFileSync("/proc/self/status", "utf8");
    const number = (name) => Number(new RegExp(name + ":\\\\s+(\\\\d+)").exec(status)[1]);
    return { threads: number("Threads"), megabytes: number("VmRSS") / 1024 };
  }
  (async () => {
    const begin = performance.now();
    const first = await all(0, count / 10);
    const last = await all(count / 10, Number(count));
    const seconds = (performance.now() - begin) / 1000;
    const loaded = await require(executorFile).cpuExecutor().load(plan, [weights]);
    const { outputs } = await loaded.run({ inputs: [weights], variables: [] });
    console.log(JSON.stringify({ first, last, ended, seconds, length: outputs[0].length }));
  })();`;

test.runIf(built)(
  `${count} workers terminated in the middle of their runs: no abort, no leak, and the device still works`,
  () => {
    const args = ["--expose-gc", "-e", program, addonStatus().path as string];
    const child = spawnSync(process.execPath, [...args, resolve("dist/lib/devices/native/cpu.js"), String(count)], {
      encoding: "utf8",
      timeout: 600_000,
    });
    const { signal, status, stderr } = child;
    expect({ signal, status, stderr }).toEqual({ signal: null, status: 0, stderr: "" });
    const { first, last, ended, length } = JSON.parse(child.stdout);
    expect({ ended, length }).toEqual({ ended: 0, length: 256 * 256 });
    expect(last.threads).toBe(first.threads);
    expect(last.megabytes - first.megabytes).toBeLessThan(64); // what one run holds, for all of them, would be 200 and more
  },
  620_000,
);
