import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const execute = promisify(execFile);
const root = join(__dirname, "..");
const hasAddon = existsSync(join(root, "build/Release/seresnet.node"));

let folder: string;
let project: string;
let tarballs: string[];

/** What a program of the project prints, with nothing on the PATH but Node: no compiler, no CMake. */
async function run(args: readonly string[], node = process.execPath): Promise<string> {
  const { FORCE_COLOR: _, CXX: __, SERESNET_ADDON: ___, ...inherited } = process.env;
  const env = { ...inherited, PATH: join(folder, "bin") };
  return (await execute(node, args, { cwd: project, env })).stdout;
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-pack-test-"));
  project = join(folder, "project");
  await execute(process.execPath, [join(root, "native/pack.mjs"), join(folder, "out")]);
  tarballs = (await readdir(join(folder, "out"))).sort();
  await mkdir(join(folder, "bin"));
  await symlink(process.execPath, join(folder, "bin/node"));
  const modules = join(project, "node_modules");
  for (const tarball of tarballs) {
    const platform = /^seresnet-(linux-x64(?:-cuda13)?)-\d/.exec(tarball)?.[1];
    const target = join(modules, platform ? `@seresnet/${platform}` : "seresnet");
    await mkdir(target, { recursive: true });
    await execute("tar", ["-xzf", join(folder, "out", tarball), "-C", target, "--strip-components=1"]);
  }
  // its dependencies are this checkout's: the test needs no network
  const manifest = JSON.parse(await readFile(join(modules, "seresnet/package.json"), "utf8")) as {
    dependencies: Record<string, string>;
  };
  for (const name of [...Object.keys(manifest.dependencies), "@types/node"]) {
    await mkdir(join(modules, name, ".."), { recursive: true });
    await symlink(join(root, "node_modules", name), join(modules, name));
  }
  await writeFile(join(project, "package.json"), '{ "name": "project", "private": true }');
  if (!hasAddon) console.warn("pack.test: no addon was built here, so the platform package is left out");
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const body = `
const x = s.tensor([1, 2]).add(1).sum();
s.ImageClassifier.load().then(async (c) => {
  console.log(JSON.stringify([await x.item(), c.classes.length, c.device.name, (await c.classify(s.tensor(new Float32Array(784), [1, 1, 28, 28]))).length]));
  await c.dispose();
});`;
const wanted = () => `[5,10,"${hasAddon ? "cpu" : "reference"}",5]\n`;

describe("the tarballs", () => {
  it("are small, run nothing when installed, and name the platform packages", async () => {
    const main = tarballs.find((name) => /^seresnet-\d/.test(name)) as string;
    const { size } = await stat(join(folder, "out", main));
    const weights = await stat(join(root, "models/weights/seresnet14_cifar_fashion.safetensors"));
    expect(size - weights.size).toBeLessThan(1e6);
    const manifest = JSON.parse(await readFile(join(project, "node_modules/seresnet/package.json"), "utf8"));
    expect(manifest).toMatchObject({
      optionalDependencies: { "@seresnet/linux-x64": manifest.version, "@seresnet/linux-x64-cuda13": manifest.version },
    });
    expect([manifest.scripts, manifest.devDependencies, manifest.gypfile]).toEqual([undefined, undefined, false]);
    expect(existsSync(join(project, "node_modules/seresnet/binding.gyp"))).toBe(false);
    expect(await readdir(join(project, "node_modules/seresnet/models/labels"))).toContain("LICENSE");
  });

  it.skipIf(!hasAddon)("hold the addon, its libraries beside it, and their licences", async () => {
    const [name] = await readdir(join(project, "node_modules/@seresnet"));
    const files = await readdir(join(project, "node_modules/@seresnet", name));
    expect(files).toEqual(expect.arrayContaining(["LICENSE", "LICENSE.libdnnl", "LICENSE.libgomp1", "seresnet.node"]));
    const { stdout } = await execute("ldd", [join(project, "node_modules/@seresnet", name, "seresnet.node")]);
    expect(stdout).toMatch(/libdnnl\.so\.\d => \S*\/node_modules\/@seresnet\//);
    expect(stdout).toMatch(/libgomp\.so\.1 => \S*\/node_modules\/@seresnet\//);
  });
});

describe("installed into an empty project without a compiler", () => {
  it("works from ESM, CommonJS and a worker", async () => {
    expect(await run(["-e", `const s = require("seresnet");${body}`])).toBe(wanted());
    expect(await run(["--input-type=module", "-e", `import * as s from "seresnet";${body}`])).toBe(wanted());
    const worker = `const s = require("seresnet");${body}`;
    expect(await run(["-e", `new (require("worker_threads").Worker)(${JSON.stringify(worker)}, { eval: true })`])).toBe(
      wanted(),
    );
  });

  it.each(["node16", "bundler"])("type-checks with moduleResolution %s", async (resolution) => {
    await writeFile(
      join(project, "use.mts"),
      `import { createModel, ImageClassifier, type Tensor, tensor } from "seresnet";
import { SEBlock } from "seresnet/models";
export const block: SEBlock = new SEBlock(3, 16, 32);
export const y: Tensor = createModel("seresnet50").forward(tensor([0], [1, 1, 1, 1]));
export const labels: Promise<string[]> = ImageClassifier.load().then(async (c) => (await c.classify("a.png")).map((p) => p.label));
// @ts-expect-error: the types are real
export const wrong: number = createModel("seresnet50");
`,
    );
    const mode = resolution === "node16" ? "node16" : "esnext";
    const options = [
      "--strict",
      "--noEmit",
      "--target",
      "es2022",
      "--lib",
      "es2023,esnext.disposable",
      "--types",
      "node",
    ];
    const tsc = join(root, "node_modules/typescript/bin/tsc");
    await run([tsc, "use.mts", ...options, "--module", mode, "--moduleResolution", resolution]);
  });

  it("says which addon it took and why", async () => {
    const program = join(project, "node_modules/seresnet/dist/lib/cli/main.js");
    const { addon } = JSON.parse(await run([program, "inspect", "--json"]));
    if (hasAddon) expect(addon).toMatchObject({ loaded: true, origin: expect.stringContaining("platform package") });
    await rm(join(project, "node_modules/@seresnet"), { recursive: true, force: true });
    const { addon: none } = JSON.parse(await run([program, "inspect", "--json"]));
    expect(none).toMatchObject({
      loaded: false,
      reason: "the native addon is not built and @seresnet/linux-x64 is not installed",
      fix: "npx seresnet build",
    });
    await expect(run([program, "build"])).rejects.toThrow(/no C\+\+ compiler/);
  });
});
