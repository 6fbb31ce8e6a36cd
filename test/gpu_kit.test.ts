import { execFileSync, spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { nativeVersions } from "#lib/devices/native/addon.js";
import { needs } from "./gpu_kit/needs.mjs";
import { usableDevices } from "./support/devices.js";
import { canMakeUp, madeUpLibraries } from "./support/made_up.js";
import { pythonWith } from "./support/python.js";

// The kit for a lent GPU machine (test/gpu_kit.mjs), rehearsed: its calls, with the device cuda-sim, on a machine that has a
// shell's tools and nothing else, and where steps hang, crash or lack what they need.
const root = join(__dirname, "..");
const folder = mkdtempSync(join(tmpdir(), "seresnet-kit-test-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const tools =
  "sh timeout date mkdir mktemp cat cut tee tail grep wc ls tar xz gzip rm dirname mv sleep printf tr".split(" ");
const found = new Map(
  tools.map((name) => [name, spawnSync("sh", ["-c", `command -v ${name}`], { encoding: "utf8" }).stdout.trim()]),
);
const lacking = tools.filter((name) => !found.get(name));
const sim = join(root, "build/sim/seresnet.node");
const reason = existsSync(sim)
  ? lacking.length > 0
    ? `there is no ${lacking}`
    : undefined
  : "npm run test:sim runs it";
if (reason) test("the kit's rehearsal", (context) => context.skip(`LEFT OUT: ${reason}`));

test.runIf(canMakeUp)("libraries that a bare machine lacks are found, those that others need too", () => {
  const { library } = madeUpLibraries(folder);
  const place = library("libopencl.so.1", "int opencl(void) { return 1; }");
  for (const [name, source, needed] of [
    ["libdnnl.so.2", "int opencl(void); int dnnl(void) { return opencl(); }", "libopencl.so.1"],
    ["addon.node", "int dnnl(void); int addon(void) { return dnnl(); }", "libdnnl.so.2"],
  ]) {
    writeFileSync(join(place, "source.c"), source);
    const words = ["-shared", "-fPIC", "-Wl,-rpath,$ORIGIN", "-o", join(place, name), join(place, "source.c")];
    execFileSync("cc", [...words, join(place, needed)]);
  }
  expect(needs(join(place, "addon.node")).sort()).toEqual(["libdnnl.so.2", "libopencl.so.1"]);
  expect(needs(join(place, "libopencl.so.1"))).toEqual([]);
});

const pack = (...words: string[]) =>
  spawnSync(process.execPath, [join(root, "test/gpu_kit.mjs"), ...words], { encoding: "utf8" });

/** A machine's PATH: the shell's tools, and programs that are made up. */
function machine(made: Record<string, string> = {}): string {
  const bin = mkdtempSync(join(folder, "bin-"));
  for (const [name, path] of found) if (path.startsWith("/")) symlinkSync(path, join(bin, name));
  for (const [name, script] of Object.entries(made))
    writeFileSync(join(bin, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  return bin;
}

/** The file that a Python is, which needs no PATH. */
const executableOf = (python: string) =>
  execFileSync(python, ["-c", "import sys; print(sys.executable)"], { encoding: "utf8" }).trim();

/** A call in an empty environment; `lines` are those of the table at its end. */
function call(kit: string, path: string, ...words: string[]) {
  const out = mkdtempSync(join(folder, "out-"));
  const child = spawnSync("/bin/sh", [join(kit, "gpu.sh"), out, ...words], {
    encoding: "utf8",
    env: { PATH: path, HOME: "/nonexistent" },
  });
  const table = child.stdout.split("\n\n").at(-1)?.trimEnd() ?? "";
  return { ...child, out, table, lines: table.split("\n") };
}

// compiles the kernels once more, for minutes: CI does
const builds = process.env.SERESNET_TEST_KIT === "1" && nativeVersions()?.cuda && lacking.length === 0;
test.runIf(builds)(
  "the kit for a GPU has an addon that loads where neither oneDNN nor OpenCL is, and says why it finds no GPU",
  { timeout: 1_800_000 },
  () => {
    const kit = join(folder, "kit of a GPU");
    const packed = pack(kit);
    expect(packed.status, packed.stderr).toBe(0);
    expect(packed.stdout).toMatch(/: \d+\.\d MiB of at most 60\.0 MiB; there: sh gpu\.sh OUT first\n$/);
    expect(needs(join(root, "build/kit-addon/seresnet.node"))).toEqual([]);
    if (usableDevices.includes("cuda")) return;
    const { status, table } = call(kit, machine(), "first");
    expect(status).toBe(1);
    // the addon's own words, not those about an addon that is not loaded
    expect(table).toMatch(
      /^device .* FAILED with 1: The benchmark on cuda was not run: no (NVIDIA (driver|GPU)|cuDNN)/m,
    );
  },
);

describe.skipIf(reason !== undefined)("the kit", () => {
  const kit = join(folder, "kit");
  let packed: ReturnType<typeof pack>;
  beforeAll(() => {
    packed = pack(kit, "--sim");
  }, 300_000);

  const run = (path: string, ...words: string[]) => call(kit, path, ...words);

  test("says what it packed and how large that is, which is less than may travel", () => {
    expect(packed.status, packed.stderr).toBe(0);
    for (const what of ["node", "addon", "dist", "test", "node_modules: \\d+ packages", "logits of seresnet14_cifar"])
      expect(packed.stdout).toMatch(new RegExp(`^ +\\d+\\.\\d MiB  ${what}$`, "m"));
    const [, size] = /: (\d+\.\d) MiB of at most 60\.0 MiB; there: sh gpu\.sh OUT first\n$/.exec(packed.stdout) ?? [];
    expect(Number(size)).toBeGreaterThan(20);
    expect(readdirSync(kit).sort()).toEqual(["gpu.sh", "kit.env", "kit.tar.xz"]);
  });

  const patient = { timeout: 600_000 };
  test("the first call runs on a machine with neither node, Python nor CUDA, and ends with a table", patient, () => {
    const { status, out, stderr, table, lines } = run(machine(), "first");
    expect(stderr).toBe("");
    expect(status, table).toBe(0);
    const steps = lines.filter((line) => /^\w[\w ]{11} +\d+ s {2}/.test(line)).map((line) => line.split(/ {2,}/));
    expect(steps.map(([name]) => name)).toEqual(["unpack", "card", "torch", "device", "smoke", "parity", "speed"]);
    expect(lines.find((line) => line.startsWith("card"))).toMatch(/LEFT OUT: nvidia-smi is not there$/);
    expect(lines.find((line) => line.startsWith("torch"))).toMatch(/LEFT OUT: python3 is not there$/);
    expect(table).toMatch(/^smoke .* ok: smoke: (\d+) of \1 families of ops right$/m);
    expect(table).toMatch(/^parity: [1-9]\d* passed, 0 failed, \d+ skipped$/m);
    expect(table).toMatch(
      /^this card, measured now: a copy moves [\d.]+ GB\/s; products [\d.e-]+ TFLOP\/s in float16$/m,
    );
    expect(table).toMatch(
      /seresnet14_cifar float16 batch 2 seresnet: .* images\/s, .* % of this card's bound, differs by/,
    );
    expect(lines.at(-1)).toMatch(/^first: \d+ s of at most 300, all went well$/);
    // on one screen
    expect(lines.length).toBeLessThanOrEqual(45);
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(160);
    // and what comes back fits
    expect(readdirSync(out).sort()).toEqual(["cuda-sim.json", "log.txt", "report.txt"]);
    expect(readFileSync(join(out, "report.txt"), "utf8")).toContain(lines.at(-1));
    const log = readFileSync(join(out, "log.txt"), "utf8");
    expect(log).not.toContain("the reference's logits"); // they were shipped
    expect(log).toContain("== parity (at most 110 s): node test/run_on.mjs cuda-sim --seconds 20");
  });

  test(
    "a step that hangs is killed, one that crashes is told, PyTorch is left out, and the rest goes on",
    patient,
    () => {
      const back = join(folder, "back");
      mkdirSync(back);
      expect(pack(kit, "--back", back).stderr).toBe(`gpu_kit: expected plans.tar or compile.tar in ${back}\n`);
      execFileSync("tar", ["-C", join(root, "models/labels"), "-czf", join(back, "plans.tar"), "."]);
      expect(pack(kit, "--back", back).stdout).toMatch(/plans\.tar\n/);
      const path = machine({
        "nvidia-smi": "trap '' TERM; echo it hangs; while :; do sleep 1; done",
        "compute-sanitizer": "echo it crashes; kill -SEGV $$",
        python3: "echo \"No module named 'torch'\"; exit 3",
      });
      const { status, out, table, lines } = run(path, "second");
      expect(status).toBe(1);
      const line = (name: string) => lines.find((each) => each.startsWith(name));
      expect(line("use plans")).toMatch(/ ok: $/);
      expect(line("card")).toMatch(/ STOPPED after 10 s: it hangs$/);
      expect(line("torch")).toMatch(/ LEFT OUT: No module named 'torch'$/);
      expect(line("beside")).toMatch(/ ok: /);
      expect(line("ncu")).toMatch(/ LEFT OUT: ncu is not there$/);
      expect(line("memcheck")).toMatch(/ KILLED by signal 11: it crashes$/);
      expect(line("racecheck")).toMatch(/ KILLED by signal 11: it crashes$/);
      expect(line("training")).toMatch(/ ok: /);
      expect(table).toMatch(/training seresnet14_cifar float16 batch 4 seresnet: .* images\/s/);
      expect(lines.at(-1)).toMatch(/^second: \d+ s of at most 360, not all went well$/);
      expect(readdirSync(out).length).toBeLessThanOrEqual(8);
      expect(readdirSync(out)).toContain("training-cuda-sim.json");
    },
  );

  const torch = pythonWith(["torch"], "the kit beside PyTorch");
  test.runIf(torch)("where there is PyTorch it is started to fill its caches, and measured beside us", patient, () => {
    const path = machine({ python3: `exec ${executableOf(torch as string)} "$@"` });
    const { status, table, lines, out } = run(path, "only", "warm,beside");
    expect(status, table).toBe(0);
    expect(lines.map((line) => line.split(/ {2,}/)[0]).slice(0, 8)).toEqual(
      expect.arrayContaining(["unpack", "torch", "device", "warm", "beside"]),
    );
    expect(table).toMatch(/^torch .* ok: PyTorch \d/m);
    expect(table).toMatch(/seresnet14_cifar float16 batch 2 torch compile: [\d.]+ images\/s/);
    expect(table).toMatch(/^ {2}torch compile: \{"torch":/m);
    const log = readFileSync(join(out, "log.txt"), "utf8");
    expect(log.match(/^bench: torch compile started in [\d.]+ s$/gm)).toHaveLength(2);
  });

  const python = pythonWith(["lzma"], "the kit where there is no xz");
  test.runIf(python)("where there is no xz Python unpacks it", patient, () => {
    const path = machine({ python3: `exec ${executableOf(python as string)} "$@"` });
    rmSync(join(path, "xz"));
    const { status, table } = run(path, "only", "smoke");
    expect(status, table).toBe(0);
    expect(table).toMatch(/^unpack .* ok: /m);
    expect(table).toMatch(/^smoke .* ok: smoke: /m);
    expect(table).toMatch(/^only: \d+ s of at most 600, all went well$/m);
  });

  test("a device that cannot be used ends the call at once, with the reason", () => {
    const env = readFileSync(join(kit, "kit.env"), "utf8");
    writeFileSync(join(kit, "kit.env"), env.replace("device='cuda-sim'", "device='cuda'"));
    const { status, table, lines } = run(machine(), "first");
    writeFileSync(join(kit, "kit.env"), env);
    expect(status).toBe(1);
    expect(table).toMatch(/^device .* FAILED with 1: The benchmark on cuda was not run: /m);
    expect(table).not.toMatch(/^(smoke|parity|speed)/m);
    expect(lines.at(-1)).toMatch(/^first: \d+ s of at most 300, not all went well$/);
  });

  test.each([[[]], [["third"]], [["only"]]])("refuses %j with its usage", (words) => {
    const { status, stderr, stdout } = run(machine(), ...words);
    expect(stderr).toBe("usage: sh gpu.sh OUT first|second|only STEP[,STEP]\n");
    expect(stdout).toBe("");
    expect(status).toBe(2);
  });

  test("refuses steps that are none", () => {
    const { status, stderr, stdout } = run(machine(), "only", "smoke,mirrors");
    expect(stderr).toMatch(/^gpu\.sh: expected steps of: smoke parity .* training, got mirrors\n$/);
    expect([status, stdout]).toEqual([2, ""]);
  });

  test("packing says what it lacks", () => {
    expect(pack().stderr).toBe("usage: node test/gpu_kit.mjs KIT [--sim] [--back FOLDER]\n");
    expect(pack(join(folder, "no kit"), "--back", folder).stderr).toMatch(
      /^gpu_kit: expected a kit in .*no kit: node test/,
    );
  });
});
