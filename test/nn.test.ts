import {
  ArgumentError,
  compile,
  createModel,
  DisposedError,
  DtypeError,
  functional,
  nn,
  ShapeError,
  summary,
  type Tensor,
  tensor,
  WeightsError,
} from "seresnet";
import { describe, expect, it } from "vitest";
import { relativeError } from "./support/compare.js";
import { image } from "./support/weights.js";

class Head extends nn.Module {
  readonly scale = new nn.Parameter([2], 1);
  readonly first = new nn.Linear(2, 3);
  readonly seen = new nn.Buffer([], 0, "int64");
  readonly second = new nn.Sequential({ act: new nn.ReLU(), out: new nn.Linear(3, 1, { bias: false }) });
  readonly note = "not a module";

  forward(x: Tensor): Tensor {
    return this.second.forward(this.first.forward(x.mul(this.scale)));
  }
}

describe("a module of one's own", () => {
  it("registers parameters, buffers and modules by property name, in PyTorch's order", () => {
    const head = new Head();
    const names = ["scale", "seen", "first.weight", "first.bias", "second.out.weight"];
    expect(Object.keys(head.stateDict())).toEqual(names);
    expect([...head.namedParameters()].map(([name]) => name)).toEqual(names.filter((name) => name !== "seen"));
    expect([...head.namedBuffers()].map(([name]) => name)).toEqual(["seen"]);
    expect(head.children()).toEqual([head.first, head.second]);
  });

  it("counts a shared parameter once, and lists it under both names", () => {
    const shared = new nn.Linear(2, 2);
    const twice = new nn.Sequential(shared, shared);
    expect(twice.parameters()).toHaveLength(2);
    expect(Object.keys(twice.stateDict())).toEqual(["0.weight", "0.bias", "1.weight", "1.bias"]);
  });

  it("switches every module below between training and eval", () => {
    const net = createModel("resnet14_cifar");
    const modes = () => new Set([...net.namedModules()].map(([, module]) => module.training));
    expect(modes()).toEqual(new Set([true]));
    expect(net.eval()).toBe(net);
    expect(modes()).toEqual(new Set([false]));
    expect(net.train().training).toBe(true);
  });
});

describe("parameters and buffers", () => {
  it("are made of tensors, as in PyTorch, whether computed already or not", async () => {
    const source = tensor([[1, 2, 3]]);
    const p = new nn.Parameter(source);
    const lazy = new nn.Parameter(source.mul(p).add(1));
    const count = new nn.Buffer(tensor(new Int32Array([7])));
    expect([p.shape, p.dtype, p.requiresGrad]).toEqual([[1, 3], "float32", true]);
    expect([count.shape, count.dtype, count.requiresGrad]).toEqual([[1], "int32", false]);
    p.fill(9);
    expect([...(await lazy.data())]).toEqual([2, 5, 10]);
    expect([...(await source.data())]).toEqual([1, 2, 3]);
    expect(await count.item()).toBe(7);
    lazy.mul(lazy).sum().backward();
    expect([...(await (lazy.grad as Tensor).data())]).toEqual([4, 10, 20]);
    expect(p.grad).toBeUndefined();
  });

  it("a convolution tells what it was made with", () => {
    const conv = new nn.Conv2d(4, 6, { kernelSize: [3, 1], stride: 2, padding: [1, 0], groups: 2 });
    const { inChannels, outChannels, kernelSize, stride, padding, dilation, groups } = conv;
    expect({ inChannels, outChannels, kernelSize, stride, padding, dilation, groups }).toEqual({
      ...{ inChannels: 4, outChannels: 6, kernelSize: [3, 1], stride: [2, 2], padding: [1, 0] },
      ...{ dilation: [1, 1], groups: 2 },
    });
  });
});

describe("first weights", () => {
  const statistics = async (t: Tensor) => {
    const data = [...((await t.data()) as Float32Array)];
    const mean = data.reduce((a, b) => a + b, 0) / data.length;
    return {
      mean,
      std: Math.sqrt(data.reduce((a, b) => a + (b - mean) ** 2, 0) / data.length),
      max: data.reduce((a, b) => Math.max(a, Math.abs(b)), 0),
    };
  };

  it("convolutions are Kaiming normal over the fan-out", async () => {
    const { mean, std } = await statistics(new nn.Conv2d(64, 512, { kernelSize: 3 }).weight);
    expect(mean).toBeCloseTo(0, 2);
    expect(std).toBeCloseTo(Math.sqrt(2 / (512 * 9)), 3);
  });

  it("linear weights and biases are uniform in ±1/sqrt(fanIn), batch norm is 1 and 0", async () => {
    const fc = new nn.Linear(400, 300);
    for (const t of [fc.weight, fc.bias as Tensor]) {
      const { std, max } = await statistics(t);
      expect(max).toBeLessThanOrEqual(1 / 20);
      expect(std).toBeCloseTo(1 / 20 / Math.sqrt(3), 2);
    }
    const norm = new nn.BatchNorm2d(5);
    expect([...(await (norm.weight as Tensor).data())]).toEqual([1, 1, 1, 1, 1]);
    expect([...(await (norm.bias as Tensor).data())]).toEqual([0, 0, 0, 0, 0]);
  });
});

describe("loadStateDict", () => {
  const record = () => ({
    scale: tensor([2, 3]),
    seen: tensor(new BigInt64Array([7n]), []),
    "first.weight": tensor([1, 2, 3, 4, 5, 6], [3, 2]),
    "first.bias": tensor([0, 0, 0]),
    "second.out.weight": tensor([1, 1, 1], [1, 3]),
  });

  it("copies everything, and later changes of the source do not matter", async () => {
    const head = new Head();
    const source = new Head();
    source.loadStateDict(record());
    head.loadStateDict(source.stateDict());
    source.scale.fill(100);
    expect([...(await head.scale.data())]).toEqual([2, 3]);
    expect([...(await head.seen.data())]).toEqual([7n]);
    expect(await head.forward(tensor([[1, 1]])).item()).toBe(2 + 6 + (6 + 12) + (10 + 18));
  });

  it("converts float dtypes", async () => {
    const head = new Head();
    head.loadStateDict({ ...record(), scale: tensor([0.1, 3], [2], { dtype: "bfloat16" }) });
    const [first] = await head.scale.data();
    expect(head.scale.dtype).toBe("float32");
    expect(first).toBeCloseTo(0.1001, 4);
  });

  it("names what is missing, unexpected and of another shape, and writes nothing", async () => {
    const head = new Head();
    const { scale: _, ...rest } = record();
    const bad = { ...rest, extra: tensor([1]), "first.weight": tensor([1, 2], [1, 2]) };
    const load = () => head.loadStateDict(bad);
    expect(load).toThrow(WeightsError);
    expect(load).toThrow("first.weight: expected [3, 2], got [1, 2]");
    expect(load).toThrow("missing scale");
    expect(load).toThrow("unexpected extra");
    try {
      load();
    } catch (error) {
      const { missingKeys, unexpectedKeys, mismatched } = error as WeightsError;
      expect([missingKeys, unexpectedKeys, mismatched.length]).toEqual([["scale"], ["extra"], 1]);
    }
    expect([...(await head.seen.data())]).toEqual([0n]);
  });

  it("not strict: loads what fits and reports the rest; a wrong shape is still refused", async () => {
    const head = new Head();
    const { scale: _, ...rest } = record();
    expect(head.loadStateDict({ ...rest, extra: tensor([1]) }, { strict: false })).toEqual({
      missingKeys: ["scale"],
      unexpectedKeys: ["extra"],
    });
    expect([...(await head.seen.data())]).toEqual([7n]);
    expect(() => head.loadStateDict({ scale: tensor([1]) }, { strict: false })).toThrow(WeightsError);
  });

  it("at most five names in the message", () => {
    const load = () => createModel("resnet14_cifar").loadStateDict({});
    expect(load).toThrow(/missing conv1.weight, bn1.weight, bn1.bias, bn1.running_mean, bn1.running_var and \d+ more/);
  });
});

describe("bad input is one typed sentence", () => {
  const net = createModel("resnet18").eval();
  const cases: [string, () => unknown, new (...args: never[]) => Error, string][] = [
    [
      "channels",
      () => net.forward(image("x", [2, 1, 64, 64])),
      ShapeError,
      "conv2d: expected input [N, 3, H, W], got [2, 1, 64, 64]",
    ],
    ["rank", () => net.forward(image("x", [3, 64, 64])), ShapeError, "got [3, 64, 64]"],
    [
      "dtype",
      () => net.forward(tensor(new Uint8Array(12), [1, 3, 2, 2])),
      DtypeError,
      "expected a float dtype, got uint8",
    ],
    ["empty batch", () => tensor([], [0, 3, 8, 8]), ShapeError, "[0, 3, 8, 8]"],
    ["zero-sized image", () => tensor([], [1, 3, 0, 8]), ShapeError, "[1, 3, 0, 8]"],
    ["too few numbers", () => tensor([1, 2, 3], [2, 2]), ShapeError, "expected 4 elements for shape [2, 2], got 3"],
    ["ragged rows", () => tensor([[1, 2], [3]]), ShapeError, "expected rows of 2 elements"],
    [
      "an array that holds itself",
      () => {
        const loop: number[] = [];
        loop.push(loop as unknown as number);
        return tensor(loop);
      },
      ShapeError,
      "32 levels",
    ],
    ["no dtype of ours", () => tensor(new Uint16Array(2)), DtypeError, "Uint16Array"],
    ["no tensor", () => functional.relu("x" as unknown as Tensor), DtypeError, "got string"],
    ["broadcast", () => tensor([1, 2]).add(tensor([1, 2, 3])), ShapeError, "[2] and [3]"],
    ["mixed dtypes", () => tensor([1]).add(tensor(new Int32Array(1))), DtypeError, "float32 and int32"],
    [
      "window larger than the image",
      () => functional.conv2d(image("x", [1, 1, 2, 2]), image("w", [1, 1, 3, 3])),
      ShapeError,
      "window 3",
    ],
    ["groups", () => new nn.Conv2d(4, 6, { kernelSize: 1, groups: 4 }), ShapeError, "4 groups"],
    [
      "one value per channel in training",
      () => new nn.BatchNorm2d(2).forward(image("x", [1, 2, 1, 1])),
      ShapeError,
      "more than one value",
    ],
    [
      "pool padding",
      () => functional.maxPool2d(image("x", [1, 1, 4, 4]), { kernelSize: 2, padding: 2 }),
      Error,
      "padding of at most half",
    ],
    ["reshape", () => tensor([1, 2, 3]).reshape([2, -1]), ShapeError, "3 elements"],
    ["matmul", () => tensor([[1, 2]]).matmul(tensor([[1, 2]])), ShapeError, "[1, 2] and [1, 2]"],
    ["targets", () => functional.crossEntropy(tensor([[1, 2]]), tensor([1])), DtypeError, "int32 or int64"],
    ["summary", () => summary(net, [1, 3, 0, 224]), ShapeError, "[1, 3, 0, 224]"],
    ["a parameter of nothing", () => new nn.Parameter(undefined as never), ShapeError, "a tensor, or a shape"],
    ["a parameter of an array", () => new nn.Parameter(new Float32Array(2) as never), ShapeError, "got an object"],
    ["a parameter of integers", () => new nn.Parameter(tensor([1]).cast("int32")), DtypeError, "a float dtype"],
    ["a parameter's shape", () => new nn.Parameter([2, -1], 0), ShapeError, "got [2, -1]"],
    ["a parameter without a start", () => new nn.Parameter([2] as never), ArgumentError, "a number or an initialiser"],
    ["a buffer's dtype", () => new nn.Buffer([2], 0, "float64" as never), DtypeError, 'got "float64"'],
  ];
  for (const [name, run, type, message] of cases)
    it(name, () => {
      expect(run).toThrow(type);
      expect(run).toThrow(message);
    });

  it("item of many elements rejects", async () => {
    await expect(tensor([1, 2]).item()).rejects.toThrow(ShapeError);
  });
});

describe("compile", () => {
  it("equals the lazy network, folded or not, and leaves the model in training mode alone", async () => {
    const net = createModel("seresnet14_cifar");
    const x = image("compile", [3, 3, 32, 32]);
    await net.forward(x).data(); // moves the running statistics off 0 and 1
    await using compiled = await compile(net);
    await using unfused = await compile(net, { fuse: false });
    const [a, b] = await Promise.all([compiled.run(x), unfused.run(x)]);
    expect(net.training).toBe(true);
    const wanted = await net.eval().forward(x).data();
    expect(relativeError(await a.data(), wanted)).toBeLessThan(1e-5);
    expect(relativeError(await b.data(), wanted)).toBeLessThan(1e-5);
  });

  it("snapshots the weights, and plans each shape as it comes", async () => {
    const net = createModel("resnet14_cifar").eval();
    const x = image("snapshot", [1, 3, 32, 32]);
    const before = await net.forward(x).data();
    const compiled = await compile(net, { inputShape: [1, 3, 32, 32] });
    for (const parameter of net.parameters()) parameter.fill(0);
    expect(relativeError(await (await compiled.run(x)).data(), before)).toBeLessThan(1e-5);
    expect((await compiled.run(image("other", [2, 3, 24, 40]))).shape).toEqual([2, 10]);
    await compiled.dispose();
    await expect(compiled.run(x)).rejects.toThrow(DisposedError);
  });

  it("normalises uint8 images inside the plan", async () => {
    const net = createModel("resnet14_cifar").eval();
    const pixels = Uint8Array.from({ length: 3 * 32 * 32 }, (_, i) => (i * 37) % 256);
    const mean = [0.5, 0.4, 0.3];
    const std = [0.2, 0.3, 0.4];
    const floats = Float32Array.from(
      pixels,
      (p, i) => (p / 255 - mean[Math.floor(i / 1024)]) / std[Math.floor(i / 1024)],
    );
    await using compiled = await compile(net, { normalize: { mean, std } });
    const fromBytes = await compiled.run(tensor(pixels, [1, 3, 32, 32]));
    const fromFloats = await compiled.run(tensor(floats, [1, 3, 32, 32]));
    expect(relativeError(await fromBytes.data(), await fromFloats.data())).toBeLessThan(1e-5);
    await using plain = await compile(net);
    await expect(plain.run(tensor(pixels, [1, 3, 32, 32]))).rejects.toThrow(DtypeError);
  });

  it("drops a run that was aborted before it started", async () => {
    await using compiled = await compile(createModel("resnet14_cifar"));
    const controller = new AbortController();
    const first = compiled.run(image("x", [8, 3, 32, 32]));
    const second = compiled.run(image("x", [8, 3, 32, 32]), { signal: controller.signal });
    controller.abort();
    await expect(second).rejects.toThrow(/abort/i);
    expect((await first).shape).toEqual([8, 10]);
    await expect(compiled.run(image("x", [1, 3, 32, 32]), { signal: controller.signal })).rejects.toThrow(/abort/i);
  });

  it("refuses devices and dtypes it does not have, and never falls back", async () => {
    const net = createModel("resnet14_cifar");
    await expect(compile(net, { device: "tpu" as "cpu" })).rejects.toThrow(/one of auto, cuda, cpu, reference/);
    await expect(compile(net, { device: "reference", dtype: "float16" })).rejects.toThrow(DtypeError);
    await expect(compile(net, { device: "reference", dtype: "float8" as "float16" })).rejects.toThrow(DtypeError);
    await expect(compile(net, { threads: 0 })).rejects.toThrow(/threads/);
    const compiled = await compile(net, { device: "reference" });
    expect(compiled.device.name).toBe("reference");
    expect(compiled.device.why).toBe("asked for by name");
  });
});

/* PyTorch 2.13: F.avg_pool2d(torch.tensor([1., 2., 3., 4.]).view(2, 2, 1, 1), (4, 5), (4, 1), (1, 2), ceil_mode=True) */
it("a ceil-mode window may be larger than the padded image", async () => {
  const x = tensor([1, 2, 3, 4], [2, 2, 1, 1]);
  const options = { kernelSize: [4, 5], stride: [4, 1], padding: [1, 2], ceilMode: true } as const;
  const [average, largest] = [functional.avgPool2d(x, options), functional.maxPool2d(x, options)];
  expect([average.shape, largest.shape]).toEqual([
    [2, 2, 1, 1],
    [2, 2, 1, 1],
  ]);
  expect(relativeError(await average.data(), [1 / 15, 2 / 15, 3 / 15, 4 / 15])).toBeLessThan(1e-6);
  expect([...(await largest.data())]).toEqual([1, 2, 3, 4]);
});

describe("summary", () => {
  it.each([
    ["resnet18", 11.69, 1.81],
    ["resnet50", 25.557, 4.09],
    ["seresnet50", 28.088, 4.09],
    ["resnet152", 60.193, 11.5],
  ])("%s matches the published counts", (name, millions, gigamacs) => {
    const { parameters, macs } = summary(createModel(name), [1, 3, 224, 224]);
    expect(parameters / 1e6).toBeCloseTo(millions, 2);
    expect(macs / 1e9).toBeCloseTo(gigamacs, 1);
  });

  it("names layers by their modules and writes nothing", async () => {
    const net = createModel("resnet14_cifar");
    const { layers } = summary(net, [4, 3, 32, 32]);
    expect(layers[0]).toEqual({
      name: "conv1",
      op: "conv2d",
      outputShape: [4, 16, 32, 32],
      parameters: 432,
      macs: 4 * 432 * 1024,
    });
    expect(layers.filter(({ name }) => name === "layer2.0.downsample.0")).toHaveLength(1);
    expect((await (net.stateDict()["bn1.num_batches_tracked"] as Tensor).data())[0]).toBe(0n);
  });
});
