import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createModel, ImageClassifier, saveSafetensors } from "seresnet";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { Metrics } from "#lib/cli/training_output.js";
import { ArgumentError, WeightsError } from "#lib/errors.js";
import { fetchFromHub } from "#lib/io/hub/hub.js";
import { readLines, readTextFile } from "#lib/io/text.js";
import { fill } from "./support/weights.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-text-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));
afterEach(() => {
  vi.unstubAllEnvs();
});

async function pipe(...parts: readonly string[]): Promise<string> {
  const path = join(folder, ...parts);
  await mkdir(join(path, ".."), { recursive: true });
  execFileSync("mkfifo", [path]);
  return path;
}

/** What Python's `text.encode(name)` gives, with the byte order mark that editors write. */
const encodings: Readonly<Record<string, (text: string) => Buffer>> = {
  "UTF-8": (text) => Buffer.from(text),
  "UTF-8 with a mark": (text) => Buffer.from(`\ufeff${text}`),
  "UTF-16, little end first": (text) => Buffer.from(`\ufeff${text}`, "utf16le"),
  "UTF-16, big end first": (text) => Buffer.from(`\ufeff${text}`, "utf16le").swap16(),
};

async function model(name: string, config: string | Buffer): Promise<string> {
  const target = join(folder, name);
  await mkdir(target, { recursive: true });
  const network = fill(createModel("resnet20_cifar", { numClasses: 3 }), "text");
  await saveSafetensors(join(target, "model.safetensors"), network.stateDict());
  await writeFile(join(target, "config.json"), config);
  return target;
}

describe.each(Object.entries(encodings))("in %s", (name, encode) => {
  test("labels and config.json are read", async () => {
    const config = { architecture: "resnet20_cifar", num_classes: 3, label_names: ["é", "ж", "猫"] };
    const weights = await model(name, encode(JSON.stringify(config)));
    const labels = join(folder, `${name}.txt`);
    await writeFile(labels, encode("Ä\r\nβ\nあ\n\n"));
    const load = async (options: object) => {
      await using classifier = await ImageClassifier.load(weights, { device: "reference", ...options });
      return classifier.classes;
    };
    expect(await load({})).toEqual(["é", "ж", "猫"]);
    expect(await load({ labels })).toEqual(["Ä", "β", "あ"]);
  });
});

describe("what is no text", () => {
  test.each([
    ["a pipe", () => pipe("pipe"), "something that is not a regular file"],
    ["a device", async () => "/dev/zero", "something that is not a regular file"],
    ["a folder", async () => folder, "a folder"],
    ["no file", async () => join(folder, "none"), /ENOENT/],
    ["bytes of Latin-1", () => written("latin1", Buffer.from("é\n", "latin1")), "bytes that are not UTF-8"],
    ["half of UTF-16", () => written("half", Buffer.of(0xff, 0xfe, 0x00)), "bytes that are not UTF-16LE"],
    ["too much", () => written("large", Buffer.alloc(2 ** 24 + 1, "a")), `a file of ${2 ** 24 + 1} bytes`],
  ])("%s", async (_, make, said) => {
    await expect(readTextFile(await make())).rejects.toThrow(said);
  });

  async function written(name: string, bytes: Buffer): Promise<string> {
    await writeFile(join(folder, name), bytes);
    return join(folder, name);
  }

  test("is refused in a sentence as labels", async () => {
    const labels = await pipe("labels");
    const loading = ImageClassifier.load(undefined, { labels });
    await expect(loading).rejects.toThrow(`${labels}: expected a file of labels, got something that is not a regular`);
    await expect(loading).rejects.toBeInstanceOf(ArgumentError);
  });

  test("is refused in a sentence as config.json", async () => {
    const target = await model("fifo", "{}");
    await rm(join(target, "config.json"));
    const config = await pipe("fifo", "config.json");
    const loading = ImageClassifier.load(target);
    await expect(loading).rejects.toThrow(`${config}: expected a readable file, got something that is not a regular`);
    await expect(loading).rejects.toBeInstanceOf(WeightsError);
  });

  test("is no reference and no token of the hub's", async () => {
    await pipe("hub", "models--me--net", "refs", "main");
    vi.stubEnv("HF_HUB_CACHE", join(folder, "hub"));
    vi.stubEnv("HF_HUB_OFFLINE", "1");
    await expect(fetchFromHub("hf:me/net")).rejects.toThrow("while HF_HUB_OFFLINE is set, got none");
    await pipe("home", "token");
    vi.stubEnv("HF_HUB_OFFLINE", "");
    vi.stubEnv("HF_TOKEN", undefined);
    vi.stubEnv("HF_HOME", join(folder, "home"));
    vi.stubEnv("HF_ENDPOINT", "http://127.0.0.1:9");
    await expect(fetchFromHub("hf:me/net")).rejects.toThrow("a hub that cannot be reached");
  });

  test("is refused in a sentence as metrics", async () => {
    const metrics = await pipe("metrics.jsonl");
    await expect(Metrics.open(metrics, 1)).rejects.toThrow(`${metrics}: expected a file of metrics, got something`);
    await expect(Metrics.open(metrics, 1)).rejects.toBeInstanceOf(ArgumentError);
    const none = join(folder, "none.jsonl");
    await Metrics.open(none, 1);
    expect(await readFile(none, "utf8")).toBe("");
  });
});

test("lines end as any system ends them", async () => {
  const path = join(folder, "lines");
  await writeFile(path, "a\r\nb\nc\rd\n\n");
  expect(await readLines(path)).toEqual(["a", "b", "c", "d"]);
});
