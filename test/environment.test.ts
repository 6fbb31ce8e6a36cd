import { execFile } from "node:child_process";
import fs from "node:fs";
import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import os, { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { listDevices, loadWeights } from "seresnet";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { Metrics } from "#lib/cli/training_output.js";
import { cudnnCandidates } from "#lib/devices/native/addon.js";
import { ArgumentError, WeightsError } from "#lib/errors.js";
import { userCache } from "#lib/paths.js";
import { writeReport } from "#lib/train/report.js";
import { usableDevices } from "./support/devices.js";
import { writeIdx } from "./support/idx.js";

const program = resolve("dist/lib/cli/main.js");
const chelsea = resolve("test/fixtures/images/chelsea.png");

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-environment-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));
afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
});

interface Outcome {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Runs the program with node's own arguments before it. */
function seresnet(
  args: readonly string[],
  node: readonly string[] = [],
  env: NodeJS.ProcessEnv = {},
): Promise<Outcome> {
  return new Promise((done) => {
    const all = { ...process.env, NO_COLOR: "1", SERESNET_DEVICE: "reference", ...env };
    const child = execFile(process.execPath, [...node, program, ...args], { env: all }, (_, stdout, stderr) =>
      done({ code: child.exitCode, stdout, stderr }),
    );
  });
}

/** One sentence of ours, and no stack. */
function expectRefusal({ code, stdout, stderr }: Outcome, said: string | RegExp): void {
  expect([code, stdout]).toEqual([1, ""]);
  expect(stderr.trimEnd().split("\n").at(-1)).toMatch(/^seresnet: (?!unexpected error)/);
  expect(stderr).toMatch(said);
}

/** A module that node loads before the program. */
async function preload(name: string, code: string): Promise<string[]> {
  const path = join(folder, `${name}.cjs`);
  await writeFile(path, code);
  return ["--require", path];
}

describe("a working folder that was removed", () => {
  const inGone = async (...args: string[]) => {
    const gone = await mkdtemp(join(folder, "gone-"));
    const code = `process.chdir(${JSON.stringify(gone)}); require("node:fs").rmdirSync(${JSON.stringify(gone)})`;
    return seresnet(args, await preload("gone", code));
  };

  test("inspect and models work, and images with whole paths where there is the addon", async () => {
    const { code, stdout } = await inGone("inspect", "--json");
    expect([code, (JSON.parse(stdout) as { auto: object }).auto]).toMatchObject([0, { device: "reference" }]);
    expect((await inGone("models")).code).toBe(0);
    if (usableDevices.includes("cpu")) expect((await inGone("classify", chelsea, "--device", "cpu")).code).toBe(0);
    // Node.js itself starts no worker threads there
    expectRefusal(await inGone("classify", chelsea, "--device", "reference"), "reference: a worker thread was lost");
  });

  test("what cannot work there says so", async () => {
    const idx = join(folder, "idx-gone");
    await writeIdx(idx, { train: 8, test: 8, side: 8 });
    const train = await inGone("train", idx, "--model", "resnet14_cifar", "--epochs", "1", "--out", "run");
    expectRefusal(train, "run: expected a folder to write into, got no such file");
  });
});

describe("a user without a home", () => {
  const homeless = () => {
    for (const name of ["HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"])
      vi.stubEnv(name, undefined);
    vi.spyOn(os, "homedir").mockImplementation(() => {
      throw Object.assign(new Error("A system error occurred: uv_os_homedir returned ENOENT"), {
        code: "ERR_SYSTEM_ERROR",
      });
    });
  };

  test("is told what names the hub's cache", async () => {
    homeless();
    const loading = loadWeights("hf:me/net");
    await expect(loading).rejects.toThrow(
      "hf:me/net: expected a folder for the cache, named by HF_HUB_CACHE, HF_HOME or HOME, got a user without a home",
    );
    await expect(loading).rejects.toBeInstanceOf(WeightsError);
  });

  test("has no cache, but what XDG_CACHE_HOME names", () => {
    homeless();
    expect(userCache()).toBeUndefined();
    vi.stubEnv("XDG_CACHE_HOME", "/caches");
    expect(userCache()).toBe("/caches");
  });
});

describe("listDevices", () => {
  const denied = () => {
    throw Object.assign(new Error("EACCES: permission denied"), { code: "EACCES" });
  };

  test("does not throw for folders that cannot be read", async () => {
    const env = join(folder, "env");
    await mkdir(join(env, "lib"), { recursive: true });
    vi.spyOn(fs, "readdirSync").mockImplementation(denied);
    expect(cudnnCandidates({ VIRTUAL_ENV: env })).toContain(
      join(env, "lib", "python*", "site-packages", "nvidia", "cudnn", "lib", "libcudnn.so.9"),
    );
    vi.spyOn(fs, "statSync").mockImplementation(denied);
    vi.stubEnv("VIRTUAL_ENV", env);
    vi.stubEnv("SERESNET_CUDNN", env);
    expect(listDevices().map(({ name }) => name)).toEqual(expect.arrayContaining(["cuda", "cpu", "reference"]));
  });

  test("does not throw for a folder's name that no system takes, or a link to itself", async () => {
    const loop = join(folder, "loop");
    fs.symlinkSync(loop, loop);
    for (const env of ["x".repeat(5000), loop]) expect(cudnnCandidates({ VIRTUAL_ENV: env }).length).toBeGreaterThan(0);
  });
});

describe("without sharp", () => {
  const without = () =>
    preload(
      "no-sharp",
      `const { Module } = require("node:module");
       const load = Module._load;
       Module._load = function (name, ...rest) {
         if (name === "sharp") throw new Error("Could not load the \\"sharp\\" module using the linux-x64 runtime\\nPossible solutions: …");
         return load.call(this, name, ...rest);
       };`,
    );

  test("inspect, summary and models work", async () => {
    for (const args of [["inspect"], ["models"], ["summary", "resnet18"]])
      expect(await seresnet(args, await without())).toMatchObject({ code: 0, stderr: "" });
  });

  test("an image is refused in a sentence that says what mends it", async () => {
    const { code, stderr } = await seresnet(["classify", chelsea], await without());
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /seresnet: expected the package sharp, which decodes images, .*\(npm install sharp\), got Could not load the "sharp" module using the linux-x64 runtime\n/,
    );
  });
});

describe("what cannot be written", () => {
  test("--out that is a file, or below one", async () => {
    const idx = join(folder, "idx-out");
    await writeIdx(idx, { train: 8, test: 8, side: 8 });
    const file = join(folder, "file");
    await writeFile(file, "");
    const train = (out: string) => seresnet(["train", idx, "--model", "resnet14_cifar", "--epochs", "1", "--out", out]);
    expectRefusal(await train(file), `${file}: expected a folder to write into`);
    expectRefusal(await train(join(file, "run")), "expected a folder to write into, got no such file");
    if (process.platform === "linux")
      expectRefusal(await train("/proc/self"), /\/proc\/self: expected a folder to write into/);
  });

  test("--out that may not be written into", async () => {
    if (process.getuid?.() === 0) return; // root may
    const idx = join(folder, "idx-ro");
    await writeIdx(idx, { train: 8, test: 8, side: 8 });
    const out = join(folder, "read-only");
    await mkdir(out);
    await chmod(out, 0o500);
    const run = await seresnet(["train", idx, "--model", "resnet14_cifar", "--epochs", "1", "--out", out]);
    expectRefusal(run, `${out}: expected a folder to write into, got no permission`);
  });

  test("metrics and report of a folder that was removed while the run went on", async () => {
    const out = join(folder, "removed");
    await mkdir(out);
    const metrics = await Metrics.open(join(out, "metrics.jsonl"));
    await rm(out, { recursive: true });
    const step = { epoch: 1, step: 20, loss: 0, accuracy: 0, images: 1, lr: 0.1 };
    expect(() => metrics.step(step as never)).toThrow(ArgumentError);
    expect(() => metrics.step(step as never)).toThrow(
      `${join(out, "metrics.jsonl")}: expected a file that can be written, got no such file`,
    );
    await expect(Metrics.open(join(out, "metrics.jsonl"))).rejects.toBeInstanceOf(ArgumentError);
    const source = { info: { model: "net", classes: ["a"] }, settings: {}, history: [] };
    await expect(writeReport(join(out, "report.html"), source as never)).rejects.toThrow(
      /report\.html: expected a file that can be written, got no such file/,
    );
  });
});
