import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { compile, createModel, listModels, setDefaultDevice } from "seresnet";
import { beforeAll, describe, expect, test } from "vitest";
import { relativeError } from "./support/compare.js";
import { type Digest, digestError, fill, image } from "./support/weights.js";

interface ZooCase {
  readonly model: string;
  readonly library: string;
  readonly shape: readonly number[];
  readonly options: object;
  readonly parameters: number;
  readonly keys: Record<string, number[]>;
  readonly logits: Digest;
}

/** What test/fixtures/zoo_keys.py wrote: a hash of the names and shapes, and for some models the first logits. */
interface GoldenKeys {
  readonly parameters: number;
  readonly entries: number;
  readonly keys: string;
  readonly shape?: readonly number[];
  readonly head?: readonly number[];
}

const read = (path: string) => JSON.parse(readFileSync(resolve("test/fixtures", path), "utf8"));
const zoo: ZooCase[] = read("expected.json").zoo;
const golden: Record<string, GoldenKeys> = read("zoo_keys.json");
const size = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);
type Model = ReturnType<typeof createModel>;
const parameterCount = (model: Model) => [...model.parameters()].reduce((sum, { shape }) => sum + size(shape), 0);

beforeAll(() => setDefaultDevice("reference"));

describe("torchvision's and timm's numbers", () => {
  test.each(zoo.map((entry) => [entry.model, entry.library, entry] as const))(
    "%s of %s",
    async (name, _library, want) => {
      const model = fill(createModel(name, want.options), `atlas/${name}`).eval();
      const state = Object.entries(model.stateDict()).map(([key, { shape }]) => [key, [...shape]]);
      expect(state).toEqual(Object.entries(want.keys));
      expect(parameterCount(model)).toBe(want.parameters);
      const x = image(`atlas/${name}/x`, want.shape);
      expect(digestError((await model.forward(x).data()) as Float32Array, want.logits)).toBeLessThan(1e-4);
      await using compiled = await compile(model, { device: "reference" });
      expect(digestError((await (await compiled.run(x)).data()) as Float32Array, want.logits)).toBeLessThan(1e-4);
    },
  );

  const withLogits = Object.entries(golden).filter(([, { head }]) => head);
  test.each(withLogits)("first logits of %s", async (name, { shape = [], head = [] }) => {
    const model = fill(createModel(name), `atlas/${name}`).eval();
    const logits = (await model.forward(image(`atlas/${name}/x`, shape)).data()) as Float32Array;
    expect(relativeError(logits.subarray(0, head.length), head)).toBeLessThan(1e-4);
  });
});

describe("names, shapes and parameter counts", () => {
  test("every model is covered", () => {
    expect(listModels().sort()).toEqual(Object.keys(golden).sort());
  });

  test.each(Object.entries(golden))("%s", (name, want) => {
    const model = createModel(name);
    const lines = Object.entries(model.stateDict()).map(([key, { shape }]) => `${key}:${shape.join(",")}`);
    expect(lines.length).toBe(want.entries);
    expect(createHash("sha256").update(lines.sort().join("\n")).digest("hex")).toBe(want.keys);
    expect(parameterCount(model)).toBe(want.parameters);
  });
});
