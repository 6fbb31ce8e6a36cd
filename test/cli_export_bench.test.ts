import { execFile } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createModel, saveSafetensors } from "seresnet";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { declared, readOnnx } from "./support/onnx.js";

const root = join(__dirname, "..");
const shipped = join(root, "models/weights/seresnet20_cifar_fashion.safetensors");
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-export-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

function seresnet(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const { FORCE_COLOR: _, SERESNET_DEBUG: __, ...inherited } = process.env;
  const env = { ...inherited, SERESNET_DEVICE: "reference" };
  return new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      [join(root, "dist/lib/cli/main.js"), ...args],
      { env, cwd: folder },
      (_error, stdout, stderr) => resolve({ code: child.exitCode ?? -1, stdout, stderr }),
    );
  });
}

describe("seresnet export", () => {
  it("writes a checkpoint with its preprocessing and labels", async () => {
    const { code, stdout, stderr } = await seresnet("export", shipped, "--preprocess", "--onnx", "f.onnx", "--json");
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(JSON.parse(stdout)).toMatchObject({
      file: "f.onnx",
      model: "seresnet20_cifar",
      dtype: "uint8",
      folded: true,
    });
    const { graph, metadata_props } = readOnnx(join(folder, "f.onnx"));
    expect(graph.input[0].type.tensor_type.elem_type).toBe(2); // uint8
    expect(declared(graph.input[0])).toEqual(["N", 1, "H", "W"]);
    const info = JSON.parse(metadata_props.find(({ key }) => key === "seresnet")?.value ?? "");
    expect(info.classes).toContain("Ankle boot");
    // the statistics of the checkpoint are those in the graph
    const scalars = graph.initializer.filter(({ dims }) => `${dims}` === "1,1,1,1").map(({ raw_data }) => raw_data);
    const floats = scalars.map((bytes) => Buffer.from(bytes).readFloatLE());
    expect(floats).toEqual([Math.fround(info.mean[0]), Math.fround(info.std[0])]);
  });

  it("writes a model by name, and says that its weights are not trained", async () => {
    const args = ["export", "resnet14_cifar", "--classes", "7", "--no-fold", "--fixed-batch", "--input", "2,1,16,20"];
    const { code, stdout, stderr } = await seresnet(...args, "--onnx", "r.onnx");
    expect(code).toBe(0);
    expect(stdout).toMatch(/^r\.onnx: resnet14_cifar, 0\.7 MB, input float32 \[2, 1, 16, 20\]\n$/);
    expect(stderr).toMatch(
      /^seresnet: resnet14_cifar is a model's name: r\.onnx holds weights drawn anew, not trained ones\n$/,
    );
    const { graph } = readOnnx(join(folder, "r.onnx"));
    expect(declared(graph.output[0])).toEqual([2, 7]);
    expect(graph.node.some(({ op_type }) => op_type === "BatchNormalization")).toBe(true);
  });

  it("adapts weights to other classes and channels where asked, and says so", async () => {
    const { code, stderr } = await seresnet("export", shipped, "--classes", "3", "--onnx", "three.onnx");
    expect(code).toBe(0);
    expect(stderr.trimEnd().split("\n")).toEqual([
      "seresnet: adapted: fc.weight begins anew, for 3 classes in place of 10",
      "seresnet: adapted: fc.bias begins anew, for 3 classes in place of 10",
    ]);
    expect(declared(readOnnx(join(folder, "three.onnx")).graph.output[0])).toEqual(["N", 3]);
    const image = join(root, "test/fixtures/images/chelsea.png");
    await saveSafetensors(join(folder, "rgb.safetensors"), createModel("resnet14_cifar").stateDict());
    const args = ["--weights", "rgb.safetensors", "--model", "resnet14_cifar", "--in-channels", "1"];
    const classified = await seresnet("classify", image, ...args);
    expect(classified).toMatchObject({
      code: 0,
      stderr: "seresnet: adapted: conv1.weight summed over its 3 channels\n",
    });
  });

  it.each<[string, string[], number, RegExp]>([
    ["a name that is none", ["resnt18", "--onnx", "x.onnx"], 1, /nearest: resnet18/],
    [
      "a file that is not there",
      ["none.safetensors", "--onnx", "x.onnx"],
      1,
      /none\.safetensors: expected .*got no such file/,
    ],
    ["no file to write", ["resnet14_cifar"], 2, /required option '--onnx <file>' not specified/],
    [
      "preprocessing nobody knows",
      ["resnet14_cifar", "--preprocess", "--onnx", "x.onnx"],
      1,
      /expected weights with --preprocess/,
    ],
    [
      "a folder that is not there",
      ["resnet14_cifar", "--onnx", "none/x.onnx"],
      1,
      /expected to write none\/x\.onnx, got no such file/,
    ],
  ])("refuses %s and writes nothing", async (_, args, code, message) => {
    const before = await readdir(folder);
    const outcome = await seresnet("export", ...args);
    expect(outcome).toMatchObject({ code, stdout: "" });
    expect(outcome.stderr).toMatch(message);
    expect(outcome.stderr.trimEnd().split("\n").length).toBe(1);
    expect(await readdir(folder)).toEqual(before);
  });
});

describe("seresnet bench", () => {
  it("times a network on a device", async () => {
    const args = ["bench", "resnet14_cifar", "--device", "reference", "--batch", "1,2", "--seconds", "1", "--json"];
    const { code, stdout, stderr } = await seresnet(...args);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const { model, input, timings } = JSON.parse(stdout);
    expect({ model, input }).toEqual({ model: "resnet14_cifar", input: [3, 32, 32] });
    expect(timings.map(({ device, batch }: { device: string; batch: number }) => [device, batch])).toEqual([
      ["reference", 1],
      ["reference", 2],
    ]);
    for (const { calls, median, fastest, imagesPerSecond, batch } of timings) {
      expect(calls).toBeGreaterThanOrEqual(3);
      expect(fastest).toBeLessThanOrEqual(median);
      expect(imagesPerSecond).toBeCloseTo((batch * 1000) / median, 6);
    }
  });

  it.each([
    ["an unknown model", ["resnt"], 1],
    ["a batch of none", ["resnet18", "--batch", "1,0"], 2],
    ["an unknown device", ["resnet18", "--device", "gpu"], 2],
  ])("refuses %s", async (_, args, code) => {
    const outcome = await seresnet("bench", ...args);
    expect(outcome).toMatchObject({ code, stdout: "" });
    expect(outcome.stderr).toMatch(/^seresnet: /);
  });
});
