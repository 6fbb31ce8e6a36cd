import { execFile } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import * as seresnet from "seresnet";
import { compile, createModel, listDevices, loadWeights, saveSafetensors, tensor } from "seresnet";
import sharp from "sharp";
import ts from "typescript";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { npzFile } from "./support/npz_writer.js";
import { noise } from "./support/ops.js";

/*
 * Every ts block of the README and the guides is a whole program: it is compiled and run. A text block right below one is what
 * it prints. Every `npx seresnet` line of an sh block is run too.
 */

const root = join(__dirname, "..");
const guides = readdirSync(join(root, "lib/docs"), { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".md"))
  .map((name) => join("lib/docs", name));
const files = ["README.md", ...guides];
const dataset = "/usr/share/datasets/fashion-mnist";

interface Block {
  readonly file: string;
  readonly line: number;
  readonly language: string;
  readonly text: string;
  /** The text block that follows with nothing but an empty line between. */
  readonly output?: string;
}

function blocksOf(file: string): Block[] {
  const lines = readFileSync(join(root, file), "utf8").split("\n");
  const blocks: Block[] = [];
  for (let i = 0; i < lines.length; i++) {
    const [, language] = /^```(\w+)$/.exec(lines[i]) ?? [];
    if (!language) continue;
    const end = lines.indexOf("```", i + 1);
    const output = lines[end + 2] === "```text" ? lines.slice(end + 3, lines.indexOf("```", end + 3)) : undefined;
    blocks.push({ file, line: i + 1, language, text: lines.slice(i + 1, end).join("\n"), output: output?.join("\n") });
    i = end;
  }
  return blocks;
}

const blocks = files.flatMap(blocksOf);
const programs = blocks.filter(({ language }) => language === "ts");
const commands = blocks
  .filter(({ language }) => language === "sh")
  .flatMap(({ file, text }) => text.split("\n").map((line) => ({ file, command: line.replace(/\s+#.*$/, "") })))
  .filter(({ command }) => command.startsWith("npx seresnet "));

let folder: string;
const sourceOf = ({ file, line }: Block) => join(folder, `${file.replace(/\W/g, "_")}_${line}.mts`);

/** A cache of the hub as its own tools lay it out, with the model that the pages take from there. */
async function fillHubCache(home: string): Promise<void> {
  const model = join(home, "hub/models--timm--seresnet50.a1_in1k");
  const commit = "0123456789abcdef0123456789abcdef01234567";
  await mkdir(join(model, "refs"), { recursive: true });
  await mkdir(join(model, "snapshots", commit), { recursive: true });
  await writeFile(join(model, "refs/main"), commit);
  await copyFile(join(folder, "seresnet50.safetensors"), join(model, "snapshots", commit, "model.safetensors"));
  await writeFile(join(model, "snapshots", commit, "config.json"), JSON.stringify({ architecture: "seresnet50" }));
}

/** A golden file of the weights the pages use, as their Python program would write it; of a small image. */
async function writeGolden(weights: string): Promise<void> {
  const model = createModel("seresnet50").eval();
  model.loadStateDict(await loadWeights(weights));
  const input = { data: noise(3 * 32 * 32), shape: [1, 3, 32, 32] };
  await using compiled = await compile(model, { device: "reference" });
  const logits = await compiled.run(tensor(input.data, input.shape));
  const golden = { input, logits: { data: (await logits.data()) as Float32Array, shape: logits.shape } };
  await writeFile(join(folder, "golden.npz"), npzFile(golden));
}

/** Runs node in the folder that has what the programs read, away from the network. */
function node(args: readonly string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const env = { ...process.env, HF_HOME: join(folder, "hub-home"), HF_HUB_OFFLINE: "1" };
  return new Promise((resolve) => {
    const child = execFile(process.execPath, args, { cwd: folder, env }, (_, stdout, stderr) =>
      resolve({ code: child.exitCode ?? -1, stdout, stderr }),
    );
  });
}

beforeAll(async () => {
  await mkdir(join(root, "build"), { recursive: true });
  folder = await mkdtemp(join(root, "build/docs-")); // inside the package, so that its name leads to it
  const images = join(root, "test/fixtures/images");
  await sharp(join(images, "chelsea.png")).jpeg().toFile(join(folder, "cat.jpg"));
  await copyFile(join(images, "chelsea.png"), join(folder, "shoe.png"));
  await copyFile(join(root, "lib/docs/examples/clothes/shoes/boot1.png"), join(folder, "boot.png"));
  await copyFile(join(root, "lib/docs/examples/clothes/bags/bag1.png"), join(folder, "bag.png"));
  for (const [name, color] of Object.entries({ cat: "#c63", dog: "#36c" })) {
    const photos = join(folder, "photos", name);
    await mkdir(photos, { recursive: true });
    const image = sharp({ create: { width: 40, height: 32, channels: 3, background: color } });
    for (let i = 0; i < 6; i++)
      await image
        .clone()
        .png()
        .toFile(join(photos, `${i}.png`));
  }
  await saveSafetensors(join(folder, "seresnet50.safetensors"), createModel("seresnet50").stateDict());
  await fillHubCache(join(folder, "hub-home"));
  await writeGolden(join(folder, "seresnet50.safetensors"));
  await writeFile(join(folder, "imagenet.txt"), Array.from({ length: 1000 }, (_, i) => `class ${i}`).join("\n"));
  for (const program of programs) await writeFile(sourceOf(program), program.text);
});

afterAll(() => rm(folder, { recursive: true, force: true }));

describe("guides", () => {
  test("every program compiles, strictly", () => {
    const program = ts.createProgram(programs.map(sourceOf), {
      module: ts.ModuleKind.Node16,
      moduleResolution: ts.ModuleResolutionKind.Node16,
      target: ts.ScriptTarget.ESNext, // nothing is compiled away: the programs run on the Node that `engines` names
      lib: ["lib.es2023.d.ts", "lib.esnext.disposable.d.ts"],
      types: ["node"],
      strict: true,
      noImplicitOverride: false,
    });
    const diagnostics = [...ts.getPreEmitDiagnostics(program), ...program.emit().diagnostics];
    const messages = diagnostics.map(({ file, start = 0, messageText }) => {
      const line = file ? file.getLineAndCharacterOfPosition(start).line + 1 : 0;
      return `${basename(file?.fileName ?? "")}:${line} ${ts.flattenDiagnosticMessageText(messageText, " ")}`;
    });
    expect(messages).toEqual([]);
    expect(programs.length).toBeGreaterThan(15);
  });

  for (const program of programs)
    test(`${program.file}:${program.line} runs`, async () => {
      const { code, stdout, stderr } = await node([sourceOf(program).replace(/\.mts$/, ".mjs")]);
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      if (program.output !== undefined) expect(stdout.trimEnd()).toBe(program.output);
    });

  for (const { file, command } of commands)
    test(`${file}: ${command}`, async ({ skip }) => {
      const args = command.split(" ").slice(2);
      if (args.includes(dataset)) {
        if (!existsSync(dataset)) skip(`no ${dataset} on this machine (npm run setup)`);
        args.push("--limit", "64");
      }
      if (args.includes("reference,cpu") && !listDevices().some(({ name, usable }) => name === "cpu" && usable))
        skip("the device cpu does not work on this machine");
      const { code, stderr } = await node([join(root, "dist/lib/cli/main.js"), ...args]);
      expect(code, stderr).toBe(0); // stderr has the progress
    });

  test("the golden file's Python program is the one that `verify --help` prints", async () => {
    const [{ text }] = blocks.filter(({ language }) => language === "python");
    const { stdout } = await node([join(root, "dist/lib/cli/main.js"), "verify", "--help"]);
    expect(stdout).toContain(text.replace(/^/gm, "  "));
    expect(text.split("\n").length).toBeLessThanOrEqual(10);
  });

  test("the README shows what a program prints, and marks the two commands of a checkout for CI", () => {
    expect(programs.filter(({ file, output }) => file === "README.md" && output).length).toBeGreaterThan(0);
    const readme = readFileSync(join(root, "README.md"), "utf8");
    for (const name of ["setup", "test"])
      expect(readme.match(new RegExp(`^<!-- ci: ${name} -->\n\`\`\`sh\n.+\n\`\`\`$`, "gm"))).toHaveLength(1);
  });

  test("the page for those who come from PyTorch names what there is, and what there is not", () => {
    const page = readFileSync(join(root, "lib/docs/from-pytorch.md"), "utf8");
    const isThere = (name: string) => {
      const [first, ...rest] = name.split(".");
      let value: unknown = first === "Tensor" ? tensor([1]) : Object(seresnet)[first];
      for (const part of rest) {
        const home = Object(typeof value === "function" ? value.prototype : value);
        if (!(part in home)) return false;
        if (part !== "grad") value = home[part];
      }
      return value !== undefined;
    };
    const namesIn = (text: string) => [...text.matchAll(/`([A-Za-z][\w.]*)(?:\([^`]*)?`/g)].map(([, name]) => name);
    const rows = page.split("\n").filter((line) => line.startsWith("| ") && !line.startsWith("| PyTorch"));
    const there = rows.flatMap((row) => namesIn(row.split(" | ").slice(1).join(" ")));
    expect(there.filter((name) => !isThere(name))).toEqual([]);
    expect(there.length).toBeGreaterThan(60);
    const absent = namesIn(page.slice(page.indexOf("## What is not there")));
    expect(absent.filter(isThere)).toEqual([]);
    expect(absent.length).toBeGreaterThan(20);
  });

  test("every guide is linked from the README, every link leads to a file, and every error code has its row", () => {
    const readme = readFileSync(join(root, "README.md"), "utf8");
    for (const guide of guides) expect(readme).toContain(`](${guide})`);
    for (const file of files) {
      const links = [...readFileSync(join(root, file), "utf8").matchAll(/\]\(([^)#]+)/g)].map(([, link]) => link);
      const local = links.filter((link) => !/^https?:/.test(link)).map((link) => join(root, dirname(file), link));
      expect(local.filter((path) => !existsSync(path))).toEqual([]);
    }
    const codes = [...readFileSync(join(root, "lib/errors.ts"), "utf8").matchAll(/"(ERR_[A-Z]+)"/g)];
    const table = readFileSync(join(root, "lib/docs/troubleshooting.md"), "utf8");
    const template = readFileSync(join(root, ".github/ISSUE_TEMPLATE/bug.yml"), "utf8");
    for (const [, code] of codes) {
      expect(table).toContain(`\`${code}\``);
      expect(template).toContain(`| \`${code}\``);
      expect(template).toContain(`- ${code}\n`);
    }
    expect(codes.length).toBeGreaterThan(5);
  });
});
