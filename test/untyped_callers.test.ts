import { runInNewContext } from "node:vm";
import {
  compile,
  DtypeError,
  functional,
  ImageError,
  loadImage,
  nn,
  setDefaultDevice,
  summary,
  Tensor,
  tensor,
} from "seresnet";
import sharp from "sharp";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { harmless, print, printJson, warn } from "#lib/cli/output.js";
import { ArgumentError } from "#lib/errors.js";

// an unhandled rejection ends a process
const unhandled = vi.fn();
beforeEach(() => void process.on("unhandledRejection", unhandled));
afterEach(async () => {
  await new Promise((tick) => setImmediate(tick));
  process.off("unhandledRejection", unhandled);
  expect(unhandled).not.toHaveBeenCalled();
  vi.restoreAllMocks();
  setDefaultDevice("auto");
});

class Double extends nn.Module {
  override forward(x: Tensor): Tensor {
    return x.mul(2);
  }
}

describe("what a tensor is", () => {
  const imitations: readonly (readonly [string, () => unknown])[] = [
    ["an object that inherits from Tensor", () => Object.create(Tensor.prototype)],
    ["one that inherits from a tensor", () => Object.create(tensor([1]))],
    ["a proxy of a tensor", () => new Proxy(tensor([1]), {})],
    ["a proxy of a parameter", () => new Proxy(new nn.Parameter([1], 0), {})],
    ["a plain object like one", () => ({ shape: [1], dtype: "float32", value: {} })],
  ];

  test.each(imitations)("%s is none, everywhere", async (_, make) => {
    const wrong = make() as Tensor;
    expect(wrong instanceof Tensor).toBe(false);
    expect(wrong instanceof nn.Parameter).toBe(false);
    expect(() => functional.relu(wrong)).toThrow(DtypeError);
    expect(() => tensor([1]).add(wrong)).toThrow(DtypeError);
    await using compiled = await compile(new Double(), { device: "reference" });
    await expect(compiled.run(wrong)).rejects.toBeInstanceOf(DtypeError);
  });

  test("an instance of a subclass is one", async () => {
    class Named extends nn.Parameter {
      readonly label = "mine";
    }
    const named = new Named([2], 3);
    expect([named instanceof Tensor, named instanceof nn.Parameter, named instanceof Named]).toEqual([
      true,
      true,
      true,
    ]);
    expect(tensor([1]) instanceof nn.Parameter).toBe(false);
    await using compiled = await compile(new Double(), { device: "reference" });
    expect(await (await compiled.run(named)).data()).toEqual(Float32Array.of(6, 6));
  });

  test("an imitation in a module's field is named, for it would register nothing", () => {
    class Holder extends Double {
      readonly weight = new Proxy(new nn.Parameter([1], 0), {});
    }
    expect(() => new Holder().stateDict()).toThrow(
      /^Holder: expected tensors themselves .* got a field weight, a proxy/,
    );
    expect(() => new Holder().stateDict()).toThrow(ArgumentError);
  });
});

describe("typed arrays", () => {
  test.each(["Float32Array", "Float64Array", "Int32Array", "Uint8Array", "Uint8ClampedArray"])(
    "%s of another realm is taken as this realm's",
    async (kind) => {
      const foreign = runInNewContext(`${kind}.of(1, 2)`) as Uint8Array;
      expect(foreign instanceof Object).toBe(false);
      const own = (globalThis as unknown as Record<string, typeof Uint8Array>)[kind].of(1, 2);
      const made = tensor(foreign);
      expect(made.dtype).toBe(tensor(own).dtype);
      expect(await made.data()).toEqual(await tensor(own).data());
    },
  );

  test("bytes of an image of another realm", async () => {
    const png = await sharp({ create: { width: 2, height: 2, channels: 3, background: "#f00" } })
      .png()
      .toBuffer();
    const foreign = runInNewContext("Uint8Array.from(bytes)", { bytes: [...png] }) as Uint8Array;
    expect((await loadImage(foreign, { size: 2 })).shape).toEqual([1, 3, 2, 2]);
    await expect(loadImage(new Proxy(foreign, {}))).rejects.toBeInstanceOf(ImageError);
  });

  test("others are refused, proxies among them", () => {
    for (const other of [new DataView(new ArrayBuffer(4)), new Uint16Array(1), new Proxy(new Uint8Array(1), {})])
      expect(() => tensor(other)).toThrow(DtypeError);
  });
});

describe("a forward that asks for values while it is recorded", () => {
  class Curious extends nn.Module {
    constructor(readonly ask: (x: Tensor) => unknown) {
      super();
    }
    override forward(x: Tensor): Tensor {
      const y = x.mul(2);
      this.ask(y);
      return y;
    }
  }
  const said = /^data: expected a forward that asks for no values, as compile, summary and exportOnnx record it .*/;

  test.each([
    ["data, not awaited", (x: Tensor) => void x.data()],
    ["data, printed", (x: Tensor) => void x.data().then((values) => console.log(values))],
    ["item, not awaited", (x: Tensor) => void x.sum().item()],
  ])("%s: is refused once and ends no process", async (_, ask) => {
    const model = new Curious(ask);
    await using compiled = await compile(model, { device: "reference" });
    await expect(compiled.run(tensor([1, 2]))).rejects.toThrow(said);
    await expect(compiled.run(tensor([1, 2]))).rejects.toBeInstanceOf(ArgumentError);
    expect(() => summary(model, [2])).toThrow(said);
    vi.spyOn(console, "log").mockImplementation(() => {});
    expect(await model.forward(tensor([1, 2])).data()).toEqual(Float32Array.of(2, 4));
  });

  test("what is known may be read", async () => {
    const weight = tensor([5]);
    const read: number[] = [];
    const model = new Curious(() => void weight.item().then((value) => read.push(value)));
    await using compiled = await compile(model, { device: "reference" });
    await compiled.run(tensor([1, 2]));
    expect(read).toEqual([5]);
  });
});

describe("escape codes", () => {
  const hostile = "a\u001b[2J\u009b31mb\u0007\u007f\r\nc";

  test("reach no terminal", () => {
    let written = "";
    for (const stream of [process.stdout, process.stderr])
      vi.spyOn(stream, "write").mockImplementation((text) => {
        written += text;
        return true;
      });
    print(harmless(hostile));
    warn(hostile);
    printJson({ label: hostile });
    expect(written).not.toMatch(/(?!\n)\p{Cc}/u);
    expect(JSON.parse(written.slice(written.indexOf("{")))).toEqual({ label: hostile });
    expect(written).toContain("a\\u001b[2J\\u009b31mb\\u0007\\u007f");
  });
});

test("on the reference a window far larger than the image costs what the image costs", async () => {
  setDefaultDevice("reference");
  const x = tensor([1, 5, 2, 3], [1, 1, 2, 2], { requiresGrad: true });
  const y = functional.maxPool2d(x, { kernelSize: 2 ** 31, padding: 2 ** 30, stride: 2 ** 31 });
  expect(await y.data()).toEqual(Float32Array.of(5));
  y.sum().backward();
  expect(await x.grad?.data()).toEqual(Float32Array.of(0, 1, 0, 0));
});
