// npm run setup: installs what the addon and the demo need from outside npm, only what is missing, and then tries what it
// installed: CMake configures the addon and compiles a few lines against oneDNN, a letter is drawn, the dataset is read.
//   Debian packages through apt-get (with sudo unless root), and where nvcc is, cuDNN through pip into .venv
//   --cuda    cuDNN even where there is no nvcc, and what cuDNN needs beside it on a GPU: cuBLAS and NVRTC
//   --strict  exit 1 when something is still missing; without it that is a warning
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { gunzipSync } from "node:zlib";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const venv = join(root, ".venv");
const dataset = "/usr/share/datasets/fashion-mnist";
const cudnnPackage = "nvidia-cudnn-cu13==9.24.0.43";
const runtimePackages = ["nvidia-cublas>=13,<14", "nvidia-cuda-nvrtc>=13,<14"];
const { values } = parseArgs({ options: { cuda: { type: "boolean" }, strict: { type: "boolean" } } });

if (!existsSync(join(root, "node_modules"))) {
  console.error("setup: the packages of npm are missing; run: npm ci");
  process.exit(1);
}

/** Why packages could not be installed, in the tool's own words. */
const faults = [];

/** Runs a command a person may watch; what it says on stderr is shown and returned. */
function run(command, args) {
  const { status, stderr } = spawnSync(command, args, { stdio: ["inherit", "inherit", "pipe"], encoding: "utf8" });
  process.stderr.write(stderr ?? "");
  return { done: status === 0, said: stderr ?? "" };
}

function runs(command, ...args) {
  return spawnSync(command, args.length > 0 ? args : ["--version"], { stdio: "ignore" }).status === 0;
}

/** What a script prints, run in a process of its own. */
function answer(...args) {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: root, encoding: "utf8" });
  return { done: status === 0, stdout, stderr: stderr.trim() };
}

let checked;
/** The build's own word, from CMake: `addon: cpu (oneDNN 2.6.3)`. */
function checkBuild() {
  checked ??= answer(join(root, "native", "build.mjs"), "--check");
  return checked;
}

/** Draws a letter as the demo draws its image. Fontconfig's complaints count as well: they would be on the user's screen. */
function drawsText() {
  const svg =
    '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><text x="4" y="32" font-size="32">M</text></svg>';
  const code = `require("sharp")(Buffer.from(${JSON.stringify(svg)})).stats().then((s) => console.log(s.channels.some((c) => c.max > 0)))`;
  const { stdout, stderr } = answer("-e", code);
  return stdout === "true\n" && stderr === "";
}

function readsDataset() {
  try {
    const [file] = readdirSync(dataset).filter((name) => name.startsWith("t10k-images"));
    const bytes = readFileSync(join(dataset, file));
    return (file.endsWith(".gz") ? gunzipSync(bytes) : bytes).readUInt32BE(0) === 0x803;
  } catch {
    return false;
  }
}

/** Whether a library that pip brought into .venv (or CUDA's folder holds) can be opened: Node then only misses its own entry. */
function opens(name, ...folders) {
  const lib = join(venv, "lib");
  const pythons = existsSync(lib) ? readdirSync(lib) : [];
  const places = folders.flatMap((folder) =>
    folder.startsWith("/") ? [folder] : pythons.map((python) => join(lib, python, "site-packages", folder)),
  );
  return places
    .map((place) => join(place, name))
    .filter((path) => existsSync(path))
    .some((path) =>
      /self-register/.test(answer("-e", "process.dlopen({ exports: {} }, process.argv[1])", path).stderr),
    );
}

const hasCudnn = () => opens("libcudnn.so.9", "nvidia/cudnn/lib");
/** cuBLAS and NVRTC, which cuDNN opens by name: beside it in .venv, or CUDA's own. */
const hasRuntime = () =>
  ["libcublasLt.so.13", "libnvrtc.so.13"].every((name) => opens(name, "nvidia/cu13/lib", "/usr/local/cuda/lib64"));

const hasNvcc = runs("nvcc") || existsSync("/usr/local/cuda/bin/nvcc");
const wantsCudnn = (values.cuda || hasNvcc) && !hasCudnn();
const wantsRuntime = Boolean(values.cuda) && !hasRuntime();

const hasTools = () => (runs("c++") || runs("g++")) && runs("make") && runs("cmake");
/** What is needed: the packages that bring it, and a trial of the thing itself, so that any way to have it counts. */
const needs = [
  {
    packages: ["g++", "make", "cmake", "libdnnl-dev"],
    works: () => hasTools() && checkBuild().done,
    without: "the addon cannot be built with the device cpu",
  },
  { packages: ["dataset-fashion-mnist"], works: readsDataset, without: "the demo has no images" },
  { packages: ["fonts-dejavu-core", "fontconfig-config"], works: drawsText, without: "the demo's image has no text" },
];
if (wantsCudnn || wantsRuntime) {
  const works = () => runs("python3", "-c", "import ensurepip, venv");
  needs.push({ packages: ["python3-venv"], works, without: "cuDNN cannot be installed" });
}

function installPackages(names) {
  const isRoot = process.getuid?.() === 0;
  if (!runs("apt-get")) return faults.push("there is no apt-get here");
  if (!isRoot && !runs("sudo")) return faults.push("this user is not root and there is no sudo");
  const apt = (...args) => {
    const command = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", ...args];
    return isRoot ? run(command[0], command.slice(1)) : run("sudo", command);
  };
  const install = (...some) => apt("install", "-y", "--no-install-recommends", ...some);
  const updated = apt("update");
  const installed = install(...names);
  if (installed.done) return;
  const proxy = process.env.http_proxy ?? process.env.HTTP_PROXY;
  const unreached = /^[EW]: (Failed to fetch .*|.*Temporary failure resolving .*)$/m.exec(
    updated.said + installed.said,
  );
  const first = unreached ?? /^E: (.*)$/m.exec(installed.said);
  const hint = unreached && proxy ? ` (is the proxy http_proxy=${proxy} right?)` : "";
  faults.push(`apt-get says: ${first?.[1] ?? "nothing"}${hint}`);
  const unknown = /Unable to locate package/.test(installed.said);
  if (unknown && !unreached) for (const name of names) install(name); // the others may be there
}

function installWithPip(...packages) {
  const python = join(venv, "bin", "python");
  if (!existsSync(python) && !run("python3", ["-m", "venv", venv]).done) return;
  run(python, ["-m", "pip", "install", "--disable-pip-version-check", "--no-deps", ...packages]);
}

const missing = needs.filter((need) => !need.works());
const wanted = missing.flatMap((need) => need.packages);
if (missing.length > 0) {
  console.error(`setup: installing ${wanted.join(", ")}`);
  installPackages(wanted);
  checked = undefined;
}
if (wantsCudnn || wantsRuntime) {
  const packages = [...(wantsCudnn ? [cudnnPackage] : []), ...(wantsRuntime ? runtimePackages : [])];
  console.error(`setup: installing ${packages.join(", ")} into .venv (several hundred MB)`);
  const start = performance.now();
  installWithPip(...packages);
  checked = undefined;
  console.error(`setup: that took ${((performance.now() - start) / 1000).toFixed(0)} s`);
}

const left = missing.filter((need) => !need.works());
const lacks = left.map(({ without }) => without);
if (wantsCudnn && !hasCudnn()) lacks.push("without cuDNN the device cuda has no convolutions");
if (wantsRuntime && !hasRuntime()) lacks.push("cuBLAS and NVRTC are missing, without which cuDNN does not work");
const addon = hasTools() ? checkBuild().stderr : "";
if (lacks.length === 0) {
  console.error(`setup: everything is there; ${addon}`);
} else {
  if (addon) console.error(addon);
  const reasons = faults.length > 0 ? ` (${faults.join("; ")})` : "";
  const names = left.flatMap((need) => need.packages);
  // where everything was installed and still does not work, the build has said why
  const remedy =
    names.length > 0 && faults.length > 0
      ? `. Remedy, as root: apt-get install ${names.join(" ")}, or what your system calls them`
      : "";
  console.error(`warning: setup could not install everything: ${lacks.join("; ")}${reasons}${remedy}`);
  process.exitCode = values.strict ? 1 : 0;
}
