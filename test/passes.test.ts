import { createModel, functional, nn, Tensor, tensor } from "seresnet";
import { ResidualBlock, SEBlock } from "seresnet/models";
import { beforeAll, describe, expect, it } from "vitest";
import { differentiate } from "#lib/graph/passes/differentiate.js";
import { fold } from "#lib/graph/passes/fold.js";
import { expand, fuse } from "#lib/graph/passes/fuse.js";
import { fuseEpilogues } from "#lib/graph/passes/fuse_epilogues.js";
import { rewrite } from "#lib/graph/rewrite.js";
import { constantValue, Node, op, topological, type Value } from "#lib/graph/value.js";
import { inIsolation } from "#lib/lazy/recording.js";
import { sizeOf } from "#lib/shape.js";
import { relativeError } from "./support/compare.js";
import { fill, image } from "./support/weights.js";

type Pass = (roots: readonly Value[]) => Value[];

const both: Pass = (roots) => fuse(fold(roots));

const opsUnder = (root: Value) =>
  topological([root], (value) => value.isLeaf)
    .map(({ op }) => op)
    .filter((op) => op !== "reshape");

/** The network unfused and after `pass` then expansion, both computed by the default device. */
async function compare(model: nn.Module, x: Tensor, pass: Pass) {
  const y = inIsolation(() => model.forward(x));
  const [passed] = pass([y.value]);
  const [expanded] = expand([passed], new Set());
  const [before, after] = await Promise.all([y.data(), new Tensor(expanded).data()]);
  return { ops: opsUnder(passed), error: relativeError(after, before) };
}

/** The gate of squeeze-and-excitation over two images of 8 channels. */
function gateOf(t: Tensor): Tensor {
  const w = tensor(new Float32Array(64).fill(0.1), [8, 8]);
  const b = tensor(new Float32Array(8));
  const squeezed = functional.mean(t, [2, 3]);
  const excited = functional.linear(functional.linear(squeezed, w, b).relu(), w, b).sigmoid();
  return excited.reshape([2, 8, 1, 1]);
}

const models: Record<string, () => nn.Module> = {
  "seed residual block": () => new ResidualBlock(3, 8, 16),
  "seed SE block": () => new SEBlock(3, 8, 16, { reduction: 4 }),
  resnet14_cifar: () => createModel("resnet14_cifar"),
  seresnet14_cifar: () => createModel("seresnet14_cifar"),
  "SE before the branch": () => createModel("seresnet14_cifar", { se: "pre" }),
  "option A": () => createModel("resnet14_cifar", { shortcut: "A" }),
  legacy_seresnet18: () => createModel("legacy_seresnet18"),
  plain20_cifar: () => createModel("plain20_cifar"),
};

describe("passes give the unfused numbers", () => {
  for (const [name, make] of Object.entries(models)) {
    it(name, async () => {
      const model = fill(make(), "passes");
      const x = image("passes", [2, 3, 32, 32]);
      for (const pass of [fold, fuse, both]) {
        const { error } = await compare(model, x, pass);
        expect(error).toBeLessThan(2e-6);
      }
    });
  }
});

describe("passes find their patterns", () => {
  let x: Tensor;
  beforeAll(() => {
    x = image("patterns", [2, 8, 10, 10]);
  });
  const ops = async (record: (x: Tensor) => Tensor, pass: Pass = both) => {
    const y = inIsolation(() => record(x));
    return opsUnder(pass([y.value])[0]);
  };

  it("one step a convolution in a bottleneck network, its gate included", async () => {
    const model = createModel("seresnet50");
    const { ops } = await compareOps(model, [1, 3, 64, 64]);
    const count = (name: string) => ops.filter((op) => op === name).length;
    expect([count("fused_conv2d"), count("conv2d"), count("gated_conv2d")]).toEqual([33, 4, 16]);
    for (const gone of ["relu", "add", "mul", "sigmoid", "batch_norm", "squeeze_excite"])
      expect(ops).not.toContain(gone);
  });

  it("the seed's SE block, whose gate is made of Linear layers and which has no ReLU behind it", async () => {
    const { ops } = await compareOps(new SEBlock(8, 8, 16, { reduction: 4 }), [2, 8, 10, 10]);
    expect(ops.filter((op) => op === "squeeze_excite")).toHaveLength(1); // a ReLU stands before the gate
    expect(ops).not.toContain("sigmoid");
    expect(ops).not.toContain("add");
  });

  it("leave the gate where it is when the convolution's result is read by others, or is not linear", async () => {
    const conv = new nn.Conv2d(8, 8, { kernelSize: 1 });
    const squeeze = (t: Tensor) => t.mul(gateOf(t));
    expect(await ops((t) => squeeze(conv.forward(t)))).toContain("gated_conv2d");
    for (const record of [
      (t: Tensor) => squeeze(conv.forward(t).relu()),
      (t: Tensor) => {
        const y = conv.forward(t);
        return squeeze(y).add(y);
      },
    ]) {
      expect(await ops(record)).toContain("squeeze_excite");
      expect(await ops(record)).not.toContain("gated_conv2d");
    }
  });

  it("are undone only as far as an executor asks", () => {
    const model = createModel("seresnet14_cifar");
    const passed = both([inIsolation(() => model.forward(image("ops", [1, 3, 32, 32]))).value]);
    const known = (...names: string[]) => new Set(opsUnder(expand(passed, new Set(names))[0]));
    expect(known("gated_conv2d", "fused_conv2d")).toContain("gated_conv2d");
    expect(known("squeeze_excite", "fused_conv2d")).toContain("squeeze_excite");
    expect(known("squeeze_excite", "fused_conv2d")).not.toContain("gated_conv2d");
    expect(known()).toContain("sigmoid");
    for (const name of ["gated_conv2d", "squeeze_excite", "fused_conv2d"]) expect(known()).not.toContain(name);
  });

  it("batch norm and ReLU where the weights are not constants", async () => {
    const norm = new nn.BatchNorm2d(8).eval();
    expect(await ops((t) => norm.forward(t).add(t).relu(), fuse)).toEqual(["batch_norm_act"]);
  });

  it("leave a convolution alone whose raw output somebody else reads", async () => {
    const conv = new nn.Conv2d(8, 8, { kernelSize: 1 });
    const recorded = await ops((t) => {
      const y = conv.forward(t);
      return y.relu().add(y.sigmoid());
    });
    expect(recorded).toContain("relu");
    expect(recorded).not.toContain("fused_conv2d");
  });

  it("arithmetic takes what was broadcast for it alone as it was, and what others read as it is", async () => {
    const x = image("narrow", [2, 8, 5, 5]).value;
    const squeezed = () => op("mean", { dims: [2, 3], keepDims: true }, [x], { shape: [2, 8, 1, 1], dtype: "float32" });
    const wide = op("broadcast", { scale: 0.5 }, [squeezed()], x);
    const shared = op("broadcast", { scale: 0.5 }, [squeezed()], x);
    const before = [op("add", {}, [wide, x], x), op("mul", {}, [shared, x], x), op("relu", {}, [shared], x)];
    const after = fuse(before);
    expect(after.map(({ node }) => node.inputs[0].shape)).toEqual([
      [2, 8, 1, 1],
      [2, 8, 5, 5],
      [2, 8, 5, 5],
    ]);
    for (const [i, value] of before.entries())
      expect(relativeError(await new Tensor(after[i]).data(), await new Tensor(value).data())).toBeLessThan(1e-6);
  });

  const trained = (model: nn.Module) => {
    const loss = inIsolation(
      () => functional.crossEntropy(model.forward(image("train", [2, 1, 8, 8])), tensor(Int32Array.of(0, 2))),
      { training: true },
    );
    const parameters = [...model.parameters()].map(({ value }) => value);
    const roots = [...new Node("gradient", {}, [loss.value, ...parameters], parameters).outputs, loss.value];
    const counts = (values: readonly Value[]) => {
      const nodes = topological(values, (value) => value.isLeaf).map(({ op }) => op);
      const wanted = ["batch_norm_train", "gate", "batch_norm_gradient", "gate_gradient", "mul", "add", "relu"];
      return Object.fromEntries(wanted.map((name) => [name, nodes.filter((op) => op === name).length]));
    };
    return { roots, counts };
  };

  it("join the tails of residual blocks to batch norm in training, whose gradient is then one op", () => {
    const { roots, counts } = trained(createModel("resnet14_cifar", { inChannels: 1, numClasses: 3 }));
    const before = { batch_norm_train: 15, gate: 0, batch_norm_gradient: 15, gate_gradient: 0, mul: 0 };
    // of the additions of gradients stay those of identity shortcuts and of projections
    expect(counts(differentiate(roots))).toEqual({ ...before, add: 12, relu: 13 });
    expect(counts(differentiate(fuseEpilogues(roots)))).toEqual({ ...before, add: 6, relu: 0 });
  });

  it("join the tails of squeeze-and-excitation blocks to their gates", () => {
    const { roots, counts } = trained(createModel("seresnet14_cifar", { inChannels: 1, numClasses: 3 }));
    const fused = counts(differentiate(fuseEpilogues(roots)));
    expect(fused).toMatchObject({ batch_norm_train: 15, gate: 6, batch_norm_gradient: 15, gate_gradient: 6, mul: 0 });
    expect(fused.relu).toBe(6); // those between the gates' fully connected layers
  });

  it("give the same gradients with joined tails", async () => {
    for (const name of ["resnet14_cifar", "seresnet14_cifar"]) {
      const { roots } = trained(createModel(name, { inChannels: 1, numClasses: 3 }));
      // a recorded graph has no `fill`: it would be taken for a leaf
      const constant = (values: readonly Value[]) =>
        rewrite(values, ({ node: { op, attributes, outputs } }) => {
          const [{ shape, dtype }] = outputs;
          const data = () => new Float32Array(sizeOf(shape)).fill(attributes.value as number);
          return op === "fill" ? [constantValue(data(), shape, dtype)] : undefined;
        });
      const [want, got] = [roots, fuseEpilogues(roots)].map((values) => constant(differentiate(values)));
      for (const [i, value] of want.entries())
        expect(relativeError(await new Tensor(got[i]).data(), await new Tensor(value).data())).toBeLessThan(1e-5);
    }
  });

  it("leave a tail alone whose residual depends on the statistics of its batch norm, or that somebody else reads", () => {
    const x = image("tail", [2, 3, 4, 4]);
    const { outputs } = new Node("batch_norm_train", { eps: 1e-5 }, [x.value], [x, { shape: [3], dtype: "float32" }]);
    const wide = op(
      "broadcast",
      { scale: 1 },
      [op("reshape", {}, [outputs[1]], { shape: [1, 3, 1, 1], dtype: "float32" })],
      x,
    );
    const ops = (roots: readonly Value[]) =>
      topological(fuseEpilogues(roots), (value) => value.isLeaf).map(
        ({ op, attributes }) => `${op}${attributes.residual ?? ""}`,
      );
    expect(ops([op("add", {}, [outputs[0], wide], x)])).toEqual(["batch_norm_train", "reshape", "broadcast", "add"]);
    const sum = op("add", {}, [outputs[0], x.value], x);
    expect(ops([sum])).toEqual(["batch_norm_traintrue"]);
    expect(ops([sum, outputs[0]])).toEqual(["batch_norm_train", "add"]);
  });

  it("do not take a broadcast addition for a residual one", async () => {
    const conv = new nn.Conv2d(8, 8, { kernelSize: 1 });
    const recorded = await ops((t) => conv.forward(t).add(tensor(new Float32Array(8), [1, 8, 1, 1])));
    expect(recorded).toEqual(["conv2d", "add"]);
  });

  it("do not take a gate over another tensor, or one that is read twice, for squeeze-excite", async () => {
    expect(await ops((t) => t.mul(gateOf(t)))).toContain("squeeze_excite");
    expect(await ops((t) => gateOf(t).mul(t))).toContain("squeeze_excite");
    expect(await ops((t) => t.mul(gateOf(t.relu())))).not.toContain("squeeze_excite");
    expect(
      await ops((t) => {
        // a gate over the whole batch at once
        const w = tensor(new Float32Array(256), [16, 16]);
        const b = tensor(new Float32Array(16));
        const flat = functional.linear(functional.linear(t.mean([2, 3]).reshape([1, 16]), w, b).relu(), w, b);
        return t.mul(flat.sigmoid().reshape([2, 8, 1, 1]));
      }),
    ).not.toContain("squeeze_excite");
    expect(
      await ops((t) => {
        const g = gateOf(t);
        return t.mul(g).add(g);
      }),
    ).not.toContain("squeeze_excite");
  });

  async function compareOps(model: nn.Module, shape: number[]) {
    return { ops: opsUnder(both([inIsolation(() => model.forward(image("ops", shape))).value])[0]) };
  }
});
