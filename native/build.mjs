// Builds the native addon, build/Release/seresnet.node, and ends with one line: what was built, what was left out and why.
//   node native/build.mjs             with CMake, through cmake-js; exit 1 with one sentence when it cannot
//   node native/build.mjs --gyp       without CMake, through node-gyp: lists and diagnoses devices, computes nothing
//   node native/build.mjs --sim       the addon that some tests need, build/sim/seresnet.node: the CUDA executor with its
//                                     kernels run on the host
//   node native/build.mjs --cpu       without CUDA, build/cpu/seresnet.node
//   node native/build.mjs --release   the addon of the package @seresnet/linux-x64, build/release/seresnet.node: without CUDA, with
//                                     a small oneDNN inside, which is built first (native/onednn)
//   node native/build.mjs --ready     builds nothing: exit 1 with one sentence where nothing could be written
//   node native/build.mjs --check     builds nothing: says what would be built, as CMake finds it; exit 1 without the device cpu
//   node native/build.mjs --optional  as the first; the second without CMake, no CUDA where nvcc fails; a warning and exit 0
import { spawnSync } from "node:child_process";
import {
  accessSync,
  constants,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { runGroup } from "./group.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const require = createRequire(import.meta.url);
const build = join(root, "build");
const addon = join(build, "Release", "seresnet.node");
const log = join(build, "native.log");
const cmakeFolder = join(build, "cmake");
const onednn = join(build, "onednn");
const oldestCMake = [3, 18];

const isCheckout = existsSync(join(root, "tsconfig.build.json"));
/** The commands that mend things: those of a checkout, or of a project that has the package installed. */
const setup = isCheckout
  ? "npm run setup"
  : "apt-get install g++ make cmake libdnnl-dev (or what your system calls them)";
const rebuild = isCheckout ? "npm run build:native" : "npx seresnet build";

let pc;
try {
  pc = require("picocolors");
} catch {
  console.error("addon: not built: the packages of npm are missing. Remedy: npm ci");
  process.exit(1);
}
const isTerminal = process.stderr.isTTY && !process.env.NO_COLOR;
const colours = pc.createColors(Boolean(isTerminal || process.env.FORCE_COLOR));

/** Why nothing was built and what mends that; `words` are the tools' own. */
class BuildError extends Error {
  constructor(sentence, remedy, words = "") {
    super(sentence);
    this.remedy = remedy;
    this.words = words;
  }
}

/** What `command --version` prints, or undefined where it does not run. */
function versionOf(command) {
  const { status, stdout } = spawnSync(command, ["--version"], { encoding: "utf8" });
  return status === 0 ? stdout : undefined;
}

/** Runs a program and returns what it printed; `hear` as runGroup has it. */
async function run(name, step, command, args, env = {}, hear) {
  const { status, output } = await runGroup(command, args, { cwd: root, env: { ...process.env, ...env } }, hear);
  if (status === 0) return output;
  writeLog(output);
  throw failure(name, step, output);
}

/** What says, once something is compiled, that it takes its time. */
function announcing(what, time) {
  let said = false;
  return (output) => {
    if (said || !/Building C\w+ object|\bCXX\(target\)/.test(output)) return;
    said = true;
    console.error(`addon: building ${what} (${time})`);
  };
}

/** Runs the command of a development dependency and returns what it printed. */
function runTool(name, entry, args, env, hear) {
  let script;
  try {
    script = require.resolve(`${name}/${entry}`);
  } catch {
    const install = "npm install --no-save cmake-js@8 node-addon-api@8 node-api-headers@1";
    throw new BuildError(`${name} is not installed`, isCheckout ? "npm ci" : install);
  }
  return run(name, args[0], process.execPath, [script, ...args], env, hear);
}

function makeFolder(folder) {
  try {
    mkdirSync(folder, { recursive: true });
  } catch ({ message }) {
    throw failure("mkdir", folder, message);
  }
}

function writeLog(output) {
  try {
    mkdirSync(build, { recursive: true });
    writeFileSync(log, output);
  } catch {
    // a full disk or a folder that is not ours: the error that is about to be told says so
  }
}

/** The error of a tool that failed, by what it printed. */
function failure(name, step, output) {
  if (/No space left on device|\bENOSPC\b/.test(output) || isFull())
    return new BuildError(`the disk of ${root} is full`, `free 1 GB there, then: ${rebuild}`);
  if (/\b(EACCES|EROFS|EPERM)\b|Read-only file system|Permission denied/.test(output) || !isWritable())
    return new BuildError(`${root} cannot be written`, `make it yours (chown), then: ${rebuild}`);
  const said = /seresnet: (.*?) \| (.*?)(?:\n\n|$)/s.exec(output);
  const [, why, remedy] = said?.map((words) => words.replace(/\s+/g, " ").trim()) ?? []; // CMake wraps lines
  if (step === "configure" && why) return new BuildError(why, remedy);
  if (step === "configure" && /CXX20|C\+\+20/.test(output))
    return new BuildError(
      "the C++ compiler is too old for C++20",
      "install GCC 11 or Clang 14 or later, or name one in CXX",
    );
  if (/\bKilled\b.*signal|terminated program cc1plus|virtual memory exhausted/.test(output))
    return new BuildError(
      "the compiler ran out of memory",
      `close other programs, then: CMAKE_BUILD_PARALLEL_LEVEL=1 ${rebuild}`,
    );
  const words = step === "configure" ? causes(output, 2) : firstErrors(output, 20);
  return new BuildError(`${name} ${step} failed (all it said: ${relative(process.cwd(), log)})`, setup, words);
}

/** Tools that can write nothing more fail in ways of their own. */
function isFull(least = 1e6) {
  const place = existsSync(build) ? build : root;
  const { bavail, bsize } = statfsSync(place);
  return bavail * bsize < least;
}

function isWritable() {
  try {
    accessSync(existsSync(build) ? build : root, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** A tool's own words, from its first error on. */
function firstErrors(output, most) {
  const lines = [...new Set(output.split("\n"))].filter((line) => line.trim() !== "");
  const first = lines.findIndex((line) => /\berror\b|Permission denied|Read-only/i.test(line));
  return (first < 0 ? lines.slice(-most) : lines.slice(first, first + most)).join("\n");
}

/** What made CMake give up, less its own frame around it. */
function causes(output, most) {
  const lines = [...new Set(output.split("\n").map((line) => line.trim()))];
  const told = lines.filter((line) => /\berror:|cannot |fatal|internal compiler|not found/i.test(line));
  return told.length > 0 ? told.slice(0, most).join("\n") : firstErrors(output, most);
}

function checkTools() {
  const { CXX } = process.env;
  const compilers = CXX ? [CXX, CXX.split(" ")[0]] : ["c++", "g++", "clang++"];
  if (!compilers.some(versionOf)) {
    if (CXX) throw new BuildError(`there is no C++ compiler at CXX=${CXX}`, "unset CXX, or name a compiler in it");
    throw new BuildError("there is no C++ compiler", setup);
  }
  if (!versionOf("make") && !versionOf("ninja")) throw new BuildError("there is no make", setup);
}

function checkCMake() {
  const version = /version (\d+)\.(\d+)\S*/.exec(versionOf("cmake") ?? "");
  if (!version) throw new BuildError("there is no CMake", setup);
  const [major, minor] = version.slice(1).map(Number);
  const [leastMajor, leastMinor] = oldestCMake;
  if (major > leastMajor || (major === leastMajor && minor >= leastMinor)) return;
  const remedy = "install a newer one (pip install cmake has it), first on the PATH";
  throw new BuildError(
    `${version[0].replace("version", "CMake")} is too old: ${oldestCMake.join(".")} is needed`,
    remedy,
  );
}

/**
 * Configures in a second or two, each time: oneDNN, CUDA or cuDNN may have been installed since. Returns what will be
 * built and what will not, each with the reason and the remedy.
 */
async function configure(folder, options, env) {
  const odd = /["\\;%|:\n]/.exec(root);
  if (odd) {
    const sentence = `the path ${JSON.stringify(root)} has a ${JSON.stringify(odd[0])}, which build tools cannot take`;
    throw new BuildError(sentence, "move it to a folder without, then build again");
  }
  checkTools();
  checkCMake();
  const { CXX = "default" } = process.env;
  const definitions = { SERESNET_CXX: CXX, SERESNET_SETUP: setup, SERESNET_REBUILD: rebuild, ...options };
  const flags = Object.entries(definitions).map(([name, value]) => `--CD${name}=${value}`);
  const step = () => runTool("cmake-js", "bin/cmake-js", ["configure", "--out", folder, ...flags], env);
  const cache = join(folder, "CMakeCache.txt");
  // CMake would keep the compiler of its first run
  if (existsSync(cache) && /^SERESNET_CXX:\w+=(.*)$/m.exec(readFileSync(cache, "utf8"))?.[1] !== CXX)
    rmSync(folder, { recursive: true });
  const isNew = !existsSync(cache);
  makeFolder(folder);
  let output;
  try {
    output = await step();
  } catch (error) {
    if (isNew) throw error;
    rmSync(folder, { recursive: true }); // left by another generator, compiler or folder
    output = await step();
  }
  const lines = [...output.matchAll(/^-- seresnet: (with|without) (.*)$/gm)].map(([, kind, rest]) => [
    kind,
    ...rest.split(" | "),
  ]);
  return {
    parts: lines.filter(([kind]) => kind === "with").map(([, part, what]) => ({ part, what })),
    left: lines.filter(([kind]) => kind === "without").map(([, part, why, remedy]) => ({ part, why, remedy })),
  };
}

const jobs = process.env.CMAKE_BUILD_PARALLEL_LEVEL ? [] : ["--parallel", String(availableParallelism())];

/** The static oneDNN of the packages, once. Its kernels are generated at run time: what generates them may be small. */
async function buildOnednn() {
  const archive = readdirSync(join(root, "native", "onednn")).find((name) => name.endsWith(".tar.xz")) ?? "";
  const made = join(onednn, archive);
  if (existsSync(made)) return;
  checkTools();
  checkCMake();
  console.error(`addon: building ${archive.replace(".tar.xz", "")} (minutes, once)`);
  const source = join(build, "onednn-source");
  rmSync(source, { recursive: true, force: true });
  makeFolder(source);
  const cmake = (...args) => run("cmake", args[0], "cmake", args);
  // by paths from here: CMake opens nothing beyond ASCII where the locale is POSIX's, and does not say so
  const unpack = ["cmake", "-E", "tar", "xf", `../../native/onednn/${archive}`];
  await cmake("-E", "chdir", join("build", "onednn-source"), ...unpack);
  const definitions = {
    CMAKE_BUILD_TYPE: "Release",
    CMAKE_CXX_FLAGS_RELEASE: "-Os -DNDEBUG -w -ffunction-sections -fdata-sections",
    CMAKE_INSTALL_PREFIX: onednn,
    DNNL_LIBRARY_TYPE: "STATIC",
    DNNL_CPU_RUNTIME: "OMP",
    DNNL_GPU_RUNTIME: "NONE",
    DNNL_ENABLE_PRIMITIVE: "CONVOLUTION;REORDER",
    DNNL_ENABLE_JIT_PROFILING: "OFF",
    DNNL_BUILD_TESTS: "OFF",
    DNNL_BUILD_EXAMPLES: "OFF",
  };
  const options = Object.entries(definitions).map(([name, value]) => `-D${name}=${value}`);
  await cmake("-S", source, "-B", join(source, "build"), ...options);
  await cmake("--build", join(source, "build"), ...jobs, "--target", "install");
  copyFileSync(join(source, "LICENSE"), join(onednn, "LICENSE"));
  copyFileSync(join(source, "THIRD-PARTY-PROGRAMS"), join(onednn, "THIRD-PARTY-PROGRAMS"));
  rmSync(source, { recursive: true });
  writeFileSync(made, "");
}

/** The addons beside the usual one, each in a folder of its own under build/. */
const variants = {
  sim: { options: { SERESNET_FOLDER: "sim", SERESNET_CUDA_SIM: "ON" }, env: {} },
  cpu: { options: { SERESNET_FOLDER: "cpu" }, env: { SERESNET_CUDA: "0" } },
  release: { options: { SERESNET_FOLDER: "release" }, env: { SERESNET_CUDA: "0", SERESNET_ONEDNN: onednn } },
};

async function buildWithCMake(variant, { options, env } = variants[variant] ?? { options: {}, env: {} }) {
  const folder = variant ? join(build, `cmake-${variant}`) : cmakeFolder;
  const found = await configure(folder, options, env);
  const what = namesOf(found.parts).join(", ") || "what lists devices";
  const time = found.parts.some(({ part }) => part.startsWith("cuda")) ? "some minutes" : "about a minute";
  const hear = announcing(what, time);
  await runTool("cmake-js", "bin/cmake-js", ["build", "--out", folder, ...jobs], env, hear);
  return found;
}

/** A CUDA that does not compile here must not cost the device cpu. */
async function buildWithoutBrokenCuda() {
  try {
    return await buildWithCMake();
  } catch (error) {
    const hasCuda = existsSync(join(cmakeFolder, "CMakeCache.txt")) && /nvcc|\.cu\b|CUDA/.test(error.words ?? "");
    if (!(error instanceof BuildError) || !hasCuda) throw error;
    console.error(error.words);
    const found = await buildWithCMake(undefined, { options: {}, env: { SERESNET_CUDA: "0" } });
    const why = `${error.message}, so it was built without`;
    return { ...found, left: found.left.map((one) => (one.part === "cuda" ? { ...one, why, remedy: rebuild } : one)) };
  }
}

async function buildWithGyp() {
  checkTools();
  if (!versionOf("python3") && !versionOf("python")) throw new BuildError("node-gyp needs Python 3", setup);
  // One tool at a time: make must not take CMake's addon for its own, nor CMake's next run this one.
  rmSync(cmakeFolder, { recursive: true, force: true });
  rmSync(addon, { force: true });
  // Node's own headers, where they came along with it, save a download.
  const prefix = dirname(dirname(process.execPath));
  const own = existsSync(join(prefix, "include", "node", "common.gypi"));
  const nodedir = process.env.npm_config_nodedir === undefined && own ? [`--nodedir=${prefix}`] : [];
  const hear = announcing("what lists devices", "some seconds");
  await runTool("node-gyp", "bin/node-gyp.js", ["configure", "build", ...nodedir], {}, hear);
  const why = "node-gyp builds what lists and diagnoses devices, CMake what computes";
  return { parts: [], left: [{ part: "cpu and cuda", why, remedy: `${setup}, then: ${rebuild}` }] };
}

/** What the addon itself says it holds: `cpu (oneDNN 2.6.3)`. A process of its own loads it. */
function describeAddon(path) {
  const code =
    "const m = { exports: {} }; process.dlopen(m, process.argv[1]); console.log(JSON.stringify(m.exports.versions()))";
  const { status, stdout, stderr } = spawnSync(process.execPath, ["-e", code, path], { encoding: "utf8" });
  if (status !== 0) throw new BuildError(`${path} does not load`, rebuild, firstErrors(stderr, 2));
  const { onednn, cuda, cudnn } = JSON.parse(stdout);
  const holds = [];
  if (onednn) holds.push(`cpu (oneDNN ${onednn.runtime})`);
  if (cuda) holds.push(`cuda (${[...cuda.archs, ...(cudnn ? [`cuDNN ${cudnn.compiled}`] : [])].join(", ")})`);
  return holds;
}

/** Makes the addon; one that a build which was broken off left damaged looks up to date and is made anew. */
async function makeWhole(make) {
  const { left } = await make();
  try {
    return { holds: describeAddon(addon), left };
  } catch {
    rmSync(addon, { recursive: true, force: true });
    await make();
    return { holds: describeAddon(addon), left };
  }
}

/** Whether this folder can be written and has room, before hundreds of files are: a sentence where not. */
function checkFolder() {
  try {
    accessSync(root, constants.W_OK);
    makeFolder(build);
    accessSync(build, constants.W_OK);
    if (existsSync(join(root, "dist"))) accessSync(join(root, "dist"), constants.W_OK);
  } catch (error) {
    throw error instanceof BuildError ? error : failure("access", root, error.message);
  }
  if (isFull(2e7)) throw failure("access", root, "ENOSPC");
  if (!existsSync(join(root, "node_modules", "typescript")))
    throw new BuildError("the packages of npm are missing", "npm ci");
}

const namesOf = (parts) => parts.map(({ part, what }) => `${part} (${what})`);

/** One line: what there is, then each thing left out with the reason and the remedy. Without the device cpu it shouts. */
function report(holds, left) {
  const absent = left.map(({ part, why, remedy }) => `${part} left out: ${why} (${remedy})`);
  const line = [holds.join(", ") || "no device", ...absent].join("; ");
  const slow = left.some(({ part }) => part.startsWith("cpu"));
  console.error(slow ? colours.bold(colours.red(`addon: ${line}`)) : `${colours.green("addon:")} ${line}`);
}

const flag = { type: "boolean" };
const { values } = parseArgs({
  options: { optional: flag, gyp: flag, sim: flag, cpu: flag, release: flag, check: flag, ready: flag },
});

async function main() {
  if (values.ready) {
    checkFolder();
  } else if (values.check) {
    const { parts, left } = await configure(cmakeFolder, {});
    report(namesOf(parts), left);
    process.exitCode = parts.some(({ part }) => part === "cpu") ? 0 : 1;
  } else if (values.sim) {
    await buildWithCMake("sim");
    console.error(`addon: cuda-sim (the CUDA executor on the host, for tests): ${join(build, "sim", "seresnet.node")}`);
  } else if (values.cpu || values.release) {
    const variant = values.release ? "release" : "cpu";
    if (values.release) await buildOnednn();
    const { left } = await buildWithCMake(variant);
    const cpu = left.find(({ part }) => part === "cpu");
    if (cpu) throw new BuildError(cpu.why, cpu.remedy);
    report(describeAddon(join(build, variant, "seresnet.node")), []);
  } else {
    const gyp = values.gyp || (values.optional && !versionOf("cmake"));
    const make = () => (gyp ? buildWithGyp() : values.optional ? buildWithoutBrokenCuda() : buildWithCMake());
    const { holds, left } = await makeWhole(make);
    report(holds, left);
    // asked for by its command, it has to hold the device cpu, unless that too was asked for
    const lacksCpu = left.some(({ part }) => part === "cpu") && process.env.SERESNET_ONEDNN !== "0";
    if (lacksCpu && !values.optional) process.exitCode = 1;
  }
}

try {
  await main();
} catch (error) {
  if (!(error instanceof BuildError)) throw error;
  if (error.words) console.error(error.words);
  const consequence = "without an addon the reference computes, many times slower";
  const sentence = `addon: not built: ${error.message}; ${consequence}. Remedy: ${error.remedy}`;
  console.error(colours.bold(colours.red(values.check ? sentence.replace("not built", "cannot be built") : sentence)));
  process.exitCode = values.optional ? 0 : 1;
}
