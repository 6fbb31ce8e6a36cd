// Builds the native addon, build/Release/seresnet.node.
//   node native/build.mjs             with CMake, through cmake-js; exit 1 with one sentence when it cannot
//   node native/build.mjs --gyp       without CMake, through node-gyp: lists and diagnoses devices, computes nothing
//   node native/build.mjs --sim       the addon that some tests need, build/sim/seresnet.node: the CUDA executor with its
//                                     kernels run on the host
//   node native/build.mjs --optional  as the first; the second where there is no CMake; a warning and exit 0 where
//                                     neither can be done
import { spawnSync } from "node:child_process";
import { existsSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const require = createRequire(import.meta.url);
const addon = join(root, "build", "Release", "seresnet.node");
const cmakeFolder = join(root, "build", "cmake");

class BuildError extends Error {
  constructor(sentence, output = "") {
    super(sentence);
    this.output = output;
  }
}

/** Whether `command --version` runs. */
function runs(command) {
  return spawnSync(command, ["--version"], { stdio: "ignore" }).status === 0;
}

/** Runs the command of a development dependency and returns what it printed. */
function runTool(name, entry, args) {
  let script;
  try {
    script = require.resolve(`${name}/${entry}`);
  } catch {
    const isCheckout = existsSync(join(root, "tsconfig.build.json"));
    const install = "npm install --no-save cmake-js@8 node-addon-api@8 node-api-headers@1";
    throw new BuildError(`${name} is not installed; run: ${isCheckout ? "npm ci" : install}`);
  }
  const result = spawnSync(process.execPath, [script, ...args], { cwd: root, encoding: "utf8", maxBuffer: 1 << 28 });
  const output = `${result.stdout}${result.stderr}`;
  if (result.status !== 0) throw new BuildError(`${name} ${args[0]} failed`, output);
  return output;
}

function checkCompiler() {
  const compiler = process.env.CXX;
  if (compiler ? runs(compiler) : runs("c++") || runs("g++") || runs("clang++")) return;
  throw new BuildError(`there is no C++ compiler${compiler ? ` at CXX=${compiler}` : ""}; run: npm run setup`);
}

function buildWithCMake(sim = false) {
  checkCompiler();
  if (!runs("cmake")) throw new BuildError("there is no CMake; run: npm run setup");
  // Configured each time (about a second): oneDNN, CUDA or cuDNN may have been installed since.
  const folder = sim ? join(root, "build", "cmake-sim") : cmakeFolder;
  const options = sim ? ["--CDSERESNET_CUDA_SIM=ON"] : [];
  const step = (name) => runTool("cmake-js", "bin/cmake-js", [name, "--out", folder, ...options]);
  let configured;
  try {
    configured = step("configure");
  } catch (error) {
    if (!existsSync(folder)) throw error;
    rmSync(folder, { recursive: true }); // left by another generator, compiler or folder
    configured = step("configure");
  }
  step("build");
  return [...configured.matchAll(/^-- seresnet: (.*)$/gm)].map((match) => match[1]);
}

function buildWithGyp() {
  checkCompiler();
  if (!runs("python3") && !runs("python")) throw new BuildError("node-gyp needs Python 3; run: npm run setup");
  // One tool at a time: make must not take CMake's addon for its own, nor CMake's next run this one.
  rmSync(cmakeFolder, { recursive: true, force: true });
  rmSync(addon, { force: true });
  // Node's own headers, where they came along with it, save a download.
  const prefix = dirname(dirname(process.execPath));
  const own = existsSync(join(prefix, "include", "node", "common.gypi"));
  const nodedir = process.env.npm_config_nodedir === undefined && own ? [`--nodedir=${prefix}`] : [];
  runTool("node-gyp", "bin/node-gyp.js", ["configure", "build", ...nodedir]);
  return ["built without CMake: devices are listed, oneDNN and CUDA are left out"];
}

/** The compiler's own words, from its first error on. */
function lastLines(output, most = 30) {
  const lines = output.trimEnd().split("\n");
  const first = lines.findIndex((line) => /\berror\b/i.test(line));
  return (first < 0 ? lines.slice(-most) : lines.slice(first, first + most)).join("\n");
}

const flag = { type: "boolean" };
const { values } = parseArgs({ options: { optional: flag, gyp: flag, sim: flag } });
try {
  const gyp = values.gyp || (values.optional && !runs("cmake"));
  const report = gyp ? buildWithGyp() : buildWithCMake(values.sim);
  for (const line of report) console.error(`addon: ${line}`);
  console.error(`addon: ${values.sim ? join(root, "build", "sim", "seresnet.node") : addon}`);
} catch (error) {
  if (!(error instanceof BuildError)) throw error;
  if (error.output) console.error(lastLines(error.output));
  const left = "the devices cuda and cpu are left out, reference works";
  console.error(`${values.optional ? "warning: " : ""}the native addon was not built: ${error.message} (${left})`);
  process.exitCode = values.optional ? 0 : 1;
}
