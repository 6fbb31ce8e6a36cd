import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  cpSync,
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
import { delimiter, join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";

/* What can go wrong around native/build.mjs and native/setup.mjs: each is one sentence with its remedy, and exit 1 or a warning. */

const root = join(__dirname, "..");
const isRoot = process.getuid?.() === 0;
const has = (command: string) => spawnSync(command, ["--version"]).status === 0;
const canBuild = process.platform === "linux" && has("c++") && has("cmake") && has("make");
const why = "LEFT OUT: Linux with a C++ compiler, make and CMake is needed";

let checkout: string;
let mounted: string | undefined;

beforeAll(() => {
  checkout = join(mkdtempSync(join(tmpdir(), "seresnet build é ")), "checkout");
  mkdirSync(checkout);
  for (const name of ["native", "CMakeLists.txt", "binding.gyp", "package.json", "tsconfig.build.json"])
    cpSync(join(root, name), join(checkout, name), { recursive: true });
  symlinkSync(join(root, "node_modules"), join(checkout, "node_modules"));
});
afterAll(() => {
  if (mounted) spawnSync("umount", [mounted]);
  rmSync(join(checkout, ".."), { recursive: true });
});

/** A folder for the PATH with these programs, each a shell script. */
function programs(scripts: Record<string, string>): string {
  const folder = mkdtempSync(join(tmpdir(), "seresnet-bin-"));
  chmodSync(folder, 0o755);
  for (const [name, body] of Object.entries(scripts)) {
    writeFileSync(join(folder, name), `#!/bin/sh\n${body}\n`);
    chmodSync(join(folder, name), 0o755);
  }
  return folder;
}

interface Circumstances {
  readonly env?: NodeJS.ProcessEnv;
  /** Goes before the PATH, or is the whole of it. */
  readonly path?: string;
  readonly alone?: boolean;
  readonly uid?: number;
}

function run(script: string, args: readonly string[], { env, path = "", alone = false, uid }: Circumstances = {}) {
  const { PATH = "", FORCE_COLOR: _, ...rest } = process.env;
  const { status, stderr } = spawnSync(process.execPath, [join(checkout, "native", script), ...args], {
    cwd: checkout,
    encoding: "utf8",
    uid,
    env: { ...rest, SERESNET_CUDA: "0", CXX: undefined, PATH: alone ? path : [path, PATH].join(delimiter), ...env },
  });
  const lines = stderr.trim().split("\n");
  return { status, stderr, lines, last: lines.at(-1) ?? "" };
}
const build = (args: readonly string[], circumstances?: Circumstances) => run("build.mjs", args, circumstances);

describe.skipIf(!canBuild)(`the build${canBuild ? "" : ` (${why})`}`, () => {
  test("says what would be built, in a folder whose name has spaces and letters beyond ASCII, with no home to write to", () => {
    const { status, last } = build(["--check"], { env: { HOME: "/proc/none" } });
    expect(last).toMatch(/^addon: .*cuda left out: SERESNET_CUDA=0 \(unset SERESNET_CUDA\)/);
    expect(status).toBe(/cpu \(oneDNN \d/.test(last) ? 0 : 1);
  });

  test.each([";", ":", '"', "%", "|"])("a path with %s, which make or CMake cannot take, is named", (sign) => {
    const odd = join(checkout, `../odd${sign}name`);
    mkdirSync(odd);
    for (const name of ["native", "package.json", "node_modules"]) symlinkSync(join(checkout, name), join(odd, name));
    const real = spawnSync(process.execPath, ["--preserve-symlinks-main", join(odd, "native/build.mjs"), "--check"], {
      encoding: "utf8",
    });
    expect(real.stderr).toMatch(
      /^addon: cannot be built: the path ".*" has a ".{1,2}", which build tools cannot take; .*Remedy: move it/,
    );
  });

  test("names a compiler that is too old", () => {
    const old = programs({
      "g++-9": `case "$*" in *-std=c++20*) echo "error: unrecognized command line option '-std=c++20'" >&2; exit 1;; esac; exec c++ "$@"`,
    });
    const { status, lines } = build([], { env: { CXX: join(old, "g++-9") } });
    expect(lines).toEqual([
      expect.stringMatching(
        /^addon: not built: GNU \S+ \(.*g\+\+-9\) does not compile C\+\+20; .*Remedy: install GCC 11 or/,
      ),
    ]);
    expect(status).toBe(1);
  });

  test("names a CMake that is too old, and one that is not there", () => {
    const path = programs({ cmake: "echo cmake version 3.13.4" });
    const { status, lines } = build([], { path });
    expect(lines).toEqual([
      expect.stringMatching(/^addon: not built: CMake 3\.13\.4 is too old: 3\.18 is needed; .*Remedy: install/),
    ]);
    expect(status).toBe(1);
    const gone = build([], { path: programs({ cmake: "exit 127" }) });
    expect(gone.lines).toEqual([expect.stringMatching(/not built: there is no CMake; .*Remedy: npm run setup$/)]);
  });

  test("goes on without a CUDA that does not work", () => {
    const path = programs({ nvcc: "echo nvcc fatal: unsupported GNU version >&2; exit 1" });
    const { last } = build(["--check"], { path, env: { SERESNET_CUDA: undefined } });
    expect(last).toMatch(/cuda left out: .*nvcc does not compile with this C\+\+ compiler \(/);
  });

  test("looks for oneDNN where SERESNET_ONEDNN says", () => {
    const folder = mkdtempSync(join(checkout, "../onednn-"));
    mkdirSync(join(folder, "include/oneapi/dnnl"), { recursive: true });
    mkdirSync(join(folder, "lib"));
    writeFileSync(join(folder, "include/oneapi/dnnl/dnnl.hpp"), "#error another oneDNN");
    writeFileSync(join(folder, "lib/libdnnl.so"), "");
    const { status, last } = build(["--check"], { env: { SERESNET_ONEDNN: folder } });
    expect(last).toMatch(
      /cpu left out: .*libdnnl\.so does not link, or is not built for OpenMP \(SERESNET_ONEDNN=FOLDER/,
    );
    expect(status).toBe(1);
  });

  test.skipIf(!isRoot)("a full disk is named as such, and a warning with --optional", () => {
    mounted = join(checkout, "build");
    mkdirSync(mounted, { recursive: true });
    rmSync(mounted, { recursive: true });
    mkdirSync(mounted);
    if (spawnSync("mount", ["-t", "tmpfs", "-o", "size=300k", "tmpfs", mounted]).status !== 0) {
      mounted = undefined;
      return console.warn("LEFT OUT a full disk: nothing can be mounted here");
    }
    for (const [args, code] of [
      [[], 1],
      [["--optional"], 0],
    ] as const) {
      const { status, last } = build(args);
      expect(last).toMatch(
        /^addon: not built: the disk of .* is full; .*Remedy: free 1 GB there, then: npm run build:native$/,
      );
      expect(status).toBe(code);
    }
    spawnSync("umount", [mounted]);
    mounted = undefined;
  });

  test.skipIf(!isRoot)("a folder that is not the user's is named as such", () => {
    mkdirSync(join(checkout, "build"), { recursive: true });
    chmodSync(join(checkout, ".."), 0o755);
    const { status, last } = build([], { uid: 65534, env: { HOME: "/nonexistent" } });
    expect(last).toMatch(/^addon: not built: .*cannot be written; .*Remedy: make it yours/);
    expect(status).toBe(1);
  });
});

describe.skipIf(!canBuild)("a build that compiles", () => {
  /** A compiler that compiles one of the addon's files and then none: what it writes into `told` is the process that hangs. */
  function hanging(told: string): string {
    const compile = `case "$*" in *" -c "*/native/*) mkdir '${told}' 2>/dev/null || { : > '${told}'/$$; exec sleep 600; };; esac`;
    return join(
      programs({
        "c++": `${compile}\nexec ${spawnSync("sh", ["-c", "command -v c++"]).stdout.toString().trim()} "$@"`,
      }),
      "c++",
    );
  }
  const lives = (pid: string) =>
    existsSync(`/proc/${pid}`) && !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));

  test.each(["SIGTERM", "SIGINT", "SIGHUP"] as const)("says so, and ends by %s with its compilers", async (signal) => {
    const told = join(mkdtempSync(join(checkout, "../told-")), "compilers");
    const env = { ...process.env, SERESNET_CUDA: "0", SERESNET_ONEDNN: "0", CXX: hanging(told) };
    const child = spawn(process.execPath, [join(checkout, "native/build.mjs")], { cwd: checkout, env });
    onTestFinished(() => {
      child.kill();
    });
    let stderr = "";
    child.stderr.setEncoding("utf8").on("data", (text) => {
      stderr += text;
    });
    const ended = once(child, "close");
    const compilers = () => (existsSync(told) ? readdirSync(told) : []);
    while (child.exitCode === null && (stderr === "" || compilers().length === 0)) await setTimeout(20);
    expect(stderr).toBe("addon: building what lists devices (about a minute)\n");
    child.kill(signal);
    expect(await ended, stderr).toEqual([null, signal]);
    expect(compilers().filter(lives)).toEqual([]);
  });
});

describe.skipIf(process.platform !== "linux")("setup", () => {
  const onlyNode = () => ({ node: `exec "${process.execPath}" "$@"` });

  test("says what is missing, and what to ask an administrator for, where it can install nothing", () => {
    const { status, last } = run("setup.mjs", [], { path: programs(onlyNode()), alone: true });
    expect(last).toMatch(
      /^warning: .*the addon cannot be built with the device cpu.*\(there is no apt-get here\)\. Remedy, as root: apt-get install g\+\+ make cmake libdnnl-dev/m,
    );
    expect(status).toBe(0);
    const apt = programs({ ...onlyNode(), "apt-get": "exit 0" });
    const asNobody = isRoot ? { uid: 65534 } : {};
    chmodSync(join(checkout, ".."), 0o755);
    const strict = run("setup.mjs", ["--strict"], {
      path: apt,
      alone: true,
      env: { HOME: "/nonexistent" },
      ...asNobody,
    });
    expect(strict.last).toMatch(/\(this user is not root and there is no sudo\)/);
    expect(strict.status).toBe(1);
  });

  test.skipIf(!isRoot)("repeats what apt-get says, and thinks of the proxy", () => {
    const words = [
      "W: Failed to fetch http://example.org/dists/x/InRelease  Could not connect to 127.0.0.1:9 (127.0.0.1). - connect (111: Connection refused)",
      "E: Unable to locate package g++",
    ];
    const path = programs({
      ...onlyNode(),
      env: 'shift; exec "$@"',
      "apt-get": `case "$1" in update) echo "${words[0]}" >&2;; install) echo "${words[1]}" >&2; exit 100;; esac`,
    });
    const { last } = run("setup.mjs", [], { path, alone: true, env: { http_proxy: "http://127.0.0.1:9" } });
    expect(last).toMatch(
      /apt-get says: Failed to fetch .* Could not connect to 127\.0\.0\.1:9.* \(is the proxy http_proxy=http:\/\/127\.0\.0\.1:9 right\?\)/,
    );
  });
});

test("a checkout without npm's packages is told to install them", () => {
  const bare = mkdtempSync(join(tmpdir(), "seresnet-"));
  cpSync(join(root, "native/setup.mjs"), join(bare, "native/setup.mjs"), { recursive: true });
  const { status, stderr } = spawnSync(process.execPath, [join(bare, "native/setup.mjs")], { encoding: "utf8" });
  expect({ status, stderr }).toEqual({ status: 1, stderr: "setup: the packages of npm are missing; run: npm ci\n" });
  expect(existsSync(join(bare, "build"))).toBe(false);
  rmSync(bare, { recursive: true });
});
