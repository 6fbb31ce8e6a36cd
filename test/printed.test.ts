import assert from "node:assert";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { inspect } from "node:util";
import { compile, createModel, nn, optim, summary, type Tensor, tensor, fit as train } from "seresnet";
import { describe, expect, test } from "vitest";

/** From test/fixtures/printed.py. JSON of Python: NaN and Infinity are no JSON of ours. */
const text = readFileSync(resolve("test/fixtures/printed.json"), "utf8");
const golden = JSON.parse(text.replace(/^(\s*)(NaN|-?Infinity)(,?)$/gm, '$1"$2"$3'), (_, value) =>
  value === "NaN" || value === "Infinity" || value === "-Infinity" ? Number(value) : value,
) as Record<string, [data: never, printed: string]> & { module: string };

describe("tensors print as PyTorch's do", () => {
  for (const name of [
    "small",
    "fractions",
    "scalar",
    "whole scalar",
    "special",
    "large",
    "tiny",
    "zeros",
    "deep",
    "many",
  ])
    test(name, () => {
      const [data, printed] = golden[name];
      expect(`${tensor(data)}`).toBe(printed);
      expect(inspect(tensor(data))).toBe(printed);
    });

  test("other dtypes, parameters, and more than a thousand elements", () => {
    expect(`${tensor(Int32Array.of(1, -20))}`).toBe(golden.int32[1]);
    expect(`${tensor(BigInt64Array.of(1n, -20n))}`).toBe(golden.int64[1]);
    expect(`${tensor(Uint8Array.of(0, 255))}`).toBe(golden.uint8[1]);
    expect(`${tensor([0.5, 2], [2], { dtype: "float16" })}`).toBe(golden.half[1]);
    expect(
      `${tensor(
        Float32Array.from({ length: 2000 }, (_, i) => i),
        [20, 100],
      )}`,
    ).toBe(golden.summarized[1]);
  });

  test("values where they are known, and how to know them where not", async () => {
    const sum = tensor([1, 2]).add(1);
    expect(`${sum}`).toBe("tensor(..., size=[2]; await data() for its values)");
    await sum.data();
    expect(`${sum}`).toBe("tensor([2., 3.])");
    const parameter = new nn.Parameter([2], 0.5);
    expect(`${parameter}`).toMatch(/^Parameter containing:\ntensor\(\.\.\., size=\[2\]/);
  });
});

test("modules print as PyTorch's do", () => {
  const model = new nn.Sequential(
    new nn.Conv2d(3, 8, { kernelSize: 3, stride: 2, padding: 1, bias: false }),
    new nn.BatchNorm2d(8),
    new nn.ReLU(),
    new nn.MaxPool2d({ kernelSize: 3, stride: 2, padding: 1 }),
    new nn.Sequential(
      new nn.Conv2d(8, 8, { kernelSize: [3, 1], groups: 2, dilation: 2 }),
      new nn.AvgPool2d({ kernelSize: 2 }),
      new nn.Identity(),
      new nn.Sigmoid(),
    ),
    new nn.Flatten(),
    new nn.Linear(8, 2),
  );
  expect(`${model}`).toBe(golden.module);
  expect(inspect(model)).toBe(golden.module);
  expect(`${createModel("resnet18")}`.split("\n").slice(0, 3)).toEqual([
    "ResNet(",
    "  (conv1): Conv2d(3, 64, kernel_size=(7, 7), stride=(2, 2), padding=(3, 3), bias=False)",
    "  (bn1): BatchNorm2d(64, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)",
  ]);
});

describe("structural equality never lies", () => {
  test("of tensors", async () => {
    expect(tensor([1, 2])).toEqual(tensor([1, 2]));
    expect(tensor([1, 2])).not.toEqual(tensor([3, 4]));
    expect(tensor([1, 2])).not.toEqual(tensor([1, 2], [2, 1]));
    expect(tensor([1, 2])).not.toEqual(tensor(Int32Array.of(1, 2)));
    expect({ a: [tensor([1])] }).not.toEqual({ a: [tensor([2])] });
    assert.deepEqual(tensor([1, 2]), tensor([1, 2]));
    assert.throws(() => assert.deepEqual(tensor([1, 2]), tensor([1, 3])));
    // what is not known is equal to nothing but itself
    const [a, b] = [tensor([1]).add(1), tensor([1]).add(1)];
    expect(a).not.toEqual(b);
    await Promise.all([a.data(), b.data()]);
    expect(a).toEqual(b);
  });

  test("of modules", async () => {
    const filled = (value: number) => {
      const layer = new nn.Linear(1, 1);
      layer.loadStateDict({ weight: tensor([[value]]), bias: tensor([0]) });
      return layer;
    };
    const [one, same, other] = [filled(1), filled(1), filled(2)];
    await Promise.all([one, same, other].flatMap((layer) => layer.parameters().map((p) => p.data())));
    expect(one).not.toEqual(other);
    expect(one).toEqual(same);
  });
});

describe("modules that would register nothing", () => {
  class Listed extends nn.Module {
    readonly layers = [new nn.Linear(2, 2), new nn.Linear(2, 2)];
    forward(x: Tensor): Tensor {
      return this.layers.reduce((y, layer) => layer.forward(y), x);
    }
  }
  class Private extends nn.Module {
    readonly #layer = new nn.Linear(2, 2);
    forward(x: Tensor): Tensor {
      return this.#layer.forward(x);
    }
  }
  class Derived extends Private {}
  class Mapped extends nn.Module {
    readonly layers = new Map([["a", new nn.Linear(2, 2)]]);
    readonly forward = (x: Tensor) => x;
  }
  class Nested extends nn.Module {
    readonly branches = { left: [new nn.Parameter([2], 0)] };
    readonly forward = (x: Tensor) => x;
  }

  test.each([
    [Listed, /^Listed: expected nn\.ModuleList or nn\.ModuleDict to hold .*, got a field layers, a list$/],
    [Private, /^Private: expected a field that others can see .*, got a field #layer, a #private one$/],
    [Derived, /^Derived: .* got a field #layer, a #private one$/],
    [Mapped, /got a field layers, an object$/],
    [Nested, /got a field branches, an object$/],
  ])("%o: are refused by the field's name, whoever asks first", async (Net, message) => {
    expect(() => new Net().stateDict()).toThrow(message);
    expect(() => new Net().parameters()).toThrow(message);
    expect(() => new Net().eval()).toThrow(message);
    expect(() => summary(new Net(), [1, 2])).toThrow(message);
    await expect(compile(new Net())).rejects.toThrow(message);
    const batches = { length: 1, epoch: async function* () {} };
    await expect(train(new Net(), batches, { epochs: 1 })).rejects.toThrow(message);
  });

  test("a parameter from outside is named by compile", async () => {
    const free = new nn.Parameter([2], 1);
    class Outside extends nn.Module {
      readonly forward = (x: Tensor) => x.add(free);
    }
    const compiled = compile(new Outside(), { device: "reference", inputShape: [1, 2] });
    await expect(compiled).rejects.toThrow(/fields of its modules.*, got a parameter of shape \[2\] that is none/);
  });

  test("ModuleList and ModuleDict hold them", () => {
    class Net extends nn.Module {
      readonly layers = new nn.ModuleList([new nn.Linear(2, 2)]).append(new nn.Linear(2, 2));
      readonly heads = new nn.ModuleDict({ a: new nn.Linear(2, 1, { bias: false }) });
      forward(x: Tensor): Tensor {
        for (const layer of this.layers) x = layer.forward(x);
        return this.heads.get("a").forward(x);
      }
    }
    const net = new Net();
    const names = ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias", "heads.a.weight"];
    expect(Object.keys(net.stateDict())).toEqual(names);
    expect(net.layers.length).toBe(2);
    expect(net.layers.at(-1)).toBe([...net.layers][1]);
    expect(net.forward(tensor([[1, 2]])).shape).toEqual([1, 1]);
    expect(new optim.SGD(net.parameters(), { lr: 0.1 })).toBeTruthy();
    expect(() => net.layers.at(2)).toThrow("an index below 2");
    expect(() => net.heads.get("b")).toThrow("a name among a");
    expect(() => new nn.ModuleList([3 as never])).toThrow("expected modules, got number as 0");
    expect(() => net.layers.forward(tensor([1]))).toThrow("one by one");
  });
});
