import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import ts from "typescript";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

/* The programs of lib/docs/examples do what their page says. */

const execute = promisify(execFile);
const home = join(__dirname, "../lib/docs/examples");
const examples = readdirSync(home).filter((name) => name.endsWith(".mjs"));

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-examples-"));
});

afterAll(() => rm(folder, { recursive: true, force: true }));

/** The lines that a program prints. It runs in a folder of its own: where it is started must not matter. */
async function linesOf(name: string, ...args: string[]): Promise<string[]> {
  const { stdout } = await execute(process.execPath, [join(home, name), ...args], {
    cwd: folder,
    env: { ...process.env, TMPDIR: folder },
  });
  return stdout.trimEnd().split("\n");
}

describe("examples", () => {
  test("are short, on their page, and have no type errors", () => {
    const page = readFileSync(join(home, "README.md"), "utf8");
    for (const name of examples) {
      expect(page).toContain(`](${name})`);
      expect([name, readFileSync(join(home, name), "utf8").split("\n").length < 50]).toEqual([name, true]);
    }
    expect(examples.length).toBeGreaterThanOrEqual(6);
    const program = ts.createProgram(
      examples.map((name) => join(home, name)),
      {
        module: ts.ModuleKind.Node16,
        moduleResolution: ts.ModuleResolutionKind.Node16,
        target: ts.ScriptTarget.ES2022,
        lib: ["lib.es2023.d.ts", "lib.esnext.disposable.d.ts"],
        types: ["node"],
        strict: true,
        allowJs: true,
        checkJs: true,
        noEmit: true,
        skipLibCheck: true,
      },
    );
    const messages = ts.getPreEmitDiagnostics(program).map(({ file, start = 0, messageText }) => {
      const line = file ? file.getLineAndCharacterOfPosition(start).line + 1 : 0;
      return `${basename(file?.fileName ?? "")}:${line} ${ts.flattenDiagnosticMessageText(messageText, " ")}`;
    });
    expect(messages).toEqual([]);
  });

  test("classify-folder names what is on every image", async () => {
    const lines = await linesOf("classify-folder.mjs");
    expect(lines).toHaveLength(25);
    expect(lines).toContain(`${join("shoes", "boot1.png")}: Ankle boot 96 %`);
    expect(lines.filter((line) => line.includes(": Bag "))).toHaveLength(8);
    expect(lines.at(-1)).toMatch(/^24 of 24 images classified on \w+$/);
  });

  test("fine-tune learns three classes and writes a checkpoint that knows them", async () => {
    const lines = await linesOf("fine-tune.mjs");
    expect(lines[0]).toBe("fc.weight begins anew, for 3 classes in place of 10");
    const losses = lines.map((line) => /^epoch \d of 4: loss ([\d.]+)/.exec(line)?.[1]).filter((loss) => loss);
    expect(losses).toHaveLength(4);
    expect(Number(losses[3])).toBeLessThan(Number(losses[0]) / 2);
    expect(lines.at(-1)).toBe("boot2.png: shoes");
  });

  test("own-block has PyTorch's names and learns", async () => {
    const [names, parameters, ...steps] = await linesOf("own-block.mjs");
    expect(names).toBe("stem.weight stem.bias blocks.0.depthwise.weight");
    expect(parameters).toBe("1386 parameters");
    expect(steps.map((line) => line.replace(/[\d.]+$/, "").trim())).toEqual(["step 10: loss", "step 20: loss"]);
    expect(Number(steps[1].split(" ").at(-1))).toBeLessThan(0.1);
  });

  test("nearest-neighbours finds sneakers for a sneaker", async () => {
    const [first, ...neighbours] = await linesOf("nearest-neighbours.mjs");
    expect(first).toBe(`${join("shoes", "sneaker1.png")}, 64 features`);
    expect(neighbours.map((line) => line.split(" ").at(-1)).slice(0, 2)).toEqual([
      join("shoes", "sneaker2.png"),
      join("shoes", "sneaker3.png"),
    ]);
  });

  test("export-onnx writes the file it speaks of", async () => {
    const file = join(folder, "clothes.onnx");
    const [line] = await linesOf("export-onnx.mjs", file);
    const bytes = await readFile(file);
    const size = Math.round(bytes.length / 1024);
    expect(line).toBe(`${file}: ${size} KiB, input uint8 [N, 1, 28, 28], 10 classes`);
    expect(bytes.includes("Conv")).toBe(true);
  });

  test("server answers uploads, refuses what is no image or too large, and ends when it is told to", async () => {
    const child = spawn(process.execPath, [join(home, "server.mjs"), "0"], { stdio: ["ignore", "pipe", "inherit"] });
    const ended = once(child, "exit");
    try {
      const [said] = await once(child.stdout, "data");
      const url = `http://localhost:${/port (\d+)/.exec(String(said))?.[1]}/classify`;
      const post = async (body: Uint8Array<ArrayBuffer>) => {
        const response = await fetch(url, { method: "POST", body });
        return {
          status: response.status,
          answer: (await response.json()) as { label?: string }[] & { error?: string },
        };
      };
      const boot = new Uint8Array(await readFile(join(home, "clothes/shoes/boot1.png")));
      const answers = await Promise.all([post(boot), post(boot), post(new Uint8Array(64)), post(new Uint8Array(0))]);
      expect(answers.map(({ status }) => status)).toEqual([200, 200, 422, 422]);
      expect(answers[0].answer.map(({ label }) => label)).toContain("Ankle boot");
      expect(answers[2].answer.error).toMatch(/expected .* got /);
      expect((await fetch(url)).status).toBe(404);
      // the server may hang up before all was sent, which the client is free to call a failure
      const large = await post(new Uint8Array(11 * 2 ** 20)).catch(() => ({ status: 413 }));
      expect(large.status).toBe(413);
      child.kill("SIGTERM");
      expect(await ended).toEqual([0, null]);
    } finally {
      child.kill("SIGKILL");
    }
  });
});
