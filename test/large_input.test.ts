import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadWeights, nn, type Tensor } from "seresnet";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { rank } from "#lib/classifier/prediction.js";
import { matchClasses } from "#lib/cli/class_names.js";
import { splitDataset } from "#lib/data/dataset.js";
import { Batch, type Dataset } from "#lib/data/index.js";
import { parseNpz } from "#lib/io/torch/npz.js";
import { parseTorch } from "#lib/io/torch/state_dict.js";
import { evaluate } from "#lib/train/evaluate.js";
import { scoresOf } from "#lib/train/report.js";
import { npzFile } from "./support/npz_writer.js";
import { bytesOf, tensorOps, text, torchFile } from "./support/torch_writer.js";

// What grew with the square of its input did not end here before the limit of a test; what spread it into arguments ran
// out of stack.

const many = 200_000;
const numbered = (count: number) => Array.from({ length: count }, (_, i) => `n${i}`);

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-large-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe("many", () => {
  test("classes are ranked", () => {
    const logits = Float32Array.from({ length: many }, (_, i) => i / many);
    expect(rank(logits, numbered(many), 1)).toMatchObject([{ index: many - 1, label: `n${many - 1}` }]);
  });

  test("class folders find their classes", async () => {
    const names = numbered(many);
    const classes = [...names].reverse();
    const indices = await matchClasses("folder", names, classes);
    expect([indices[0], indices.at(-1)]).toEqual([many - 1, 0]);
  });

  test("classes of many images are split", () => {
    const classes = numbered(many / 2);
    const labels = Int32Array.from({ length: many }, (_, i) => i % classes.length);
    const dataset: Dataset = { classes, labels, pictures: { kind: "files", paths: numbered(many) } };
    const { train, validation } = splitDataset(dataset, 0.5);
    expect([train.labels.length, validation?.labels.length]).toEqual([many / 2, many / 2]);
  });

  test("classes are scored", () => {
    const answers = [{ index: 0, truth: many - 1, predicted: many - 1, confidence: 1, loss: 0 }];
    expect(scoresOf(answers, numbered(many)).at(-1)).toMatchObject({ images: 1, precision: 1, recall: 1 });
  });

  test("images are judged in one batch", async () => {
    class Flat extends nn.Module {
      override forward(x: Tensor): Tensor {
        return x.flatten(1);
      }
    }
    const pixels = Uint8Array.from({ length: 2 * many }, (_, i) => i % 2);
    const indices = Uint32Array.from({ length: many }, (_, i) => i);
    const batch = new Batch(pixels, [many, 2, 1, 1], new Int32Array(many).fill(1), indices, []);
    const batches = (async function* () {
      yield batch;
    })();
    const result = await evaluate(new Flat(), batches, { normalize: { mean: [0, 0], std: [1, 1] } });
    expect(result).toMatchObject({ images: many, correct: many });
  });

  test("tensors lie in one shard", async () => {
    const names = numbered(many);
    const entries = names.map((name, i) => `"${name}":{"dtype":"U8","shape":[1],"data_offsets":[${i},${i + 1}]}`);
    const header = Buffer.from(`{${entries.join(",")}}`);
    const size = Buffer.alloc(8);
    size.writeBigUInt64LE(BigInt(header.length));
    await writeFile(join(folder, "one.safetensors"), Buffer.concat([size, header, Buffer.alloc(many)]));
    const map = Object.fromEntries(names.map((name) => [name, "one.safetensors"]));
    const index = join(folder, "model.safetensors.index.json");
    await writeFile(index, JSON.stringify({ weight_map: map }));
    expect(Object.keys(await loadWeights(index))).toHaveLength(many);
  });
});

describe("a small file that stands for a large one", () => {
  const keys = numbered(2000);
  /** EMPTY_DICT with every key for what `value` recalls, remembered as `place`. */
  const dictOf = (value: Buffer, place: number) =>
    bytesOf("}q", place, "(", ...keys.flatMap((key) => [text(key), value]), "u");

  test("one dict in 8,000,000,000 places", () => {
    const recall = (place: number) => bytesOf("h", place);
    const pickle = bytesOf(
      0x80,
      2,
      ...["}q", 1, "(", text("w"), tensorOps(), "u0"],
      dictOf(recall(1), 2),
      "0",
      dictOf(recall(2), 3),
      "0",
      dictOf(recall(3), 4),
      ".",
    );
    expect(() => parseTorch(torchFile(pickle), "net.pth")).toThrow(
      /^net\.pth: expected one state dict, got one each in n0\.n0\.n0, n0\.n0\.n1$/,
    );
  });

  test("an average beside very many dicts", () => {
    const dict = (names: readonly string[], place: number) =>
      Buffer.concat([bytesOf("}("), ...names.map((name) => bytesOf(text(name), "h", place)), bytesOf("u")]);
    const others = numbered(10_000).map((name) => [text(name), dict([`other.${name}`], 0)]);
    const average = numbered(100_000).map((name) => `${name}.weight`);
    const pickle = bytesOf(
      0x80,
      2,
      tensorOps(),
      "q",
      0,
      "0}(",
      Buffer.concat(others.flat()),
      text("model_ema"),
      dict(average, 0),
      "u.",
    );
    expect(() => parseTorch(torchFile(pickle), "net.pth")).toThrow(
      /^net\.pth: expected one state dict, got one each in/,
    );
  });

  test("entries of a zip file that share bytes", () => {
    const data = Float32Array.from({ length: 1000 }, (_, i) => i);
    const file = npzFile({ a: { data, shape: [1000] } });
    const start = file.indexOf("PK\x01\x02", 0, "latin1");
    const entry = file.subarray(start, file.length - 22);
    const directory: Buffer[] = [];
    for (let i = 0; i < 1000; i++) {
      const name = Buffer.from(`${i}`.padStart(4, "0"));
      const copy = Buffer.concat([entry.subarray(0, 46), name, Buffer.from(".npy")]);
      copy.writeUInt16LE(8, 28);
      directory.push(copy);
    }
    const end = Buffer.from(file.subarray(file.length - 22));
    const all = Buffer.concat(directory);
    end.writeUInt16LE(1000, 10);
    end.writeUInt32LE(all.length, 12);
    const bomb = Buffer.concat([file.subarray(0, start), all, end]);
    expect(() => parseNpz(bomb, "bomb.npz")).toThrow(
      /^bomb\.npz: expected entries of at most \d+ bytes together, got more, up to "\d+\.npy"$/,
    );
  });
});
