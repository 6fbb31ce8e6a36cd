import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { ArgumentError, data, ImageError } from "seresnet";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { augment, cropWindow, erasedWindow, mirror, planAugmentation } from "#lib/data/augment.js";
import { beta, permutation, streamOf } from "#lib/data/random.js";
import { crop, type Raster, resize } from "#lib/image/resize.js";
import { writeIdx } from "./support/idx.js";

const chelsea = resolve("test/fixtures/images/chelsea.png");
const rocket = resolve("test/fixtures/images/rocket.jpg");
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-data-"));
  for (const [name, file] of [
    ["cat", chelsea],
    ["rocket", rocket],
  ]) {
    await mkdir(join(folder, "photos", name), { recursive: true });
    for (let i = 0; i < 4; i++) await copyFile(file, join(folder, "photos", name, `${i}${file.slice(-4)}`));
  }
  await writeFile(join(folder, "photos", "cat", "notes.txt"), "no image");
  await writeIdx(join(folder, "idx"), { train: 40, test: 10, side: 8 });
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function collect(loader: data.DataLoader, epoch = 0, from = 0): Promise<data.Batch[]> {
  const batches: data.Batch[] = [];
  for await (const batch of loader.epoch(epoch, from)) batches.push(batch);
  return batches;
}

const digest = (batches: readonly data.Batch[]) =>
  batches.map(({ pixels, classes, indices }) =>
    createHash("sha256").update(pixels).update(classes).update(indices).digest("hex"),
  );

describe("augmentation is torchvision's", () => {
  // test/fixtures/augment.json says how it was made
  const golden = JSON.parse(readFileSync(resolve("test/fixtures/augment.json"), "utf8")) as {
    crop: number[];
    cropBicubic: number[];
    flip: number[];
    padSha: string;
    meanCrop: number[];
    meanErase: number[];
  };
  const [width, height] = [23, 17];
  const samples = Uint8Array.from({ length: width * height * 3 }, (_, i) => {
    const [x, y, c] = [Math.floor(i / 3) % width, Math.floor(i / 3 / width), i % 3];
    return (7 * x + 13 * y + 29 * c + x * y) % 256;
  });
  const image: Raster = { data: samples, width, height, channels: 3 };

  it("a resized crop, a mirrored part and a padded crop, pixel for pixel", () => {
    const part = crop(image, { top: 3, left: 5, height: 9, width: 14 }, [0]);
    expect([...resize(part, 8, 8, "bilinear").data]).toEqual(golden.crop);
    expect([...resize(part, 8, 8, "bicubic").data]).toEqual(golden.cropBicubic);
    expect([...mirror(crop(image, { top: 2, left: 3, height: 4, width: 5 }, [0])).data]).toEqual(golden.flip);
    const shifted = crop(image, { top: 1 - 4, left: 6 - 4, height, width }, [9, 8, 7]);
    expect(createHash("sha256").update(shifted.data).digest("hex")).toBe(golden.padSha);
  });

  it("random crops and erased rectangles have torchvision's means", () => {
    const plan = planAugmentation({ randomResizedCrop: true, erasing: 1 });
    const generator = streamOf(1);
    const mean = (draw: () => { top: number; left: number; height: number; width: number }) => {
      const sums = [0, 0, 0, 0];
      for (let i = 0; i < 20_000; i++) {
        const { top, left, height, width } = draw();
        for (const [k, value] of [top, left, height, width].entries()) sums[k] += value / 20_000;
      }
      return sums;
    };
    const settings = plan.randomResizedCrop as NonNullable<typeof plan.randomResizedCrop>;
    for (const [k, value] of mean(() => cropWindow(generator, image, settings)).entries())
      expect(Math.abs(value - golden.meanCrop[k])).toBeLessThan(0.12);
    const erased = () => erasedWindow(generator, image, plan.erasing) ?? { top: 0, left: 0, height, width };
    for (const [k, value] of mean(erased).entries()) expect(Math.abs(value - golden.meanErase[k])).toBeLessThan(0.12);
  });

  it("probabilities hold, and padding and blanking leave the fill", () => {
    const flipped = planAugmentation({ flip: 0.25 });
    let count = 0;
    for (let i = 0; i < 2000; i++) {
      const { data: out } = augment(image, flipped, streamOf(2, i));
      if (out[0] !== samples[0] || out[3] !== samples[3]) count++;
    }
    expect(Math.abs(count / 2000 - 0.25)).toBeLessThan(0.04);
    const blanked = augment(image, planAugmentation({ erasing: 1, fill: [1, 2, 3] }), streamOf(3));
    const changed = [...blanked.data.keys()].filter((i) => blanked.data[i] !== samples[i]);
    expect(changed.length).toBeGreaterThan(10);
    for (const i of changed) expect(blanked.data[i]).toBe((i % 3) + 1);
  });

  it("options out of range are refused", () => {
    expect(() => planAugmentation({ flip: 2 })).toThrow(ArgumentError);
    expect(() => planAugmentation({ padCrop: -1 })).toThrow("padCrop");
    expect(() => planAugmentation({ fill: [300] })).toThrow("fill");
    expect(() => planAugmentation({ randomResizedCrop: { scale: [0.5, 0.1] } })).toThrow("scale");
  });

  it("Beta(alpha, alpha) has its mean and variance, and a permutation holds everything once", () => {
    for (const alpha of [0.2, 1, 4]) {
      const draws = Array.from({ length: 20_000 }, (_, i) => beta(streamOf(4, i), alpha));
      const mean = draws.reduce((sum, x) => sum + x, 0) / draws.length;
      const variance = draws.reduce((sum, x) => sum + (x - mean) ** 2, 0) / draws.length;
      expect(mean).toBeCloseTo(0.5, 1.7);
      expect(variance / (1 / (4 * (2 * alpha + 1)))).toBeCloseTo(1, 1);
    }
    const extremes = Array.from({ length: 1000 }, (_, i) => beta(streamOf(6, i), 1e-4)); // almost always 0 or 1
    expect(extremes.filter((x) => x > 0.01 && x < 0.99).length).toBeLessThan(20);
    expect([...permutation(streamOf(5), 100)].sort((a, b) => a - b)).toEqual([...Array(100).keys()]);
  });
});

describe("datasets", () => {
  it("a folder of class folders, and a share of every class set aside", async () => {
    const photos = await data.openImageFolder(join(folder, "photos"));
    expect(photos.classes).toEqual(["cat", "rocket"]);
    expect([...photos.labels]).toEqual([0, 0, 0, 0, 1, 1, 1, 1]);
    const { train, validation } = await data.openDataset(join(folder, "photos"), { validation: 0.25 });
    expect([...train.labels]).toEqual([0, 0, 0, 1, 1, 1]);
    expect([...(validation as data.Dataset).labels]).toEqual([0, 1]);
    const again = await data.openDataset(join(folder, "photos"), { validation: 0.25 });
    expect(again).toEqual({ train, validation });
    const { train: least } = await data.openDataset(join(folder, "photos"), { validation: 0.99 });
    expect([...least.labels]).toEqual([0, 1]); // something is left to train on
  });

  it("a class folder may be a link to one", async () => {
    await mkdir(join(folder, "linked"));
    for (const name of ["cat", "rocket"]) await symlink(join(folder, "photos", name), join(folder, "linked", name));
    await symlink(join(folder, "nowhere"), join(folder, "linked", "broken"));
    const { classes, labels } = await data.openImageFolder(join(folder, "linked"));
    expect([classes, labels.length]).toEqual([["cat", "rocket"], 8]);
  });

  it("IDX files, with names where they are known", async () => {
    const { train, validation } = await data.openDataset(join(folder, "idx"));
    expect([train.labels.length, validation?.labels.length]).toEqual([40, 10]);
    expect(train.classes).toEqual(["0", "1", "2", "3"]);
    const names = ["a", "b", "c", "d", "e"];
    expect((await data.openIdx(join(folder, "idx"), "train", names)).classes).toEqual(names);
  });

  it("what is wrong is named", async () => {
    await expect(data.openIdx(join(folder, "idx"), "train", ["a", "b"])).rejects.toThrow(
      /expected train labels under 2, as there are classes, got 2 at image 2/,
    );
    await mkdir(join(folder, "hollow", "full"), { recursive: true });
    await mkdir(join(folder, "hollow", "empty"), { recursive: true });
    await copyFile(chelsea, join(folder, "hollow", "full", "1.png"));
    await expect(data.openImageFolder(join(folder, "hollow"))).rejects.toThrow(
      /empty: expected images of class "empty"/,
    );
    await expect(data.openImageFolder(join(folder, "photos"), ["cat"])).rejects.toThrow("got rocket");
    await expect(data.openDataset(join(folder, "nowhere"))).rejects.toThrow("no such file");
    await expect(data.openDataset(join(folder, "photos", "cat"))).rejects.toThrow("class folders with images");
    const photos = await data.openImageFolder(join(folder, "photos"));
    expect(() => new data.DataLoader(photos, { batchSize: 9, dropLast: true })).toThrow("at least 9 images, got 8");
    expect(() => new data.DataLoader(photos, { batchSize: 0 })).toThrow("batchSize");
    for (const none of [undefined, {}, "photos"])
      expect(() => new data.DataLoader(none as never)).toThrow("a dataset, as openDataset gives it");
    expect(() => new data.DataLoader(photos, { channels: 2 as 1 })).toThrow("channels to be 1 or 3, got 2");
    expect(() => new data.DataLoader(photos, { cropPct: 0 })).toThrow("cropPct in (0, 1], got 0");
  });
});

describe("a loader", () => {
  const all = { padCrop: 2, flip: true, erasing: 0.5 };

  it("gives the same batches however many threads work, and from any place on", async () => {
    const idx = await data.openIdx(join(folder, "idx"), "train");
    const options = { batchSize: 7, shuffle: true, seed: 3, augment: all };
    await using alone = new data.DataLoader(idx, { ...options, workers: 0 });
    await using many = new data.DataLoader(idx, { ...options, workers: 3, prefetch: 5 });
    const want = digest(await collect(alone, 1));
    expect(want).toHaveLength(6);
    expect(digest(await collect(many, 1))).toEqual(want);
    expect(digest(await collect(many, 1, 4))).toEqual(want.slice(4));
    expect(digest(await collect(many, 2))).not.toEqual(want);
    const seen = (await collect(many, 1)).flatMap(({ indices }) => [...indices]);
    expect(seen.sort((a, b) => a - b)).toEqual([...Array(40).keys()]);
  });

  it("decodes and augments files in threads", async () => {
    const photos = await data.openImageFolder(join(folder, "photos"));
    const options = { batchSize: 4, shuffle: true, size: 32, augment: { ...all, randomResizedCrop: true } };
    await using alone = new data.DataLoader(photos, { ...options, workers: 0 });
    await using many = new data.DataLoader(photos, { ...options, workers: 2 });
    const batches = await collect(many);
    expect(batches.map(({ shape }) => shape)).toEqual([
      [4, 3, 32, 32],
      [4, 3, 32, 32],
    ]);
    expect(digest(batches)).toEqual(digest(await collect(alone)));
    const [{ images, labels }] = batches;
    expect([images.dtype, images.shape, labels.dtype]).toEqual(["uint8", [4, 3, 32, 32], "int32"]);
  });

  it("without augmentation the images are loadImage's", async () => {
    const photos = await data.openImageFolder(join(folder, "photos"));
    await using loader = new data.DataLoader(photos, { size: 48, workers: 0 });
    const [{ pixels }] = await collect(loader);
    const { loadImage } = await import("seresnet");
    const want = (await (
      await loadImage(chelsea, { size: 48, mean: [0, 0, 0], std: [1, 1, 1] })
    ).data()) as Float32Array;
    expect(Float32Array.from(pixels, (value) => value / 255)).toEqual(want);
  });

  it("names, skips and counts an image that cannot be read, or throws when strict", async () => {
    const broken = join(folder, "broken");
    for (const name of ["a", "b"]) await mkdir(join(broken, name), { recursive: true });
    for (const [name, file] of [
      ["a/1.png", chelsea],
      ["a/3.png", chelsea],
      ["b/1.jpg", rocket],
    ])
      await copyFile(file, join(broken, name));
    await writeFile(join(broken, "a", "2.png"), readFileSync(chelsea).subarray(0, 3000));
    const photos = await data.openImageFolder(broken);
    await using loader = new data.DataLoader(photos, { batchSize: 3, size: 16, workers: 1 });
    const batches = await collect(loader);
    expect(batches.map(({ count }) => count)).toEqual([2, 1]);
    expect(batches[0].skipped).toHaveLength(1);
    expect(batches[0].skipped[0].index).toBe(1);
    expect(batches[0].skipped[0].message).toMatch(/a.2\.png: expected an image that can be decoded/);
    expect([...batches[0].classes]).toEqual([0, 0]);
    await using strict = new data.DataLoader(photos, { batchSize: 3, size: 16, workers: 1, strict: true });
    await expect(collect(strict)).rejects.toThrow(ImageError);
  });

  it("is disposed with batches under way, before the process ends; then it makes no more", () => {
    const program = `
      const { data } = require("seresnet");
      const main = async () => {
        const photos = await data.openImageFolder(${JSON.stringify(join(folder, "photos"))});
        for (let i = 0; i < 5; i++) {
          const loader = new data.DataLoader(photos, { size: 16, workers: 1, prefetch: 8 });
          for await (const _ of loader.epoch(0)) break;
          await loader.dispose();
          await loader.epoch(0).next().catch((error) => process.stdout.write(error.code + " "));
        }
      };
      main();`;
    const { stdout, status } = spawnSync(process.execPath, ["-e", program], { cwd: resolve("."), encoding: "utf8" });
    expect([stdout, status]).toEqual(["ERR_DISPOSED ".repeat(5), 0]);
  });
});

describe("a last batch of one image", () => {
  it.each([
    [41, 8, true, [8, 8, 8, 8, 9]],
    [41, 8, false, [8, 8, 8, 8, 8, 1]],
    [42, 8, true, [8, 8, 8, 8, 8, 2]],
    [1, 8, true, [1]],
    [3, 1, true, [1, 1, 1]],
  ])("of %i in batches of %i joins the one before it: %s", async (count, batchSize, joinSingle, want) => {
    const pixels = new Uint8Array(new SharedArrayBuffer(count * 4));
    const dataset: data.Dataset = {
      classes: ["a"],
      labels: new Int32Array(count),
      pictures: { kind: "pixels", data: pixels, height: 2, width: 2 },
    };
    await using loader = new data.DataLoader(dataset, { batchSize, joinSingle, workers: 0 });
    const batches = await collect(loader);
    expect(loader.length).toBe(want.length);
    expect(batches.map((batch) => batch.count)).toEqual(want);
    expect(new Set(batches.flatMap(({ indices }) => [...indices])).size).toBe(count);
  });
});
