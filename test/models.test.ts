import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { createModel, listModels, setDefaultDevice, type Tensor, tensor } from "seresnet";
import { Bottleneck, ResidualBlock, ResNet, SEBlock } from "seresnet/models";
import { beforeAll, describe, expect, test } from "vitest";
import { relativeError } from "./support/compare.js";
import { type Digest, digestError, fill, image } from "./support/weights.js";

interface BlockCase {
  readonly class: "ResidualBlock" | "SE";
  readonly args: readonly [number, number, number];
  readonly shape: readonly number[];
  readonly mode: "eval" | "train";
  readonly out: Digest;
  readonly gradParams: Record<string, unknown>;
  readonly buffers: Record<string, Digest>;
}

const expected: { blocks: BlockCase[] } = JSON.parse(readFileSync(resolve("test/fixtures/expected.json"), "utf8"));
const blocks = { ResidualBlock, SE: SEBlock };
const floats = async (t: Tensor) => (await t.data()) as Float32Array;
const parameterCount = (model: { parameters(): Iterable<Tensor> }) =>
  [...model.parameters()].reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);

beforeAll(() => setDefaultDevice("reference"));

describe("the seed's blocks equal PyTorch's", () => {
  test.each(expected.blocks.map((block) => [block.class, block.mode, block] as const))(
    "%s in %s mode",
    async (name, mode, want) => {
      const block = fill(new blocks[name](...want.args), `atlas/${name}`);
      if (mode === "eval") block.eval();
      const out = block.forward(image(`atlas/${name}/x`, want.shape));
      expect(out.shape).toEqual([want.shape[0], want.args[2], want.shape[2], want.shape[3]]);
      expect(digestError(await floats(out), want.out)).toBeLessThan(1e-5);
      expect([...block.namedParameters()].map(([key]) => key)).toEqual(Object.keys(want.gradParams));
      const state = block.stateDict();
      for (const [key, digest] of Object.entries(want.buffers)) {
        expect(digestError(await floats(state[key]), digest), key).toBeLessThan(1e-5);
      }
      const tracked = Object.keys(state).filter((key) => key.endsWith("num_batches_tracked"));
      expect(tracked.length).toBe(Object.keys(want.buffers).length / 2);
      for (const key of tracked) expect(await state[key].item(), key).toBe(mode === "train" ? 1 : 0);
    },
  );

  test("kernel, padding and reduction are options", async () => {
    const block = new ResidualBlock(4, 6, 8, { kernelSize: 5, padding: 2 });
    expect(block.stateDict()["block.0.weight"].shape).toEqual([6, 4, 5, 5]);
    expect(block.forward(image("x", [1, 4, 6, 7])).shape).toEqual([1, 8, 6, 7]);
    expect(new SEBlock(4, 6, 8, { reduction: 2 }).stateDict()["se.0.weight"].shape).toEqual([4, 8]);
    expect(() => new SEBlock(4, 6, 8)).toThrow("SEBlock: expected reduction in 1..8, got 16");
  });
});

describe("options", () => {
  const cifar = (options: object, name = "resnet14_cifar") => createModel(name, options).eval();
  const x = image("atlas/options/x", [2, 3, 16, 16]);

  test("shortcuts A, B and C differ in parameters by their projections", async () => {
    const count = (shortcut: "A" | "B" | "C") => parameterCount(cifar({ shortcut }));
    const projection = (from: number, to: number) => from * to + 2 * to;
    expect(count("B") - count("A")).toBe(projection(16, 32) + projection(32, 64));
    expect(count("C") - count("B")).toBe(2 * projection(16, 16) + projection(32, 32) + projection(64, 64));
    expect(parameterCount(createModel("resnet20_cifar", { shortcut: "A" }))).toBe(269722);
    for (const shortcut of ["A", "B", "C"]) expect(cifar({ shortcut }).forward(x).shape).toEqual([2, 10]);
  });

  test("shortcut A is the strided input with zero channels after it", async () => {
    const model = fill(cifar({ shortcut: "A" }), "atlas/A");
    const state = model.stateDict();
    const silent = ["layer2.0.bn2.weight", "layer2.0.bn2.bias"];
    model.loadStateDict({
      ...state,
      ...Object.fromEntries(silent.map((key) => [key, tensor(new Float32Array(32))])),
      ...Object.fromEntries(silent.map((key) => [key.replace("2.0", "2.1"), tensor(new Float32Array(32))])),
    });
    const [first, second] = model.features(x);
    const [before, after] = [await floats(first), await floats(second)];
    const want = Float32Array.from({ length: 2 * 32 * 8 * 8 }, (_, i) => {
      const [n, c, h, w] = [Math.floor(i / 2048), Math.floor(i / 64) % 32, Math.floor(i / 8) % 8, i % 8];
      return c < 16 ? before[((n * 16 + c) * 16 + 2 * h) * 16 + 2 * w] : 0;
    });
    expect(relativeError(after, want)).toBeLessThan(1e-6);
  });

  test("a bottleneck strides in its 3x3 or in its first 1x1", async () => {
    const shapes = (stride: "3x3" | "1x1") => {
      const settings = { numClasses: 1000, inChannels: 3, se: "none", zeroInitResidual: false, groups: 1 } as const;
      const more = {
        shortcut: "B",
        reduction: 16,
        widthPerGroup: 64,
        globalPool: "avg",
        step: 2,
        hiddenChannels: () => 8,
      } as const;
      const block = new Bottleneck(8, 4, { ...settings, ...more, stride }).eval();
      const y = block.conv1.forward(image("atlas/stride/x", [1, 8, 6, 6]));
      return [y.shape, block.conv2.forward(y).shape];
    };
    expect(shapes("3x3")).toEqual([
      [1, 4, 6, 6],
      [1, 4, 3, 3],
    ]);
    expect(shapes("1x1")).toEqual([
      [1, 4, 3, 3],
      [1, 4, 3, 3],
    ]);
    const small = { block: Bottleneck, layers: [1, 1, 1], stem: "cifar" } as const;
    const run = (stride: "3x3" | "1x1") =>
      floats(fill(new ResNet("small", small, { stride }).eval(), "atlas/stride").forward(x));
    expect(relativeError(await run("1x1"), await run("3x3"))).toBeGreaterThan(1e-3);
  });

  test("every SE placement runs and gives its own answer", async () => {
    const outputs = new Map<string, Float32Array>();
    for (const se of ["none", "standard", "pre", "post", "identity"]) {
      outputs.set(se, await floats(fill(cifar({ se }), "atlas/placement").forward(x)));
    }
    const entries = [...outputs];
    for (const [i, [a, left]] of entries.entries()) {
      for (const [b, right] of entries.slice(i + 1)) {
        expect(relativeError(left, right), `${a} and ${b}`).toBeGreaterThan(1e-3);
      }
    }
    const pre = cifar({ se: "pre" }).stateDict();
    expect(pre["layer2.0.se.fc1.weight"].shape).toEqual([4, 16, 1, 1]);
    expect(cifar({ se: "post" }).stateDict()["layer2.0.se.fc1.weight"].shape).toEqual([4, 32, 1, 1]);
  });

  test("the squeeze's width follows the family's rule and the reduction", () => {
    const hidden = (name: string, key: string, options = {}) => createModel(name, options).stateDict()[key].shape[0];
    expect(hidden("seresnet18", "layer1.0.se.fc1.weight")).toBe(8);
    expect(hidden("legacy_seresnet18", "layer1.0.se_module.fc1.weight")).toBe(4);
    expect(hidden("seresnet14_cifar", "layer3.0.se.fc1.weight")).toBe(4);
    expect(hidden("seresnet14_cifar", "layer3.0.se.fc1.weight", { reduction: 4 })).toBe(16);
    expect(hidden("seresnet18", "layer4.0.se.fc1.weight", { reduction: 8 })).toBe(64);
    expect(hidden("seresnet18", "layer1.0.se.fc1.weight", { reduction: 5 })).toBe(16); // 12.8, to the nearest multiple of 8
  });

  test("zeroInitResidual makes every block start as its shortcut", async () => {
    for (const [name, last] of [
      ["resnet14_cifar", "bn2"],
      ["resnet50", "bn3"],
      ["legacy_seresnet50", "bn3"],
    ]) {
      const state = createModel(name, { zeroInitResidual: true }).stateDict();
      expect(new Set(await floats(state[`layer1.1.${last}.weight`])), name).toEqual(new Set([0]));
      expect(new Set(await floats(state["layer1.1.bn1.weight"])), name).toEqual(new Set([1]));
    }
    const model = cifar({ zeroInitResidual: true }) as ResNet;
    const stem = model.bn1.forward(model.conv1.forward(x)).relu();
    expect(relativeError(await floats(model.features(x)[0]), await floats(stem))).toBeLessThan(1e-6);
  });

  test("plain networks have no shortcut and take no option about one", () => {
    const names = Object.keys(createModel("plain34").stateDict());
    expect(names.filter((name) => /downsample|se\./.test(name))).toEqual([]);
    expect(() => createModel("plain20_cifar", { shortcut: "A" })).toThrow(
      "plain20_cifar: expected options among numClasses, inChannels, globalPool (nearest: inChannels, globalPool, numClasses), got shortcut",
    );
  });

  test("features gives each stage's output", () => {
    const shapes = (name: string, size: number) =>
      createModel(name)
        .eval()
        .features(image("x", [1, 3, size, size]))
        .map(({ shape }) => shape);
    expect(shapes("seresnet50", 64)).toEqual([
      [1, 256, 16, 16],
      [1, 512, 8, 8],
      [1, 1024, 4, 4],
      [1, 2048, 2, 2],
    ]);
    expect(shapes("legacy_seresnet18", 68)).toEqual([
      [1, 64, 17, 17],
      [1, 128, 9, 9],
      [1, 256, 5, 5],
      [1, 512, 3, 3],
    ]);
    expect(shapes("plain20_cifar", 28)).toEqual([
      [1, 16, 28, 28],
      [1, 32, 14, 14],
      [1, 64, 7, 7],
    ]);
  });

  test("numClasses and inChannels shape the ends; undefined means the default", () => {
    const state = createModel("seresnet14_cifar", { numClasses: 7, inChannels: 1, reduction: undefined }).stateDict();
    expect(state["conv1.weight"].shape).toEqual([16, 1, 3, 3]);
    expect(state["fc.weight"].shape).toEqual([7, 64]);
    expect(state["layer1.0.se.fc1.weight"].shape).toEqual([4, 16, 1, 1]);
  });

  test("a network knows its name and options, and they rebuild it", () => {
    const model = createModel("seresnet20_cifar", { inChannels: 1, shortcut: "C", seed: 5 });
    expect(model.modelName).toBe("seresnet20_cifar");
    expect(model.options).toMatchObject({ inChannels: 1, numClasses: 10, shortcut: "C", se: "standard" });
    const again = createModel(model.modelName, model.options);
    expect(Object.keys(again.stateDict())).toEqual(Object.keys(model.stateDict()));
    for (const name of listModels()) expect(createModel(name, createModel(name).options).modelName).toBe(name);
  });

  test("the seed alone decides the weights", async () => {
    const weight = (seed?: number) =>
      floats(createModel("resnet14_cifar", { seed }).stateDict()["layer1.0.conv1.weight"]);
    expect(await weight()).toEqual(await weight(0));
    expect(await weight(3)).toEqual(await weight(3));
    expect(await weight(3)).not.toEqual(await weight(4));
  });
});

describe("wrong use", () => {
  const wrong =
    (options: unknown, name = "resnet18") =>
    () =>
      createModel(name, options as object);

  test("an unknown model names the nearest", () => {
    expect(() => createModel("seresnet51")).toThrow(/nearest: seresnet50, .*got "seresnet51"/);
    expect(() => createModel("ResNet18")).toThrow(/nearest: resnet18,/);
    expect(() => createModel("toString")).toThrow(/listModels/);
    expect(() => createModel(undefined as unknown as string)).toThrow(/got undefined/);
    expect(() => createModel("nope")).toThrow(expect.objectContaining({ code: "ERR_ARGUMENT" }));
  });

  test.each([
    [{ classes: 10, depth: 3 }, "got classes, depth"],
    [{ numClasses: -1 }, "resnet18: expected numClasses to be an integer of at least 0, got -1"],
    [{ numClasses: "10" }, 'resnet18: expected numClasses to be an integer of at least 0, got "10"'],
    [{ inChannels: 2.5 }, "resnet18: expected inChannels to be a positive integer, got 2.5"],
    [{ shortcut: "D" }, 'resnet18: expected shortcut to be one of "A", "B", "C", got "D"'],
    [{ stride: 2 }, 'resnet18: expected stride to be one of "3x3", "1x1", got 2'],
    [{ se: true }, "resnet18: expected se to be one of"],
    [{ zeroInitResidual: 1 }, "resnet18: expected zeroInitResidual to be true or false, got 1"],
    [{ seed: 0.5 }, "resnet18: expected seed to be an integer, got 0.5"],
    [{ groups: 2 }, "BasicBlock: expected groups 1 and widthPerGroup 64, got groups 2 and widthPerGroup 64"],
    [null, "resnet18: expected options as an object, got null"],
    [[], "resnet18: expected options as an object, got []"],
  ])("%j", (options, message) => {
    expect(wrong(options)).toThrow(message);
    expect(wrong(options)).toThrow(expect.objectContaining({ code: "ERR_ARGUMENT" }));
  });

  test("legacy networks take only what timm's have", () => {
    expect(wrong({ se: "pre" }, "legacy_seresnet50")).toThrow("got se");
    expect(wrong({ reduction: 8 }, "legacy_seresnet50")).not.toThrow();
  });
});
