import { execFile, spawn, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { Command } from "commander";
import { loadWeights, MemoryError, setDefaultDevice } from "seresnet";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { addTrain } from "#lib/cli/train.js";
import { referenceExecutor } from "#lib/devices/reference/executor.js";
import { readCheckpoint } from "#lib/io/checkpoint.js";
import { readSafetensors } from "#lib/io/safetensors.js";
import { planMemory } from "#lib/plan/memory.js";
import { writeIdx } from "./support/idx.js";

const program = resolve("dist/lib/cli/main.js");
let folder: string;
let idx: string;
const recipe = ["--model", "resnet14_cifar", "--epochs", "2", "--batch", "8", "--seed", "3"];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-train-cli-"));
  idx = join(folder, "idx");
  await writeIdx(idx, { train: 48, test: 8, side: 8 });
});
afterAll(() => rm(folder, { recursive: true, force: true }));

interface Outcome {
  code: number | null;
  stdout: string;
  stderr: string;
}

function seresnet(...args: readonly string[]): Promise<Outcome> {
  const env = { ...process.env, NO_COLOR: "1" };
  return new Promise((done) => {
    const child = execFile(process.execPath, [program, ...args], { env }, (_, stdout, stderr) =>
      done({ code: child.exitCode, stdout, stderr }),
    );
  });
}

/** Starts a training and sends a signal once `when` holds. */
async function interrupted(
  args: readonly string[],
  signal: NodeJS.Signals,
  when: () => boolean,
): Promise<number | null> {
  const child = spawn(process.execPath, [program, "train", ...args], { stdio: "ignore" });
  const ended = new Promise<number | null>((done) => child.on("exit", done));
  while (child.exitCode === null && !when()) await new Promise((tick) => setTimeout(tick, 20));
  child.kill(signal);
  return ended;
}

const bytes = (out: string, file: string) => readFile(join(out, file));

describe("--batch auto", () => {
  afterEach(() => {
    vi.restoreAllMocks();
    setDefaultDevice("auto");
  });

  /** Trains with the command's own code in this process, on a reference device that has room for so many bytes. */
  async function trainWithin(limit: number, refuse: (bytes: number) => Error, ...args: string[]) {
    const executor = referenceExecutor();
    const load = executor.load.bind(executor);
    vi.spyOn(executor, "load").mockImplementation(async (plan, constants, options) => {
      const { bytes } = planMemory(plan);
      if (bytes > limit) throw refuse(bytes);
      return load(plan, constants, options);
    });
    let said = "";
    vi.spyOn(process.stderr, "write").mockImplementation((text) => {
      said += text;
      return true;
    });
    vi.spyOn(process.stdout, "write").mockImplementation(() => true);
    const command = new Command();
    addTrain(command);
    await command.parseAsync(["train", ...args, "--batch", "auto", "--device", "reference"], { from: "user" });
    return said.split("\n").filter((line) => line.includes("fit into memory"));
  }

  it("halves until a step fits", async () => {
    const refuse = (bytes: number) => new MemoryError(`memory: ${bytes} bytes could not be allocated`);
    const out = join(folder, "auto");
    const args = [idx, "--model", "resnet14_cifar", "--epochs", "1", "--warmup", "0", "--ema", "0", "--workers", "1"];
    const said = await trainWithin(3.5 * 2 ** 20, refuse, ...args, "--out", out);
    const tried = said.map((line) => /a batch of (\d+) .* trying (\d+)/.exec(line)?.slice(1).map(Number));
    expect(tried).toEqual([
      [256, 128],
      [128, 64],
      [64, 32],
    ]);
    const { metadata } = await readSafetensors(join(out, "resume.safetensors"));
    expect(JSON.parse(metadata.seresnet_training).settings).toMatchObject({ batch: 32, lr: 0.1 / 4 });
    await rm(out, { recursive: true });
    await expect(trainWithin(1000, refuse, ...args, "--out", out)).rejects.toThrow(/bytes/);
  });
});

describe("seresnet train", () => {
  it("trains on IDX files, and is the same whether killed, stopped and resumed or not", async () => {
    const whole = join(folder, "whole");
    const { code, stdout, stderr } = await seresnet("train", idx, ...recipe, "--out", whole, "--json");
    expect({ code, lines: stderr.trim().split("\n").length }).toEqual({ code: 0, lines: 2 });
    const answer = JSON.parse(stdout) as { validationAccuracy: number; checkpoint: string };
    expect(stderr).toMatch(/^epoch 1\/2 \| loss [\d.]+ \| accuracy [\d.]+ % \| validation loss .*images a second/);
    expect((await readdir(whole)).sort()).toEqual([
      "metrics.jsonl",
      "model.safetensors",
      "report.html",
      "resume.safetensors",
    ]);
    const evaluated = await seresnet("evaluate", idx, "--weights", whole, "--json");
    expect(JSON.parse(evaluated.stdout)).toMatchObject({ images: 8, accuracy: answer.validationAccuracy });

    // SIGKILL while files are being written, then Ctrl-C, then to the end
    const pieces = join(folder, "pieces");
    const args = [idx, ...recipe, "--out", pieces, "--save-every", "1"];
    const resume = join(pieces, "resume.safetensors");
    expect(await interrupted(args, "SIGKILL", () => existsSync(resume))).toBeNull();
    await loadWeights(join(pieces, "model.safetensors"));
    const killed = (await readdir(pieces)).filter((name) => name.endsWith(".tmp"));
    const before = await bytes(pieces, "resume.safetensors");
    let seen = before;
    const changed = () => {
      void readFile(resume).then((now) => {
        seen = now;
      });
      return !seen.equals(before);
    };
    expect(await interrupted([...args, "--resume"], "SIGINT", changed)).toBe(130);
    expect((await readdir(pieces)).filter((name) => name.endsWith(".tmp"))).toEqual(killed);
    const last = await seresnet("train", ...args, "--resume");
    expect(last.code).toBe(0);
    for (const file of ["model.safetensors"])
      expect((await bytes(pieces, file)).equals(await bytes(whole, file))).toBe(true);
    const untimed = async (out: string) =>
      (await bytes(out, "metrics.jsonl"))
        .toString()
        .trim()
        .split("\n")
        .map((line) => {
          const { seconds: _, imagesPerSecond: __, idle: ___, ...rest } = JSON.parse(line) as Record<string, unknown>;
          return rest;
        });
    expect(await untimed(pieces)).toEqual(await untimed(whole));

    // a kill after an epoch was saved and before its line was written
    const lines = (await bytes(pieces, "metrics.jsonl")).toString().trim().split("\n");
    await writeFile(join(pieces, "metrics.jsonl"), `${lines.slice(0, -1).join("\n")}\n`);
    expect((await seresnet("train", ...args, "--resume")).code).toBe(0);
    expect((await bytes(pieces, "metrics.jsonl")).toString().trim().split("\n")).toEqual(lines);

    const other = await seresnet("train", idx, ...recipe, "--model", "resnet20_cifar", "--out", pieces, "--resume");
    expect(other).toMatchObject({ code: 1, stdout: "" });
    expect(other.stderr).toContain('expected a run with model "resnet20_cifar"');
    expect((await bytes(pieces, "model.safetensors")).equals(await bytes(whole, "model.safetensors"))).toBe(true);
  });

  it("does not lose a run that is there: it refuses, goes on with more epochs, or begins anew where told so", async () => {
    const out = join(folder, "kept");
    const start = ["train", idx, "--model", "resnet14_cifar", "--seed", "3", "--out", out];
    expect((await seresnet(...start, "--epochs", "1")).code).toBe(0);
    const before = await bytes(out, "model.safetensors");
    const refused = await seresnet(...start, "--epochs", "1");
    expect(refused).toMatchObject({ code: 1, stdout: "" });
    expect(refused.stderr).toMatch(
      /--resume goes on with the one there, --overwrite begins anew\), got model\.safetensors/,
    );
    expect((await bytes(out, "model.safetensors")).equals(before)).toBe(true);

    const more = await seresnet(...start, "--epochs", "2", "--resume", "--json");
    expect(more.code).toBe(0);
    expect(more.stderr).toContain("1 epochs were planned; from here on learning rates are those of 2");
    // 48 images at the default batch for so few: 8, and every image is trained on
    expect(JSON.parse(more.stdout)).toMatchObject({ epoch: 2, step: 12, images: 48 });
    const fewer = await seresnet(...start, "--epochs", "1", "--resume");
    expect(fewer.stderr).toContain("expected --epochs of at least the 2 that are done, got 1");
    const other = await seresnet(...start, "--epochs", "2", "--lr", "0.5", "--resume");
    expect(other.stderr).toContain("to begin a new run from its weights: --weights");

    expect((await seresnet(...start, "--epochs", "1", "--overwrite")).code).toBe(0);
    expect((await bytes(out, "model.safetensors")).equals(before)).toBe(true);
  });

  it("leaves a folder alone that another run writes into, and says whose it is", async () => {
    const out = join(folder, "shared");
    const start = ["train", idx, ...recipe, "--out", out];
    const long = spawn(process.execPath, [program, ...start, "--epochs", "100000"], { stdio: "ignore" });
    const ended = new Promise((done) => long.on("exit", done));
    while (long.exitCode === null && !existsSync(join(out, "resume.safetensors")))
      await new Promise((tick) => setTimeout(tick, 20));
    for (const how of [[], ["--overwrite"], ["--resume"]]) {
      const { code, stderr } = await seresnet(...start, ...how);
      expect(code).toBe(1);
      expect(stderr).toBe(
        `seresnet: ${out}: expected a folder that no other run writes into, got one that process ${long.pid} does\n`,
      );
    }
    expect(existsSync(join(out, "resume.safetensors"))).toBe(true);
    long.kill("SIGKILL");
    await ended;
    expect((await seresnet(...start, "--epochs", "1", "--overwrite")).code).toBe(0);
    expect((await readdir(out)).filter((name) => name.includes(".lock"))).toEqual([]);
  });

  it("tunes weights for a folder of photos, stages frozen, and names an image it cannot read", async () => {
    const photos = join(folder, "photos");
    for (const [name, file] of [
      ["cat", "chelsea.png"],
      ["rocket", "rocket.jpg"],
    ]) {
      await mkdir(join(photos, name), { recursive: true });
      for (let i = 0; i < 5; i++)
        await copyFile(resolve("test/fixtures/images", file), join(photos, name, `${i}${file.slice(-4)}`));
    }
    await writeFile(join(photos, "cat", "9.png"), "not an image");
    const out = join(folder, "tuned");
    const shipped = resolve("models/weights/seresnet20_cifar_fashion.safetensors");
    const args = [
      "--weights",
      shipped,
      "--freeze",
      "2",
      "--epochs",
      "1",
      "--batch",
      "4",
      "--ema",
      "0",
      "--validation",
      "0.2",
    ];
    const { code, stderr } = await seresnet("train", photos, ...args, "--out", out);
    expect({ code, stderr }).toMatchObject({ code: 0 });
    expect(stderr).toMatch(/9\.png: expected an image that can be decoded, got [^\n]+: skipped\n/);
    expect(stderr).toContain("fc.weight begins anew, for 2 classes in place of 10");
    const { info, weights } = await readCheckpoint(join(out, "model.safetensors"));
    expect(info).toMatchObject({ model: "seresnet20_cifar", classes: ["cat", "rocket"], inputSize: [1, 28, 28] });
    const start = await loadWeights(shipped);
    for (const name of ["conv1.weight", "bn1.running_mean", "layer2.1.bn2.running_var", "layer2.0.se.fc1.bias"])
      expect(await weights[name].data()).toEqual(await start[name].data());
    expect(await weights["layer3.0.conv1.weight"].data()).not.toEqual(await start["layer3.0.conv1.weight"].data());
    const strict = await seresnet("train", photos, ...args, "--strict", "--out", join(folder, "strict"));
    expect(strict).toMatchObject({ code: 1, stdout: "" });
    expect(strict.stderr).toContain("9.png");
  });

  it("a loss that is not finite ends it, with the last good checkpoint", async () => {
    const out = join(folder, "exploding");
    const args = [...recipe, "--lr", "1e30", "--schedule", "constant", "--save-every", "1", "--out", out];
    const { code, stderr } = await seresnet("train", idx, ...args);
    expect(code).toBe(1);
    expect(stderr).toMatch(/(a finite loss, got (NaN|Infinity) at step \d+ \(epoch 1\)|finite weights to save)/);
    if (!existsSync(join(out, "model.safetensors"))) return;
    for (const weight of Object.values(await loadWeights(join(out, "model.safetensors"))))
      expect(Array.from((await weight.data()) as Float32Array, Number).every(Number.isFinite)).toBe(true);
  });

  it("a full disk loses nothing", async () => {
    const mounted = join(folder, "disk");
    await mkdir(mounted);
    // room for one model and its resume file, but not for the next ones beside them
    if (spawnSync("unshare", ["-rm", "sh", "-c", 'mount -t tmpfs tmpfs "$0"', mounted]).status !== 0) {
      console.warn("left out: a full disk (mounting one needs unshare and user namespaces)");
      return;
    }
    const copy = join(folder, "copy");
    await mkdir(copy);
    const run = `mount -t tmpfs -o size=3400k tmpfs "$0" && "$@"; status=$?; cp "$0"/*.safetensors ${copy}; ls -A "$0"; exit $status`;
    const args = ["train", idx, ...recipe, "--save-every", "1", "--out", mounted];
    const { status, stdout, stderr } = spawnSync(
      "unshare",
      ["-rm", "sh", "-c", run, mounted, process.execPath, program, ...args],
      {
        encoding: "utf8",
      },
    );
    expect(status).toBe(1);
    expect(stderr).toMatch(/got a full disk; .*model\.safetensors is of step \d/);
    expect(
      stdout
        .trim()
        .split("\n")
        .filter((name) => name.endsWith(".tmp")),
    ).toEqual([]);
    await loadWeights(join(copy, "resume.safetensors"));
    await loadWeights(join(copy, "model.safetensors"));
  });

  it.each([
    [["--batch", "none"], 2],
    [["--freeze", "9"], 1],
    [["--model", "resnet14_cifra"], 1],
    [["--warmup", "7"], 1],
    [["--weight-decay", "-1"], 2],
  ] as const)("refuses %j", async (args, code) => {
    const out = join(folder, `refused${args.join("")}`);
    const outcome = await seresnet("train", idx, ...recipe, ...args, "--out", out);
    expect(outcome).toMatchObject({ code, stdout: "" });
    expect(existsSync(join(out, "model.safetensors"))).toBe(false);
  });
});
