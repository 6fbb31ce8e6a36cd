import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { compile, createModel, loadWeights, ShapeError, saveSafetensors, type Tensor, tensor } from "seresnet";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadClassifier } from "#lib/classifier/source.js";
import type { Deviation } from "#lib/compile/verify.js";
import { compareDevices, verify } from "#lib/compile/verify.js";
import { noise } from "./support/ops.js";
import { fill } from "./support/weights.js";

const program = join(__dirname, "../dist/lib/cli/main.js");
let folder: string;
let golden: Record<string, Tensor>;
let file: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-verify-"));
  file = join(folder, "golden.safetensors");
  const { network } = await loadClassifier();
  const input = tensor(noise(28 * 28), [1, 1, 28, 28]);
  await using compiled = await compile(network, { device: "reference" });
  const [first] = network.features(input);
  golden = { input, logits: await compiled.run(input), layer1: first, act1: first };
  await saveSafetensors(file, golden);
});
afterAll(() => rm(folder, { recursive: true }));

function seresnet(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const { FORCE_COLOR: _, ...env } = process.env;
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [program, ...args], { env }, (_, stdout, stderr) =>
      resolve({ code: child.exitCode ?? -1, stdout, stderr }),
    );
  });
}

describe("verify", () => {
  it("measures the logits and each module the file has an output of", async () => {
    const { code, stdout } = await seresnet("verify", file, "--devices", "reference", "--json");
    const { model, passed, deviations } = JSON.parse(stdout) as {
      model: string;
      passed: boolean;
      deviations: Deviation[];
    };
    expect([code, model, passed]).toEqual([0, "seresnet20_cifar", true]);
    expect(deviations.map(({ layer, device }) => [layer, device])).toEqual([
      ["layer1", "reference"],
      ["logits", "reference"],
    ]);
    for (const { error } of deviations) expect(error).toBeLessThan(1e-5);
  });

  it("agrees with PyTorch, whose layers and logits a golden file has", async () => {
    const weights = join(folder, "seresnet18.safetensors");
    await saveSafetensors(weights, fill(createModel("seresnet18"), "atlas/seresnet18").stateDict());
    const file = join(__dirname, "fixtures/golden/seresnet18.npz"); // golden/make.py wrote it, from timm's network
    const { code, stdout } = await seresnet("verify", file, "--weights", weights, "--model", "seresnet18", "--json");
    const { passed, deviations } = JSON.parse(stdout) as { passed: boolean; deviations: Deviation[] };
    expect([code, passed]).toEqual([0, true]);
    const layers = ["layer1", "layer2", "layer3", "layer4", "logits"];
    const devices = [...new Set(deviations.map(({ device }) => device))];
    expect(devices).toContain("reference");
    expect(deviations.map(({ layer, device }) => [layer, device])).toEqual(
      devices.flatMap((device) => layers.map((layer) => [layer, device])),
    );
    for (const { error } of deviations) expect(error).toBeLessThan(1e-5);
  });

  it("fails where the logits differ, and shows the layer where it begins", async () => {
    const { network } = await loadClassifier();
    const wrong = { ...golden, logits: golden.logits.mul(1.01) };
    const deviations = await verify(network, wrong, { devices: ["reference"] });
    expect(deviations[0].error).toBeLessThan(1e-5);
    expect(deviations[1].error).toBeCloseTo(0.0099, 3);
    const path = join(folder, "wrong.safetensors");
    await saveSafetensors(path, wrong);
    const { code, stdout } = await seresnet("verify", path, "--devices", "reference");
    expect(code).toBe(1);
    expect(stdout).toMatch(/layer1 +│ +\d\.\d\de-\d.*\n.*logits +│ +9\.90e-3[\s\S]*the logits do not agree/);
  });

  it("says in one sentence what is missing or of another shape", async () => {
    const { network } = await loadClassifier();
    const only = { input: golden.input };
    await expect(verify(network, only, { devices: ["reference"] })).rejects.toThrow(
      'verify: expected a golden tensor "logits", got input',
    );
    const narrow = { ...golden, logits: tensor([1, 2], [1, 2]) };
    await expect(verify(network, narrow, { devices: ["reference"] })).rejects.toThrow(ShapeError);
    const { code, stderr } = await seresnet("verify", join(folder, "none.safetensors"));
    expect([code, stderr.split("\n").length]).toEqual([1, 2]);
    expect((await seresnet("verify", file, "--devices", "gpu")).code).toBe(2);
    expect(Object.keys(await loadWeights(file))).toHaveLength(4);
  });
});

describe("compare", () => {
  it("goes through the modules in order and leaves the network as it was", async () => {
    const { network } = await loadClassifier();
    const deviations = await compareDevices(network, golden.input, { devices: ["reference", "reference"] });
    const layers = ["conv1", "bn1", "maxpool", "layer1", "layer2", "layer3", "avgpool", "fc", "logits"];
    expect(deviations.map(({ layer }) => layer)).toEqual(layers);
    for (const { error } of deviations) expect(error).toBe(0);
    for (const [, module] of network.namedModules()) expect(Object.hasOwn(module, "forward")).toBe(false);
    await expect(compareDevices(network, golden.input, { devices: ["reference"] })).rejects.toThrow(/two devices/);
  });

  it("compares every device that works with the reference", async () => {
    const { code, stdout, stderr } = await seresnet("compare");
    if (code === 1) expect(stderr).toMatch(/at least two devices, got reference/);
    else expect(stdout).toMatch(/seresnet20_cifar: the logits agree/);
  });
});
