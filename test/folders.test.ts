import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rename, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import { createModel, data } from "seresnet";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { matchClasses } from "#lib/cli/class_names.js";
import { writeCheckpoint } from "#lib/io/checkpoint.js";
import { imagenetLabelsFile } from "#lib/paths.js";
import { blot, classFolders, writeTree } from "./support/folders.js";

let root: string;
let folder: string;
let at = 0;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "seresnet-folders-"));
});
beforeEach(async () => {
  folder = join(root, `${at++}`);
  await mkdir(folder);
});
afterAll(() => rm(root, { recursive: true, force: true }));

/** The images of a dataset, as paths below the folder, with their classes. */
const listed = ({ classes, labels, pictures }: data.Dataset) =>
  pictures.kind === "files" ? pictures.paths.map((path, i) => `${classes[labels[i]]}: ${relative(folder, path)}`) : [];

describe("what a folder of images holds", () => {
  test("images in folders of a class folder, as torchvision's ImageFolder takes them", async () => {
    await writeTree(folder, { "a/1.png": 0, "a/2024/may/2.png": 0, "b/3.png": 1 });
    expect(listed(await data.openImageFolder(folder))).toEqual(["a: a/1.png", "a: a/2024/may/2.png", "b: b/3.png"]);
  });

  test("links to images and to folders", async () => {
    await writeTree(folder, { "../elsewhere/b/3.png": 1, "a/1.png": 0 });
    await symlink(resolve(folder, "../elsewhere/b"), join(folder, "b"));
    await symlink("1.png", join(folder, "a", "2.png"));
    expect(listed(await data.openImageFolder(folder))).toEqual(["a: a/1.png", "a: a/2.png", "b: b/3.png"]);
  });

  test("a link that leads nowhere is said, one that leads back is refused", async () => {
    await writeTree(folder, { "a/1.png": 0 });
    await symlink("gone", join(folder, "a", "2.png"));
    const { remarks } = await data.openImageFolder(folder);
    expect(remarks).toEqual([`${folder}: 1 link left out that lead nowhere: ${join(folder, "a/2.png")}`]);
    await symlink("..", join(folder, "a", "up"));
    await expect(data.openImageFolder(folder)).rejects.toThrow("leads back to itself");
  });

  test("images by their first bytes where the name does not say it", async () => {
    await writeTree(folder, {
      "a/1": await blot(0),
      "a/2.jfif": await blot(0, "jpeg"),
      "a/3.img": await blot(0, "gif"),
    });
    const { pictures, remarks } = await data.openImageFolder(folder);
    expect(pictures).toMatchObject({ paths: [join(folder, "a/1"), join(folder, "a/2.jfif"), join(folder, "a/3.img")] });
    expect(remarks).toEqual([]);
  });

  test("what cannot be read as an image is counted by its kind", async () => {
    await writeTree(folder, {
      "a/1.png": 0,
      "a/1.bmp": "BM",
      "a/2.BMP": "BM",
      "a/notes": "",
      "a/.DS_Store": "",
      "2.png": 0,
    });
    const { remarks } = await data.openImageFolder(folder);
    expect(remarks).toEqual([
      `${folder}: 1 image beside the class folders left out, being of no class`,
      `${folder}: 3 files left out that cannot be read as images: 2 .bmp, 1 without extension`,
    ]);
  });

  test("a class of nothing else says what there is", async () => {
    await writeTree(folder, { "a/1.bmp": "BM" });
    await expect(data.openImageFolder(folder)).rejects.toThrow(/of class "a", got none \(.*1 \.bmp\)$/);
  });
});

describe("the parts of a dataset", () => {
  const under = (part: string, names: readonly string[]) =>
    Object.fromEntries(Object.entries(classFolders(names, 1)).map(([path, colour]) => [`${part}/${path}`, colour]));

  test.each([
    [["train", "valid", "test"], "train", "valid", "test"],
    [["train", "val", "test"], "train", "val", "test"],
    [["Training", "Validation"], "Training", "Validation", undefined],
    [["train", "dev"], "train", "dev", undefined],
    [["train", "test"], "train", "test", undefined],
    [["train2017", "val2017"], "train2017", "val2017", undefined],
  ])("%j", async (parts, train, validation, unused) => {
    for (const part of parts) await writeTree(folder, under(part, ["a", "b"]));
    const opened = await data.openDataset(folder);
    expect(listed(opened.train)[0]).toBe(`a: ${train}/a/0.png`);
    expect(listed(opened.validation as data.Dataset)[0]).toBe(`a: ${validation}/a/0.png`);
    expect(opened.train.remarks).toEqual(unused ? [`${folder}: not used: ${unused}`] : []);
  });

  test("two folders of one part are refused", async () => {
    for (const part of ["train", "val", "valid"]) await writeTree(folder, under(part, ["a"]));
    await expect(data.openDataset(folder)).rejects.toThrow("expected one folder of each part, got val, valid");
  });

  test("a class called train is a class", async () => {
    await writeTree(folder, { ...classFolders(["bus", "tram", "train"], 3) });
    expect((await data.openDataset(folder)).train.classes).toEqual(["bus", "train", "tram"]);
  });
});

describe("the class that a folder means", () => {
  const match = (names: string[], classes: string[]) => matchClasses("data", names, classes);

  test.each([
    [
      ["C", "C#", "C++"],
      ["C", "C#", "C++"],
      [0, 1, 2],
    ],
    [
      ["c", "C"],
      ["C", "c"],
      [1, 0],
    ],
    [
      ["T-shirt_top", "ankle boot"],
      ["T-shirt/top", "Ankle boot"],
      [0, 1],
    ],
    [["t-shirt top"], ["T-shirt/top", "Ankle boot"], [0]],
    [["jack o lantern"], ["jack-o'-lantern", "crane"], [0]],
    [
      ["किताब", "कताब"],
      ["कताब", "किताब"],
      [1, 0],
    ],
    [
      ["😀", "😡"],
      ["😡", "😀"],
      [1, 0],
    ],
    [["cafe\u0301"], ["tea", "caf\u00e9"], [1]],
    [["10", "2"], Array.from({ length: 11 }, (_, i) => `class ${i}`), [10, 2]],
  ])("%j of %j", async (names, classes, wanted) => {
    expect(await match(names, classes)).toEqual(wanted);
  });

  test("ImageNet's Cardigan (a dog) and cardigan (a jacket)", async () => {
    const labels = (await readFile(imagenetLabelsFile, "utf8")).trimEnd().split("\n");
    expect(await match(["Cardigan", "cardigan", "tench"], labels)).toEqual([264, 474, 0]);
  });

  test("ImageNet's own names (timm's imagenet_synsets.txt): Imagenette's ten, whatever the labels are called", async () => {
    const wnids = "n01440764 n02102040 n02979186 n03000684 n03028079 n03394916 n03417042 n03425413 n03445777 n03888257";
    const wanted = [0, 217, 482, 491, 497, 566, 569, 571, 574, 701];
    expect(await match(wnids.split(" "), new Array(1000).fill("?"))).toEqual(wanted);
    expect(await match(["n03888257", "n01440764"], ["n01440764", "n03888257"])).toEqual([1, 0]);
  });

  test.each([
    [["crane"], ["crane", "crane", "owl"]],
    [["C sharp"], ["C", "C#", "C++"]],
    [["a"], ["A!", "A+"]],
    [
      ["a", "B", "c"],
      ["A", "b"],
    ],
  ])("%j of %j is refused", async (names, classes) => {
    await expect(match(names, classes)).rejects.toThrow("folders named after the model's");
  });

  test("two folders for one class are refused", async () => {
    await expect(match(["T-shirt_top", "t-shirt top"], ["T-shirt/top", "bag"])).rejects.toThrow(
      "expected one folder for each class, got T-shirt_top, t-shirt top for the same",
    );
  });
});

describe("evaluate", () => {
  let weights: string;
  beforeAll(async () => {
    weights = join(root, "weights.safetensors");
    const model = createModel("resnet14_cifar", { numClasses: 2 });
    await writeCheckpoint(weights, model.stateDict(), {
      model: "resnet14_cifar",
      options: { numClasses: 2 },
      classes: ["a", "b"],
      inputSize: [3, 8, 8],
      mean: [0.5, 0.5, 0.5],
      std: [0.5, 0.5, 0.5],
      interpolation: "bilinear",
      cropPct: 1,
    });
  });
  const evaluate = (path: string) =>
    new Promise<{ code: number | null; stdout: string; stderr: string }>((done) => {
      const args = [resolve("dist/lib/cli/main.js"), "evaluate", path, "--weights", weights, "--json"];
      const child = execFile(process.execPath, args, (_, stdout, stderr) =>
        done({ code: child.exitCode, stdout, stderr }),
      );
    });

  test("goes on after images that cannot be read, and counts them", async () => {
    await writeTree(folder, { ...classFolders(["a", "b"], 3), "a/x.jpg": "\xff\xd8\xff no jpeg", "b/y.png": "" });
    const { code, stdout, stderr } = await evaluate(folder);
    expect(code).toBe(0);
    const { images, skipped, perClass } = JSON.parse(stdout) as {
      images: number;
      skipped: number;
      perClass: { images: number }[];
    };
    expect([images, skipped, ...perClass.map((each) => each.images)]).toEqual([6, 2, 3, 3]);
    expect(stderr.trim().split("\n")).toHaveLength(2);
    expect(stderr).toMatch(/x\.jpg: expected.*: skipped\n.*y\.png: expected.*: skipped\n$/);
  });

  test("judges by the part to judge by of the folder that train takes", async () => {
    await writeTree(join(folder, "train"), classFolders(["a", "b"], 4));
    await writeTree(join(folder, "val"), classFolders(["a", "b"], 2));
    const { code, stdout, stderr } = await evaluate(folder);
    expect({ code, images: (JSON.parse(stdout) as { images: number }).images }).toEqual({ code: 0, images: 4 });
    expect(stderr).toBe(`seresnet: ${join(folder, "val")}: these images are judged\n`);
    await rename(join(folder, "val"), join(folder, "later"));
    expect((await evaluate(folder)).stderr).toMatch(/expected a folder val or test beside train/);
  });

  test("follows links to class folders", async () => {
    await writeTree(folder, { ...classFolders(["a"], 2), "../linked/0.png": 1, "../linked/1.png": 1 });
    await symlink(resolve(folder, "../linked"), join(folder, "b"));
    expect(JSON.parse((await evaluate(folder)).stdout)).toMatchObject({ images: 4 });
  });

  test("says when not one image can be read", async () => {
    await writeTree(folder, { "a/x.png": "no", "b/y.png": "no" });
    const { code, stderr } = await evaluate(folder);
    expect(code).toBe(1);
    expect(stderr).toContain("expected images that can be read, got 2 that cannot");
  });
});
