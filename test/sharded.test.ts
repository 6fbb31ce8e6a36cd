import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadWeights, saveSafetensors, tensor } from "seresnet";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { contents, rejection } from "./support/weights_files.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-sharded-"));
});
afterAll(() => rm(folder, { recursive: true }));

describe("several safetensors files", () => {
  const index = "model.safetensors.index.json";
  async function write(name: string, content: unknown): Promise<string> {
    const home = join(folder, name);
    await mkdir(home, { recursive: true });
    await saveSafetensors(join(home, "model-1-of-2.safetensors"), { a: tensor([1, 2]), b: tensor([3]) });
    await saveSafetensors(join(home, "model-2-of-2.safetensors"), { "model.c": tensor(Int32Array.of(4)) });
    await writeFile(join(home, index), typeof content === "string" ? content : JSON.stringify(content));
    return join(home, index);
  }
  const [one, two] = ["model-1-of-2.safetensors", "model-2-of-2.safetensors"];
  const map = { a: one, b: one, "model.c": two };

  test("are read as one, names as they are", async () => {
    const path = await write("whole", { metadata: { total_size: 16 }, weight_map: map });
    expect(await contents(await loadWeights(path))).toEqual([
      ["a", "float32", [2], Float32Array.of(1, 2)],
      ["b", "float32", [1], Float32Array.of(3)],
      ["model.c", "int32", [1], Int32Array.of(4)],
    ]);
  });

  test.each([
    [
      "a shard that is missing",
      { weight_map: { ...map, d: "model-3-of-2.safetensors" } },
      /model-3-of-2\.safetensors: expected a safetensors file, got no such file$/,
    ],
    [
      "a tensor its shard lacks",
      { weight_map: { ...map, d: two } },
      /expected "d" in model-2-of-2\.safetensors, got a file without$/,
    ],
    [
      "a tensor the index lacks",
      { weight_map: { a: one } },
      /model-1-of-2\.safetensors to hold what the index says, got "b" as well$/,
    ],
    [
      "a shard above",
      { weight_map: { a: "../x.safetensors" } },
      /tensor "a" in a \.safetensors file beside the index, got "\.\.\/x\.safetensors"$/,
    ],
    ["a shard anywhere", { weight_map: { a: "/etc/x.safetensors" } }, /beside the index, got "\/etc/],
    ["a shard of Windows", { weight_map: { a: "..\\x.safetensors" } }, /beside the index, got/],
    ["a shard of another format", { weight_map: { a: "x.bin" } }, /beside the index, got "x\.bin"/],
    ["a shard that is no name", { weight_map: { a: 1 } }, /beside the index, got 1/],
    ["no map", { metadata: {} }, /an index of shards with a weight_map, got none$/],
    ["an empty map", { weight_map: {} }, /at least one tensor, got an empty weight_map$/],
    ["not an object", "[1]", /an index of shards with a weight_map, got \[1\]$/],
    ["not JSON", '{"weight_map": {', /an index of shards in JSON without repeated keys, got/],
    ["a name twice", `{"weight_map": {"a": "${one}", "a": "${one}"}}`, /duplicate key "a"/],
  ])("%s", async (name, content, message) => {
    const { message: got } = await rejection(loadWeights(await write(name, content)));
    expect(got).toMatch(message);
    expect(got).toMatch(/^[^\n]+: expected [^\n]+, got [^\n]+$/);
  });
});
