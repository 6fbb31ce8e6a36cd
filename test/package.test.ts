import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import * as esm from "seresnet";
import * as esmModels from "seresnet/models";
import { describe, expect, it } from "vitest";

const run = promisify(execFile);
const root = join(__dirname, "..");
const script = (flags: string[], code: string) => run(process.execPath, [...flags, "-e", code], { cwd: root });

describe("one implementation behind import and require", () => {
  it("exports the same names and the same classes", () => {
    const cjs = require("../dist/lib/index.js");
    const names = (module: object) =>
      Object.keys(module).filter((name) => !["__esModule", "module.exports"].includes(name));
    expect(names(esm).sort()).toEqual(names(cjs).sort());
    expect(esm.Tensor).toBe(cjs.Tensor);
    expect(esmModels.SEBlock).toBe(require("../dist/models/index.js").SEBlock);
    expect(new esmModels.ResidualBlock(1, 1, 1)).toBeInstanceOf(esm.nn.Module);
  });

  it("runs from a CommonJS script and from an ES module, and the process ends by itself", async () => {
    const body = `(async () => console.log(await s.tensor([1, 2]).add(1).sum().item()))()`;
    const cjs = await script([], `const s = require("seresnet"); ${body}`);
    const mjs = await script(["--input-type=module"], `import * as s from "seresnet"; ${body}`);
    expect([cjs.stdout, mjs.stdout]).toEqual(["5\n", "5\n"]);
    expect([cjs.stderr, mjs.stderr]).toEqual(["", ""]);
  });

  it("works in worker threads, each with a state of its own", async () => {
    const code = `
      const { Worker, isMainThread, parentPort, workerData } = require("node:worker_threads");
      const { tensor, setDefaultDevice } = require("seresnet");
      setDefaultDevice("reference");
      const job = (n) => tensor([n, n]).mul(n).sum().item();
      const spawn = (n) => new Promise((resolve, reject) => {
        const source = "const { parentPort, workerData } = require('node:worker_threads');"
          + "require('seresnet').tensor([workerData, workerData]).mul(workerData).sum().item().then((x) => parentPort.postMessage(x))";
        new Worker(source, { eval: true, workerData: n }).once("message", resolve).once("error", reject);
      });
      Promise.all([job(1), spawn(2), spawn(3)]).then((all) => console.log(all.join()));`;
    expect((await script([], code)).stdout).toBe("2,8,18\n");
  });
});

describe("the event loop stays free", () => {
  it("while a convolution of about a second runs on the reference", async () => {
    const { compile, nn, tensor } = esm;
    const conv = new nn.Conv2d(64, 256, { kernelSize: 3, padding: 1 });
    await using compiled = await compile(conv, { device: "reference" });
    const x = tensor(new Float32Array(64 * 64 * 64).fill(0.5), [1, 64, 64, 64]);
    let ticks = 0;
    const ticker = setInterval(() => ticks++, 1);
    await compiled.run(x);
    clearInterval(ticker);
    expect(ticks).toBeGreaterThan(10);
  });
});
