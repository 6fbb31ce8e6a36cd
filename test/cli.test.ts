import { type ChildProcess, execFile, spawn } from "node:child_process";
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { listModels, loadWeights, saveSafetensors, type Tensor, tensor } from "seresnet";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fashionMnistClasses } from "#lib/data/idx.js";

const root = join(__dirname, "..");
const program = join(root, "dist/lib/cli/main.js");
const chelsea = join(root, "test/fixtures/images/chelsea.png");
const rocket = join(root, "test/fixtures/images/rocket.jpg");
const shipped = join(root, "models/weights/seresnet20_cifar_fashion.safetensors");

interface Outcome {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs the built program on the device every machine has, whatever colours the tests are shown in; `environment` overrides. */
function seresnet(args: readonly string[], environment: NodeJS.ProcessEnv = {}): Promise<Outcome> {
  const { FORCE_COLOR: _, NO_COLOR: __, SERESNET_DEBUG: ___, ...inherited } = process.env;
  const env = { ...inherited, SERESNET_DEVICE: "reference", ...environment };
  return new Promise((resolve) => {
    const child: ChildProcess = execFile(process.execPath, [program, ...args], { env }, (_, stdout, stderr) =>
      resolve({ code: child.exitCode ?? -1, stdout, stderr }),
    );
  });
}

/** What is said where weights were not named. */
const note = /^seresnet: no weights were named, [^\n]+\n/;
const usesDefault = (args: readonly string[]) =>
  ["classify", "evaluate"].includes(args[0]) && !args.includes("--weights");

/** The parsed answer of a run that succeeds and says nothing else. */
async function answer<T>(args: readonly string[], environment?: NodeJS.ProcessEnv): Promise<T> {
  const { code, stdout, stderr } = await seresnet([...args, "--json"], environment);
  expect(note.test(stderr)).toBe(usesDefault(args));
  expect({ code, stderr: stderr.replace(note, "") }).toEqual({ code: 0, stderr: "" });
  if (usesDefault(args)) expect((JSON.parse(stdout) as { note: string }).note).toContain("Fashion-MNIST");
  return JSON.parse(stdout) as T;
}

/** A run that must fail: nothing on stdout, one line on stderr and no stack. */
async function complaint(args: readonly string[], code: 1 | 2): Promise<string> {
  const outcome = await seresnet(args);
  expect(outcome).toMatchObject({ code, stdout: "" });
  expect(outcome.stderr).toMatch(/^seresnet: [^\n]+\n(\(Did you mean [^\n]+\n)?$/);
  return outcome.stderr;
}

interface Classified {
  model: string;
  device: string;
  results: { image: string; error?: string; predictions: { index: number; label: string; probability: number }[] }[];
}

interface Evaluated {
  images: number;
  correct: number;
  accuracy: number;
  device: string;
  seconds: number;
  imagesPerSecond: number;
  perClass: { label: string; images: number; correct: number; accuracy: number | null }[];
}

let folder: string;
const at = (...names: string[]) => join(folder, ...names);

/** Twenty noisy images, two of each class, as the test split of MNIST's layout. */
async function writeIdx(target: string): Promise<void> {
  await mkdir(target);
  const header = (...numbers: number[]) => {
    const bytes = Buffer.alloc(4 * numbers.length);
    for (const [i, number] of numbers.entries()) bytes.writeUInt32BE(number, 4 * i);
    return bytes;
  };
  const pixels = Uint8Array.from({ length: 20 * 784 }, (_, i) => (Math.imul(i, 2654435761) >>> 24) & 255);
  await writeFile(join(target, "t10k-images-idx3-ubyte"), Buffer.concat([header(0x803, 20, 28, 28), pixels]));
  const labels = Uint8Array.from({ length: 20 }, (_, i) => i % 10);
  await writeFile(join(target, "t10k-labels-idx1-ubyte"), Buffer.concat([header(0x801, 20), labels]));
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-cli-"));
  const weights = await loadWeights(shipped);
  const bytes = await readFile(shipped);
  const broken: Record<string, Tensor> = { ...weights };
  const bias = new Float32Array(10);
  bias[3] = Number.NaN;
  broken["fc.bias"] = tensor(bias);
  const renamed: Record<string, Tensor> = { ...weights, fc_weight: weights["fc.weight"] };
  delete renamed["fc.weight"];
  await mkdir(at("timm"));
  await Promise.all([
    writeFile(at("truncated.safetensors"), bytes.subarray(0, bytes.length - 1000)),
    saveSafetensors(at("nan.safetensors"), broken),
    saveSafetensors(at("foreign.safetensors"), weights),
    saveSafetensors(at("renamed.safetensors"), renamed),
    saveSafetensors(at("timm", "model.safetensors"), weights),
    writeFile(at("text.png"), "not an image"),
    writeFile(at("nine.txt"), "abcdefghi".split("").join("\n")),
    writeFile(at("ten.txt"), `${"abcdefghij".split("").join("\r\n")}\r\n`),
    writeIdx(at("idx")),
    mkdir(at("empty")),
  ]);
  const preprocessing = {
    input_size: [1, 28, 28],
    mean: [0.286],
    std: [0.353],
    interpolation: "bilinear",
    crop_pct: 1,
  };
  const config = {
    architecture: "seresnet20_cifar",
    num_classes: 10,
    label_names: fashionMnistClasses,
    pretrained_cfg: { ...preprocessing, label_names: null },
  };
  await writeFile(at("timm", "config.json"), JSON.stringify(config));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe("classify", () => {
  test("names the likeliest classes of every image, in the order asked", async () => {
    const { model, device, results } = await answer<Classified>(["classify", chelsea, rocket, "--top", "3"]);
    expect({ model, device }).toEqual({ model: "seresnet20_cifar", device: "reference" });
    expect(results.map(({ image }) => image)).toEqual([chelsea, rocket]);
    for (const { predictions } of results) {
      expect(predictions).toHaveLength(3);
      for (const { index, label } of predictions) expect(label).toBe(fashionMnistClasses[index]);
      const probabilities = predictions.map(({ probability }) => probability);
      expect(probabilities).toEqual([...probabilities].sort((a, b) => b - a));
    }
  });

  test("probabilities of all classes sum to 1, however many --top asks for", async () => {
    const { results } = await answer<Classified>(["classify", chelsea, "--top", "99"]);
    expect(results[0].predictions).toHaveLength(10);
    expect(results[0].predictions.reduce((sum, { probability }) => sum + probability, 0)).toBeCloseTo(1, 9);
  });

  test("a folder with timm's config.json gives what the shipped checkpoint gives", async () => {
    const own = await answer<Classified>(["classify", chelsea]);
    const foreign = await answer<Classified>(["classify", chelsea, "--weights", at("timm")]);
    expect(foreign.results).toEqual(own.results);
  });

  test("weights that fit one network alone are that network's", async () => {
    const { model } = await answer<Classified>(["classify", chelsea, "--weights", at("foreign.safetensors")]);
    expect(model).toBe("seresnet20_cifar");
  });

  test("foreign weights are described by --model, their shapes and --labels", async () => {
    const args = ["classify", chelsea, "--weights", at("foreign.safetensors"), "--model", "seresnet20_cifar"];
    const plain = await answer<Classified>([...args, "--top", "1", "--strict"]);
    expect(plain.results[0].predictions[0].label).toMatch(/^class \d$/);
    const labelled = await answer<Classified>([...args, "--top", "1", "--labels", at("ten.txt")]);
    const { index, label } = labelled.results[0].predictions[0];
    expect(label).toBe("abcdefghij"[index]);
  });

  test("people get the labels, and no colour codes into a pipe or a CI log", async () => {
    const { code, stdout, stderr } = await seresnet(["classify", chelsea, "--top", "2"], { CI: "true" });
    expect({ code, stderr: stderr.replace(note, "") }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toMatch(/^\/.+chelsea\.png\n +\d+\.\d\d % {2}.+\n +\d+\.\d\d % {2}.+\n$/);
  });

  test("FORCE_COLOR brings the colours into a pipe, NO_COLOR takes them away", async () => {
    const coloured = await seresnet(["classify", chelsea, "--top", "1"], { FORCE_COLOR: "1" });
    expect(coloured.stdout).toContain("\u001b[1m");
    const plain = await seresnet(["classify", chelsea, "--top", "1"], { FORCE_COLOR: "1", NO_COLOR: "1" });
    expect(plain.stdout).not.toContain("\u001b");
  });

  test("images that cannot be read are named; the others are classified; exit 1", async () => {
    const paths = [at("missing.png"), chelsea, at("text.png")];
    const { code, stdout, stderr } = await seresnet(["classify", ...paths, "--json"]);
    expect(code).toBe(1);
    expect(stderr.replace(note, "").trimEnd().split("\n")).toHaveLength(3);
    expect(stderr).toMatch(/missing\.png: expected .*, got no such file/);
    expect(stderr).toMatch(/text\.png: expected an image that can be decoded/);
    const { results } = JSON.parse(stdout) as Classified;
    expect(results.map(({ error }) => error !== undefined)).toEqual([true, false, true]);
    const alone = await answer<Classified>(["classify", chelsea]);
    expect(results[1]).toEqual(alone.results[0]);
  });
});

describe("evaluate", () => {
  test("counts what is right, by class", async () => {
    const result = await answer<Evaluated>(["evaluate", at("idx"), "--batch", "8"]);
    expect(result).toMatchObject({ images: 20, device: "reference", accuracy: result.correct / 20 });
    expect(result.imagesPerSecond).toBeCloseTo(20 / result.seconds, 6);
    expect(result.perClass.map(({ label }) => label)).toEqual(fashionMnistClasses);
    expect(result.perClass.map(({ images }) => images)).toEqual(new Array(10).fill(2));
    expect(result.perClass.reduce((sum, { correct }) => sum + correct, 0)).toBe(result.correct);
  });

  test("--limit takes the first images; a class without any has no accuracy", async () => {
    const { images, perClass } = await answer<Evaluated>(["evaluate", at("idx"), "--limit", "9", "--weights", shipped]);
    expect(images).toBe(9);
    expect(perClass[9]).toEqual({ label: "Ankle boot", images: 0, correct: 0, accuracy: null });
  });

  test("class folders are matched to classes by name", async () => {
    const { results } = await answer<Classified>(["classify", chelsea, rocket, "--top", "1"]);
    const [first, second] = results.map(({ predictions }) => predictions[0].label);
    const target = at("classes");
    const wrong = fashionMnistClasses.find((label) => label !== second && label !== first) as string;
    for (const [label, picture] of [
      [first, chelsea],
      [wrong, rocket],
    ]) {
      await mkdir(join(target, label.replace("/", "_")), { recursive: true });
      await copyFile(picture, join(target, label.replace("/", "_"), picture === chelsea ? "a.png" : "b.jpg"));
    }
    expect(await answer<Evaluated>(["evaluate", target])).toMatchObject({ images: 2, correct: 1, accuracy: 0.5 });
  });

  test("class folders of unknown names are taken in alphabetical order, and that is said", async () => {
    const target = at("numbered");
    const { results } = await answer<Classified>(["classify", chelsea, "--top", "1"]);
    for (let i = 0; i < 10; i++) await mkdir(join(target, `k${i}`), { recursive: true });
    await copyFile(chelsea, join(target, `k${results[0].predictions[0].index}`, "a.png"));
    const { code, stdout, stderr } = await seresnet(["evaluate", target, "--json"]);
    expect(code).toBe(0);
    expect(stderr).toMatch(/sorted folders are taken for classes/);
    expect(JSON.parse(stdout)).toMatchObject({ images: 1, correct: 1 });
    await rm(join(target, "k9"), { recursive: true });
    expect(await complaint(["evaluate", target], 1)).toMatch(
      /folders named after .*10 classes.*, got k0, k1, k2, k3, k4 and 4 more/,
    );
  });

  test("people get a table and the accuracy", async () => {
    const { code, stdout, stderr } = await seresnet(["evaluate", at("idx")]);
    expect({ code, stderr: stderr.replace(note, "") }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toMatch(/Ankle boot/);
    expect(stdout).toMatch(/accuracy \d+\.\d\d %: \d+ of 20 images/);
  });
});

test("demo draws a contact sheet and lists what is on it", async () => {
  const out = at("sheet.png");
  const demo = ["demo", "--data", at("idx"), "--out", out, "--count", "10"];
  const report = await answer<{ images: number; accuracy: number; pictures: { correct: boolean }[]; out: string }>(
    demo,
  );
  expect(report).toMatchObject({ images: 20, out });
  expect(report.pictures).toHaveLength(10);
  const { format, width, height } = await sharp(out).metadata();
  expect({ format, width, height }).toEqual({ format: "png", width: expect.any(Number), height: expect.any(Number) });
  expect(Math.min(width, height)).toBeGreaterThan(400);
  const { code, stdout } = await seresnet(demo);
  expect(code).toBe(0);
  expect(stdout).toMatch(/prediction.*confidence.*truth/);
  expect(stdout).toMatch(/ms an image on reference/);
});

test("models lists every model with its size", async () => {
  const models = await answer<{ name: string; family: string; parameters: number; input: number[] }[]>(["models"]);
  expect(models.map(({ name }) => name)).toEqual(listModels());
  expect(models.find(({ name }) => name === "seresnet50")).toEqual({
    name: "seresnet50",
    family: "SE-ResNet",
    parameters: 28_088_024,
    input: [3, 224, 224],
  });
});

test("summary counts for the input and the classes asked for", async () => {
  const usual = await answer<{ parameters: number; macs: number }>(["summary", "resnet50"]);
  expect(usual.parameters).toBe(25_557_032);
  expect(usual.macs / 1e9).toBeCloseTo(4.1, 1);
  const small = ["summary", "seresnet14_cifar", "--input", "1,1,28,28", "--classes", "10"];
  const { parameters, layers } = await answer<{ parameters: number; layers: { outputShape: number[] }[] }>(small);
  expect(parameters).toBe(177_010);
  expect(layers.at(-1)?.outputShape).toEqual([1, 10]);
  expect((await seresnet(small)).stdout).toMatch(/0\.177 M parameters/);
});

describe("inspect", () => {
  interface Report {
    seresnet: string;
    node: string;
    addon: { loaded: boolean };
    devices: { name: string; usable: boolean; reason?: string; fix?: string }[];
    auto: { device: string | null; why: string };
  }

  test("names every device, and why and how for those that do not work", async () => {
    const report = await answer<Report>(["inspect"], { SERESNET_DEVICE: "" });
    const manifest = JSON.parse(await readFile(join(root, "package.json"), "utf8")) as { version: string };
    expect(report).toMatchObject({ seresnet: manifest.version, node: process.version });
    expect([...new Set(report.devices.map(({ name }) => name))]).toEqual(["cuda", "cpu", "reference"]);
    for (const { usable, reason, fix } of report.devices)
      if (!usable) expect([reason, fix]).toEqual([expect.stringMatching(/\w/), expect.stringMatching(/\w/)]);
    expect(report.auto.device).toBe(report.devices.find(({ usable }) => usable)?.name);
  });

  test("without the addon only the reference works, and auto takes it", async () => {
    const report = await answer<Report>(["inspect"], { SERESNET_ADDON: "none", SERESNET_DEVICE: "" });
    expect(report.addon.loaded).toBe(false);
    expect(report.devices.map(({ name, usable }) => [name, usable])).toEqual([
      ["cuda", false],
      ["cpu", false],
      ["reference", true],
    ]);
    expect(report.devices[0].reason).toMatch(/SERESNET_ADDON=none/);
    expect(report.auto).toEqual({ device: "reference", why: expect.stringMatching(/cuda: the native addon/) });
  });

  test("SERESNET_DEVICE that names nothing is told of, not fallen over", async () => {
    const { auto } = await answer<Report>(["inspect"], { SERESNET_DEVICE: "tpu" });
    expect(auto).toEqual({ device: null, why: expect.stringMatching(/SERESNET_DEVICE.*tpu/) });
  });

  test("people get the fixing command", async () => {
    const { stdout } = await seresnet(["inspect"], { SERESNET_ADDON: "none" });
    expect(stdout).toMatch(/cuda +does not work/);
    expect(stdout).toMatch(/try: unset SERESNET_ADDON/);
  });
});

describe("failures: exit 1, one line", () => {
  const cases: [name: string, args: () => string[], message: RegExp][] = [
    ["missing weights", () => ["classify", chelsea, "--weights", at("none.safetensors")], /none.*, got no such file/],
    [
      "truncated weights",
      () => ["classify", chelsea, "--weights", at("truncated.safetensors")],
      /truncated\.safetensors/,
    ],
    [
      "NaN weights with --strict",
      () => ["classify", chelsea, "--weights", at("nan.safetensors"), "--model", "seresnet20_cifar", "--strict"],
      /finite numbers in tensor "fc.bias", got NaN at element 3/,
    ],
    [
      "NaN weights without --strict",
      () => ["classify", chelsea, "--weights", at("nan.safetensors"), "--model", "seresnet20_cifar"],
      /finite logits, got NaN/,
    ],
    ["weights of no network", () => ["classify", chelsea, "--weights", at("renamed.safetensors")], /--model NAME/],
    [
      "weights of another model",
      () => ["classify", chelsea, "--weights", at("renamed.safetensors"), "--model", "seresnet20_cifar"],
      /not those of seresnet20_cifar: missing fc\.weight, unexpected fc_weight/,
    ],
    ["a model the weights are not", () => ["classify", chelsea, "--model", "resnet18"], /expected weights of resnet18/],
    ["unknown --model", () => ["classify", chelsea, "--model", "resnet19"], /nearest: resnet1\d/],
    ["a folder without weights", () => ["classify", chelsea, "--weights", at("empty")], /model\.safetensors/],
    [
      "too few labels",
      () => ["classify", chelsea, "--labels", at("nine.txt")],
      /nine\.txt: expected 10 labels.*, got 9/,
    ],
    ["missing labels", () => ["classify", chelsea, "--labels", at("none.txt")], /none\.txt.*no such file/],
    ["a dtype the device lacks", () => ["classify", chelsea, "--dtype", "float16"], /float32 on the reference device/],
    ["unknown model", () => ["summary", "seresnet51"], /nearest: seresnet5/],
    [
      "images of another size than the network's",
      () => ["evaluate", at("idx"), "--weights", at("foreign.safetensors"), "--model", "seresnet20_cifar"],
      /input \[1, 32, 32\], got \[1, 28, 28\]/,
    ],
    ["missing data", () => ["evaluate", at("missing")], /missing: .*got no such file/],
    [
      "data that is neither IDX nor class folders",
      () => ["evaluate", at("empty")],
      /IDX test files .* or class folders/,
    ],
    ["demo without its dataset", () => ["demo", "--data", at("empty")], /npm run setup .*dataset-fashion-mnist/],
    ["demo that cannot write", () => ["demo", "--data", at("idx"), "--out", at("no", "x.png")], /x\.png.*no such file/],
  ];
  test.each(cases)("%s", async (_, args, message) => {
    expect(await complaint(args(), 1)).toMatch(message);
  });

  test("a device that does not work is never replaced by another", async () => {
    const { code, stderr } = await seresnet(["classify", chelsea, "--device", "cuda"], { SERESNET_ADDON: "none" });
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringMatching(/^seresnet: no usable cuda device: /) });
  });

  test("SERESNET_DEBUG=1 adds the stack", async () => {
    const { stderr } = await seresnet(["summary", "seresnet51"], { SERESNET_DEBUG: "1" });
    expect(stderr).toMatch(/\n +at /);
  });
});

describe("wrong usage: exit 2, one line", () => {
  const cases: [args: string[], message: RegExp][] = [
    [["clasify", "a.png"], /unknown command 'clasify'/],
    [["classify"], /missing required argument 'image'/],
    [["classify", "a.png", "--tops", "3"], /unknown option '--tops'/],
    [["classify", "a.png", "--top", "0"], /'0' is invalid/],
    [["classify", "a.png", "--top", "2.5"], /'2.5' is invalid/],
    [["classify", "a.png", "--device", "gpu"], /auto, cuda, cpu, reference/],
    [["classify", "a.png", "--dtype", "int8"], /float32, tf32, bfloat16, float16/],
    [["classify", "a.png", "--weights"], /argument missing/],
    [["evaluate", "a", "b"], /too many arguments/],
    [["evaluate", "a", "--limit", "-1"], /'-1' is invalid/],
    [["demo", "--count", "401"], /at most 400/],
    [["summary", "resnet18", "--input", "1,3,224"], /Expected four whole numbers/],
    [["summary", "resnet18", "--input", "1,3,0,224"], /Expected four whole numbers/],
  ];
  test.each(cases)("%j", async (args, message) => {
    expect(await complaint(args, 2)).toMatch(message);
  });

  test("no command at all shows the help on stderr", async () => {
    const { code, stdout, stderr } = await seresnet([]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toMatch(/^Usage: seresnet/);
  });
});

test("--version and --help answer on stdout", async () => {
  const { stdout, code } = await seresnet(["--version"]);
  expect({ stdout, code }).toEqual({ stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/), code: 0 });
  for (const args of [["--help"], ["classify", "--help"], ["evaluate", "--help"], ["summary", "--help"]]) {
    const help = await seresnet(args);
    expect(help).toMatchObject({ code: 0, stderr: "" });
    expect(help.stdout).toMatch(/Examples:\n {2}seresnet /);
  }
});

test("a reader that leaves early is no error", async () => {
  const child = spawn(process.execPath, [program, "models", "--json"], { stdio: ["ignore", "pipe", "pipe"] });
  child.stdout.destroy();
  let complaints = "";
  child.stderr.on("data", (text: Buffer) => {
    complaints += text;
  });
  const code = await new Promise((resolve) => child.on("close", resolve));
  expect({ code, complaints }).toEqual({ code: 0, complaints: "" });
});
