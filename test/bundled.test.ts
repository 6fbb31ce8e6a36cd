import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const root = resolve(".");
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-bundled-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** What a bundler makes of dist/lib/paths.js: its text in a file of another folder. */
async function bundle(name: string): Promise<string> {
  const target = join(folder, name, "out");
  await mkdir(target, { recursive: true });
  const text = await readFile(join(root, "dist/lib/paths.js"), "utf8");
  const file = join(target, "app.cjs");
  const errors = JSON.stringify(join(root, "dist/lib/errors.js"));
  const use = `console.log(exports.packageFile("dist", "lib", "data", "worker.js"))`;
  await writeFile(file, `${text.replace('"./errors.js"', errors)}\n${use}\n`);
  return file;
}

const run = (file: string) =>
  execFileSync(process.execPath, [file], { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });

describe("in other people's programs", () => {
  test("a bundle finds the files of the package that is installed beside it", async () => {
    const file = await bundle("installed");
    await mkdir(join(folder, "installed", "node_modules"));
    await symlink(root, join(folder, "installed", "node_modules", "seresnet"));
    expect(run(file).trim()).toBe(join(root, "dist/lib/data/worker.js"));
  });

  test("and says what to tell the bundler where it is not installed", async () => {
    const file = await bundle("alone");
    expect(() => run(file)).toThrow(/a bundler should leave it outside: --external:seresnet/);
  });

  test("nothing but the report of a training needs import(), which Jest's CommonJS has not", async () => {
    const files = (await readdir(join(root, "dist/lib"), { recursive: true })).filter((name) => name.endsWith(".js"));
    const texts = await Promise.all(
      files.map(async (name) => [name, await readFile(join(root, "dist/lib", name), "utf8")]),
    );
    const code = texts.filter(([, text]) => /\bimport\(/.test(text.replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, "")));
    expect(code.map(([name]) => name)).toEqual([join("train", "drawing.js")]);
  });
});
