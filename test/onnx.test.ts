import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createModel, exportOnnx, functional, nn, setDefaultDevice, type Tensor, tensor } from "seresnet";
import { ResidualBlock, SEBlock } from "seresnet/models";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { relativeError } from "./support/compare.js";
import { declared, OnnxChecker, type OnnxRuntime, onnxRuntime, readOnnx, runOnnx } from "./support/onnx.js";
import { fill, image } from "./support/weights.js";

const ort = onnxRuntime();
const checker = OnnxChecker.open();

let folder: string;
let files = 0;
const file = () => join(folder, `${files++}.onnx`);
const size = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

beforeAll(async () => {
  setDefaultDevice("reference");
  folder = await mkdtemp(join(tmpdir(), "seresnet-onnx-"));
});
afterAll(async () => {
  await checker?.close();
  await rm(folder, { recursive: true, force: true });
});

/** A module out of a function. */
class Net extends nn.Module {
  readonly #body: (x: Tensor) => Tensor;
  constructor(
    body: (x: Tensor) => Tensor,
    readonly layers: nn.Module = new nn.Identity(),
  ) {
    super();
    this.#body = body;
  }
  forward(x: Tensor): Tensor {
    return this.#body(this.layers.forward(x));
  }
}

describe("the file", () => {
  it("holds the state dict bit for bit under its own names, and says what it takes", async () => {
    const model = fill(createModel("seresnet14_cifar"), "onnx");
    const path = file();
    await exportOnnx(model, path, { inputShape: [1, 3, 32, 32], folded: false, metadata: { labels: "a,b" } });
    const { graph, ...rest } = readOnnx(path);
    expect(rest).toMatchObject({
      ir_version: 8,
      producer_name: "seresnet",
      producer_version: JSON.parse(await readFile(join(__dirname, "../package.json"), "utf8")).version,
      opset_import: [{ domain: "", version: 17 }],
      metadata_props: [{ key: "labels", value: "a,b" }],
    });
    expect(graph.input.map(({ name }) => name)).toEqual(["input"]);
    expect(declared(graph.input[0])).toEqual(["N", 3, 32, 32]);
    expect(graph.output.map(({ name }) => name)).toEqual(["output"]);
    expect(declared(graph.output[0])).toEqual(["N", 10]);

    const initializers = new Map(graph.initializer.map((tensor) => [tensor.name, tensor]));
    let compared = 0;
    for (const [name, value] of Object.entries(model.stateDict())) {
      if (name.endsWith("num_batches_tracked")) continue;
      const stored = initializers.get(name);
      expect(stored, name).toMatchObject({ dims: value.shape, data_type: 1 });
      const data = (await value.data()) as Float32Array;
      expect(Buffer.compare(Buffer.from(data.buffer), stored?.raw_data as Uint8Array), name).toBe(0);
      compared++;
    }
    expect(graph.initializer.length - compared).toBe(1); // the shape that flatten reshapes to
  });

  it("lists nodes in order, each name once, and every value with its shape", async () => {
    for (const folded of [true, false]) {
      const path = file();
      await exportOnnx(createModel("legacy_seresnet18"), path, { inputShape: [1, 3, 64, 64], folded });
      const { graph } = readOnnx(path);
      const known = new Set(["input", ...graph.initializer.map(({ name }) => name)]);
      expect(known.size).toBe(graph.initializer.length + 1);
      for (const { input, output } of graph.node) {
        for (const name of input) expect(known).toContain(name);
        for (const name of output) {
          expect(known).not.toContain(name);
          known.add(name);
        }
      }
      const counts = (op: string) => graph.node.filter(({ op_type }) => op_type === op).length;
      expect([counts("Conv"), counts("BatchNormalization"), counts("Gemm")]).toEqual([36, folded ? 0 : 20, 1]);
      const shapes = new Map(graph.value_info.map((value) => [value.name, declared(value)]));
      expect(graph.value_info.length).toBe(graph.node.length - 1);
      expect(shapes.get("max_pool2d")).toEqual(["N", 64, 16, 16]);
      expect(shapes.get("layer1.0.se_module.fc1")).toEqual(["N", 4, 1, 1]);
    }
  });

  it("has a fixed batch on request", async () => {
    const path = file();
    await exportOnnx(createModel("resnet14_cifar"), path, { inputShape: [4, 3, 32, 32], dynamicBatch: false });
    const { graph } = readOnnx(path);
    expect([...declared(graph.input[0]), ...declared(graph.output[0])]).toEqual([4, 3, 32, 32, 4, 10]);
  });

  it("takes any size on request, where the model does", async () => {
    const path = file();
    await exportOnnx(createModel("seresnet18"), path, { inputShape: [1, 3, 64, 64], dynamicSize: true });
    expect(declared(readOnnx(path).graph.input[0])).toEqual(["N", 3, "H", "W"]);
    const flat = new nn.Sequential(new nn.Conv2d(1, 2, { kernelSize: 3 }), new nn.Flatten(), new nn.Linear(72, 2));
    const one = { inputShape: [1, 1, 8, 8] };
    await expect(exportOnnx(flat, path, { ...one, dynamicSize: true })).rejects.toThrow(
      /a model that takes images of any size \(or dynamicSize: false\)/,
    );
    await exportOnnx(flat, path, { ...one, dynamicSize: "auto" });
    expect(declared(readOnnx(path).graph.input[0])).toEqual(["N", 1, 8, 8]);
    // what a ceil-mode pool has behind the image depends on the image
    const legacy = createModel("legacy_seresnet18");
    await expect(exportOnnx(legacy, path, { inputShape: [1, 3, 64, 64], dynamicSize: true })).rejects.toThrow(
      "pools in floor mode where any size is taken, got one in ceil mode",
    );
  });

  it("is of the operator set that is asked for", async () => {
    const path = file();
    for (const [opset, ir] of [
      [9, 4],
      [11, 6],
      [13, 7],
      [17, 8],
      [21, 10],
    ]) {
      await exportOnnx(createModel("resnet14_cifar"), path, { inputShape: [1, 3, 32, 32], opset });
      expect(readOnnx(path)).toMatchObject({ ir_version: ir, opset_import: [{ domain: "", version: opset }] });
    }
    for (const opset of [8, 22, 12.5, "17"])
      await expect(
        exportOnnx(createModel("resnet14_cifar"), path, { inputShape: [1, 3, 32, 32], opset: opset as number }),
      ).rejects.toThrow("opset to be a whole number from 9 to 21");
  });

  it("changes neither the model's mode nor its statistics", async () => {
    const model = createModel("resnet14_cifar").train();
    const before = await model.stateDict()["bn1.running_mean"].data();
    await exportOnnx(model, file(), { inputShape: [1, 3, 32, 32] });
    expect(model.training).toBe(true);
    expect(await model.stateDict()["bn1.running_mean"].data()).toEqual(before);
    expect(await model.stateDict()["bn1.num_batches_tracked"].item()).toBe(0);
  });
});

/** What test/onnx_zoo.test.ts leaves out: options, odd sizes, batches. */
const whole: [name: string, options: object, shape: number[]][] = [
  ["seresnet18", {}, [2, 3, 64, 64]],
  ["legacy_seresnet18", {}, [2, 3, 70, 61]],
  ["resnet14_cifar", { shortcut: "A", inChannels: 1 }, [3, 1, 28, 28]],
  ["seresnet14_cifar", { shortcut: "C", se: "pre" }, [3, 3, 32, 32]],
  ["seresnet14_cifar", { se: "post" }, [3, 3, 33, 31]],
  ["seresnet20_cifar", { se: "identity" }, [3, 3, 32, 32]],
];

const input = (shape: number[]) => image("onnx/x", shape);
const pool = (options: object) => new nn.AvgPool2d({ kernelSize: 3, stride: 2, ...options });

/** Modules with what the zoo does not use. */
const parts: [name: string, make: () => nn.Module, shape: number[]][] = [
  ["ResidualBlock", () => new ResidualBlock(3, 4, 5), [2, 3, 7, 6]],
  ["SEBlock", () => new SEBlock(3, 4, 32), [2, 3, 7, 6]],
  [
    "conv2d",
    () => new nn.Conv2d(4, 6, { kernelSize: [3, 2], stride: [2, 1], padding: [1, 0], dilation: 2, groups: 2 }),
    [2, 4, 9, 8],
  ],
  ["batch norm of its own batch", () => new nn.BatchNorm2d(3, { trackRunningStats: false }), [2, 3, 4, 5]],
  ["batch norm without affine", () => new nn.BatchNorm2d(3, { affine: false, eps: 0.1 }), [2, 3, 4, 5]],
  ["linear of three dimensions", () => new nn.Linear(5, 4), [2, 3, 5]],
  [
    "max_pool2d dilated, ceil",
    () => new nn.MaxPool2d({ kernelSize: 2, stride: 3, dilation: 3, ceilMode: true }),
    [2, 3, 9, 8],
  ],
  [
    "max_pool2d ceil, padded",
    () => new nn.MaxPool2d({ kernelSize: 3, stride: 2, padding: 1, ceilMode: true }),
    [2, 3, 8, 7],
  ],
  ["avg_pool2d", () => pool({ padding: 1 }), [2, 3, 7, 9]],
  ["avg_pool2d ceil", () => pool({ ceilMode: true }), [2, 3, 8, 7]],
  ["avg_pool2d ceil, padded", () => pool({ ceilMode: true, padding: 1 }), [2, 3, 8, 7]],
  [
    "avg_pool2d ceil, padded, not counted",
    () => pool({ ceilMode: true, padding: 1, countIncludePad: false }),
    [2, 3, 8, 7],
  ],
  [
    "arithmetic",
    () =>
      new Net((x) =>
        x
          .mul(x)
          .add(1)
          .sqrt()
          .div(tensor([2, 4], [2, 1]))
          .sub(x),
      ),
    [2, 3, 2, 4],
  ],
  ["exp, log, neg, sigmoid", () => new Net((x) => functional.neg(functional.log(functional.exp(x)).sigmoid())), [2, 3]],
  ["softmax, log_softmax", () => new Net((x) => x.softmax(1).add(functional.logSoftmax(x, 0))), [2, 3, 4]],
  [
    "matmul, reshape, sum, mean",
    () =>
      new Net((x) =>
        x
          .matmul(x.reshape([-1, 4, 3]))
          .sum(2)
          .mean([1]),
      ),
    [2, 3, 4],
  ],
  ["a sum over the batch", () => new Net((x) => x.sum(0, { keepDims: true })), [2, 3]],
  ["slices along the batch", () => new Net((x) => functional.slice(x, { starts: [1, 0], steps: [2, 2] })), [5, 3]],
  ["the first of the batch", () => new Net((x) => functional.slice(x, { ends: [1, 3] })), [5, 3]],
  ["pad", () => new Net((x) => functional.pad(x, [0, 1, 0], [0, 0, 2])), [2, 3, 4]],
  ["cast", () => new Net((x) => x.mul(9).cast("int32").cast("float32")), [2, 3]],
  ["nothing at all", () => new nn.Identity(), [2, 3]],
];

describe.runIf(ort)("onnxruntime gives our answers", () => {
  async function compare(model: nn.Module, x: Tensor, folded: boolean, limit: number): Promise<void> {
    const path = file();
    await exportOnnx(model, path, { inputShape: x.shape, folded });
    const output = await runOnnx(ort as OnnxRuntime, path, "float32", (await x.data()) as Float32Array, x.shape);
    await rm(path);
    const want = model.forward(x);
    expect(output.dims).toEqual([...want.shape]);
    expect(relativeError(output.data, (await want.data()) as Float32Array)).toBeLessThan(limit);
  }

  it.each(whole)("%s %o", async (name, options, shape) => {
    const model = fill(createModel(name, options), `onnx/${name}`).eval();
    const x = input(shape);
    await compare(model, x, true, 1e-5);
    if (name.endsWith("_cifar")) await compare(model, x, false, 1e-5);
  });

  it.each(parts)("%s", async (name, make, shape) => {
    const model = fill(make(), `onnx/${name}`).eval();
    for (const folded of [true, false]) await compare(model, input(shape), folded, 1e-5);
  });

  it("normalises uint8 pixels inside the graph", async () => {
    const model = fill(createModel("resnet14_cifar"), "onnx").eval();
    const path = file();
    const normalize = { mean: [0.4, 0.5, 0.6], std: [0.2, 0.3, 0.25] };
    await exportOnnx(model, path, { inputShape: [1, 3, 32, 32], normalize });
    const shape = [2, 3, 32, 32];
    const pixels = Uint8Array.from({ length: size(shape) }, (_, i) => (i * 97) % 256);
    const floats = Float32Array.from(pixels, (p, i) => {
      const channel = Math.floor(i / 1024) % 3;
      return (p / 255 - normalize.mean[channel]) / normalize.std[channel];
    });
    const output = await runOnnx(ort as OnnxRuntime, path, "uint8", pixels, shape);
    expect(
      relativeError(output.data, (await model.forward(tensor(floats, shape)).data()) as Float32Array),
    ).toBeLessThan(1e-5);
  });
});

describe.runIf(checker)("the ONNX checker", () => {
  it("accepts every kind of file", async () => {
    const paths: string[] = [];
    const add = async (model: nn.Module, shape: readonly number[], options: object) => {
      paths.push(file());
      await exportOnnx(model, paths[paths.length - 1], { inputShape: shape, ...options });
    };
    for (const folded of [true, false]) {
      await add(createModel("legacy_seresnet18"), [1, 3, 70, 61], { folded });
      await add(createModel("resnet14_cifar", { shortcut: "A" }), [1, 3, 32, 32], { folded });
      for (const [, make, shape] of parts) await add(make(), shape, { folded });
    }
    await add(createModel("resnet14_cifar"), [4, 3, 32, 32], { dynamicBatch: false });
    await add(createModel("resnet14_cifar"), [1, 3, 32, 32], { normalize: { mean: [0, 0, 0], std: [1, 1, 1] } });
    for (const path of paths) expect(await checker?.check(path), path).toBe("accepted");
  });

  it("is one that refuses", async () => {
    const path = file();
    await writeFile(path, "no model");
    expect(await checker?.check(path)).not.toBe("accepted");
  });
});

describe("what cannot be written", () => {
  const identity = new nn.Identity();
  const shape = [1, 3, 8, 8];
  const untyped = exportOnnx as (...args: unknown[]) => Promise<void>;

  it.each<[string, () => Promise<void>, RegExp]>([
    [
      "no model",
      () => untyped({}, "x.onnx", { inputShape: shape }),
      /^exportOnnx: expected a model \(nn\.Module\), got an object$/,
    ],
    ["no path", () => untyped(identity, 7, { inputShape: shape }), /^exportOnnx: expected a path, got 7$/],
    ["no options", () => untyped(identity, "x.onnx"), /^exportOnnx: expected options as an object, got undefined$/],
    [
      "no shape",
      () => untyped(identity, "x.onnx", {}),
      /^exportOnnx: expected inputShape of integers of at least 1, got undefined$/,
    ],
    [
      "a shape the model does not take",
      () => exportOnnx(createModel("resnet14_cifar"), file(), { inputShape: [1, 4, 64, 64] }),
      /^conv2d: expected input \[N, 3, H, W\], got \[1, 4, 64, 64\]$/,
    ],
    [
      "statistics of other channels",
      () => exportOnnx(identity, file(), { inputShape: shape, normalize: { mean: [0], std: [1] } }),
      /^exportOnnx: expected 1 channels, as in normalize, got \[1, 3, 8, 8\]$/,
    ],
    [
      "metadata of numbers",
      () => untyped(identity, file(), { inputShape: shape, metadata: { epoch: 3 } }),
      /^exportOnnx: expected metadata "epoch" as a string, got 3$/,
    ],
    [
      "an op ONNX lacks",
      () => {
        const loss = new Net((x) => functional.crossEntropy(x, tensor(Int32Array.of(1, 2))));
        return exportOnnx(loss, file(), { inputShape: [2, 3], dynamicBatch: false });
      },
      /^exportOnnx: expected ops that ONNX has, got cross_entropy$/,
    ],
    [
      "a model for one batch size",
      () => exportOnnx(new Net((x) => x.add(tensor(new Float32Array(4), [4, 1]))), file(), { inputShape: [4, 3] }),
      /^exportOnnx: expected a model that takes any batch size \(or dynamicBatch: false\), got add: expected shapes that broadcast/,
    ],
    [
      "a constant made of the batch size",
      () => exportOnnx(new Net((x) => x.sum(0).div(x.shape[0])), file(), { inputShape: [4, 3] }),
      /^exportOnnx: expected a model that is the same for every batch size \(or dynamicBatch: false\), got a div that depends on it$/,
    ],
    [
      "more than protobuf holds",
      () => exportOnnx(new nn.Linear(30_000, 30_000), file(), { inputShape: [1, 30_000] }),
      /^exportOnnx: expected a model of less than 2 GiB \(protobuf's limit\), got 3600120000 bytes$/,
    ],
    [
      "a folder that is not there",
      () => exportOnnx(identity, join(folder, "none", "x.onnx"), { inputShape: shape }),
      /^exportOnnx: expected to write .*x\.onnx, got no such file$/,
    ],
  ])("%s", async (_, work, message) => {
    await expect(work()).rejects.toMatchObject({
      code: expect.stringMatching(/^ERR_/),
      message: expect.stringMatching(message),
    });
  });

  it("leaves the older file as it was, and no other", async () => {
    const inside = await mkdtemp(join(folder, "kept-"));
    const path = join(inside, "x.onnx");
    await writeFile(path, "old");
    const loss = new Net((x) => functional.crossEntropy(x, tensor(Int32Array.of(1))));
    await expect(exportOnnx(loss, path, { inputShape: [1, 3], dynamicBatch: false })).rejects.toThrow("cross_entropy");
    expect([await readdir(inside), await readFile(path, "utf8")]).toEqual([["x.onnx"], "old"]);
  });
});
