// npm run setup: installs what the addon and the demo need from outside npm, only what is missing.
//   Debian packages through apt-get (with sudo unless root), and where nvcc is, cuDNN through pip into .venv
//   --cuda    cuDNN even where there is no nvcc, and what cuDNN needs beside it on a GPU: cuBLAS and NVRTC
//   --strict  exit 1 when something is still missing; without it that is a warning
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const venv = join(root, ".venv");
const cudnnPackage = "nvidia-cudnn-cu13==9.24.0.43";
const runtimePackages = ["nvidia-cublas>=13,<14", "nvidia-cuda-nvrtc>=13,<14"];
const { values } = parseArgs({ options: { cuda: { type: "boolean" }, strict: { type: "boolean" } } });

function run(command, args, options = { stdio: "inherit" }) {
  return spawnSync(command, args, options).status === 0;
}

function runs(command, ...args) {
  return run(command, args.length > 0 ? args : ["--version"], { stdio: "ignore" });
}

function hasHeader(name) {
  return ["/usr/include", "/usr/local/include"].some((folder) => existsSync(join(folder, name)));
}

function hasCudnn() {
  const lib = join(venv, "lib");
  const pythons = existsSync(lib) ? readdirSync(lib) : [];
  return pythons.some((name) => existsSync(join(lib, name, "site-packages/nvidia/cudnn/lib/libcudnn.so.9")));
}

/** cuBLAS and NVRTC, which cuDNN opens by name: beside it in .venv, or CUDA's own. */
function hasRuntime() {
  const lib = join(venv, "lib");
  const sites = (existsSync(lib) ? readdirSync(lib) : []).map((name) =>
    join(lib, name, "site-packages/nvidia/cu13/lib"),
  );
  const has = (name) => [...sites, "/usr/local/cuda/lib64"].some((folder) => existsSync(join(folder, name)));
  return has("libcublasLt.so.13") && has("libnvrtc.so.13");
}

const hasNvcc = runs("nvcc") || existsSync("/usr/local/cuda/bin/nvcc");
const wantsCudnn = (values.cuda || hasNvcc) && !hasCudnn();
const wantsRuntime = values.cuda && !hasRuntime();

/** What is needed, by the package that brings it: a test of the thing itself, so that any way to have it counts. */
const needs = [
  { name: "g++", present: () => runs("c++") || runs("g++"), without: "the native addon cannot be built" },
  { name: "make", present: () => runs("make"), without: "the native addon cannot be built" },
  { name: "cmake", present: () => runs("cmake"), without: "the native addon is built without oneDNN and CUDA" },
  {
    name: "libdnnl-dev",
    present: () => hasHeader("oneapi/dnnl/dnnl.hpp"),
    without: "the device cpu is left out",
  },
  {
    name: "dataset-fashion-mnist",
    present: () => existsSync("/usr/share/datasets/fashion-mnist"),
    without: "the demo has no pictures",
  },
  {
    name: "fonts-dejavu-core",
    present: () => existsSync("/usr/share/fonts") && readdirSync("/usr/share/fonts").length > 0,
    without: "the demo's picture has no text",
  },
];
if (wantsCudnn || wantsRuntime) {
  const present = () => runs("python3", "-c", "import ensurepip, venv");
  needs.push({ name: "python3-venv", present, without: "cuDNN cannot be installed" });
}

function installPackages(names) {
  if (!runs("apt-get")) return;
  const isRoot = process.getuid?.() === 0;
  if (!isRoot && !runs("sudo")) return;
  const apt = (...args) => {
    const command = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", ...args];
    return isRoot ? run(command[0], command.slice(1)) : run("sudo", command);
  };
  const install = (...some) => apt("install", "-y", "--no-install-recommends", ...some);
  apt("update");
  if (!install(...names) && names.length > 1) for (const name of names) install(name); // one may be unknown here
}

function installWithPip(...packages) {
  const python = join(venv, "bin", "python");
  if (!existsSync(python) && !run("python3", ["-m", "venv", venv])) return;
  run(python, ["-m", "pip", "install", "--disable-pip-version-check", "--no-deps", ...packages]);
}

const missing = needs.filter((need) => !need.present());
if (missing.length > 0) {
  console.error(`setup: installing ${missing.map((need) => need.name).join(", ")}`);
  installPackages(missing.map((need) => need.name));
}
if (wantsCudnn || wantsRuntime) {
  const packages = [...(wantsCudnn ? [cudnnPackage] : []), ...(wantsRuntime ? runtimePackages : [])];
  console.error(`setup: installing ${packages.join(", ")} into .venv (several hundred MB)`);
  const start = performance.now();
  installWithPip(...packages);
  console.error(`setup: that took ${((performance.now() - start) / 1000).toFixed(0)} s`);
}

const left = missing.filter((need) => !need.present()).map((need) => `${need.name} (${need.without})`);
if (wantsCudnn && !hasCudnn()) left.push("cuDNN (the device cuda is left out)");
if (wantsRuntime && !hasRuntime()) left.push("cuBLAS and NVRTC (cuDNN does not work without)");
if (left.length > 0) {
  console.error(`warning: setup could not install ${left.join(", ")}; everything else works without`);
  process.exitCode = values.strict ? 1 : 0;
} else {
  console.error("setup: everything is there");
}
