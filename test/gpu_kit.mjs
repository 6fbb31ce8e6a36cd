// Packs what proves and times the device cuda on a GPU machine that has neither Node.js nor a registry:
//   npm run build && node test/gpu_kit.mjs KIT      a folder, of which gpu.sh says what it does there
//   node test/gpu_kit.mjs KIT --back FOLDER                         adds what the first call gave back, for the second
//   node test/gpu_kit.mjs KIT --sim                                 the same for the device cuda-sim: the kit's rehearsal
// The addon is built a second time for it, in build/cmake-kit, without oneDNN: that would need libraries a bare machine lacks.
import { execFileSync, spawnSync } from "node:child_process";
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { needs } from "./gpu_kit/needs.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const require = createRequire(import.meta.url);
/** What may travel, in bytes, with something to spare for the checkout around it. */
const most = 60 * 2 ** 20;
const MiB = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

/** What differs between a kit for a GPU and its rehearsal on the host. */
const kinds = {
  cuda: {
    device: "cuda",
    models: ["seresnet50", "resnet50"],
    cases: "seresnet50:float16:128,seresnet50:float16:1,resnet50:float16:128",
    parity: "",
    trained: "seresnet50",
    effort: 6, // of xz
  },
  sim: {
    device: "cuda-sim",
    models: ["seresnet14_cifar", "resnet14_cifar"],
    cases: "seresnet14_cifar:float16:2,resnet14_cifar:float16:1",
    parity: "--only ops.parity,profile",
    trained: "seresnet14_cifar",
    effort: 1,
  },
};

/** What tests need beside the package's own dependencies. */
const tools = ["vitest", "fast-check"];
const folders = ["dist", "models/weights", "models/labels", "test"];
const files = [
  "package.json",
  "vitest.config.mts",
  "tsconfig.json",
  "bench/peers/torch_peer.py",
  "bench/peers/torch_training.py",
];

function main() {
  const options = { sim: { type: "boolean" }, back: { type: "string" } };
  const { values, positionals } = parseArgs({ options, allowPositionals: true });
  if (positionals.length !== 1) {
    console.error("usage: node test/gpu_kit.mjs KIT [--sim] [--back FOLDER]");
    process.exitCode = 2;
    return;
  }
  const kit = resolve(positionals[0]);
  if (values.back) addCaches(kit, resolve(values.back));
  else pack(kit, values.sim ? kinds.sim : kinds.cuda, values.sim ? simulated() : built());
  checkSize(kit);
}

/** What came back of the first call and saves the second time. */
function addCaches(kit, from) {
  if (!existsSync(join(kit, "kit.tar.xz"))) throw new Error(`expected a kit in ${kit}: node test/gpu_kit.mjs ${kit}`);
  const caches = ["plans.tar", "compile.tar"].filter((name) => existsSync(join(from, name)));
  if (caches.length === 0) throw new Error(`expected plans.tar or compile.tar in ${from}`);
  for (const name of caches) copyFileSync(join(from, name), join(kit, name));
}

/** The addon for a GPU: built here, without oneDNN. */
function built() {
  const folder = join(root, "build", "cmake-kit");
  const cmake = require.resolve("cmake-js/bin/cmake-js");
  const given = ["--CDSERESNET_FOLDER=kit-addon"];
  const env = { ...process.env, SERESNET_CUDA: "1", SERESNET_ONEDNN: "0" };
  for (const step of ["configure", "build"]) {
    const child = spawnSync(process.execPath, [cmake, step, "--out", folder, ...given], {
      cwd: root,
      env,
      encoding: "utf8",
    });
    if (child.status !== 0)
      throw new Error(`the kit's addon could not be built:\n${`${child.stdout}${child.stderr}`.slice(-3000)}`);
  }
  const addon = join(root, "build", "kit-addon", "seresnet.node");
  const holder = { exports: {} };
  process.dlopen(holder, addon);
  const [device] = holder.exports.listDevices([]);
  const { cuda, cudnn, onednn } = holder.exports.versions();
  if (String(device.details.problems).includes("no CUDA executor") || !cuda || !cudnn)
    throw new Error(
      "expected an addon with the CUDA executor and cuDNN's headers: npm run setup -- --cuda, with nvcc on the PATH",
    );
  if (onednn) throw new Error("expected the kit's addon to be built without oneDNN");
  return { file: addon, place: "build/Release/seresnet.node" };
}

function simulated() {
  const place = "build/sim/seresnet.node";
  if (!existsSync(join(root, place))) throw new Error(`expected ${place}: node native/build.mjs --sim`);
  return { file: join(root, place), place };
}

function pack(kit, kind, addon) {
  for (const file of [addon.file, process.execPath]) {
    const missing = needs(file);
    if (missing.length > 0)
      throw new Error(`${relative(root, file)} needs what a bare machine lacks: ${missing.join(", ")}`);
  }
  const work = mkdtempSync(join(tmpdir(), "seresnet-kit-"));
  try {
    const said = [];
    const put = (what, to, from) => {
      mkdirSync(dirname(join(work, to)), { recursive: true });
      cpSync(from, join(work, to), { recursive: true });
      said.push([what, sizeOf(join(work, to))]);
    };
    for (const folder of folders) put(folder, folder, join(root, folder));
    for (const file of files) put(file, file, join(root, file));
    put("node", "bin/node", process.execPath);
    put("addon", addon.place, addon.file);
    const logits = join(root, "build", "logits");
    const words = [join(root, "dist/bench/ship_logits.js"), kind.device, logits, ...kind.models];
    execFileSync(process.execPath, words, { cwd: root, stdio: ["ignore", "inherit", "inherit"] });
    for (const name of kind.models)
      put(`logits of ${name}`, `logits/${name}.logits.json`, join(logits, `${name}.logits.json`));
    const { dependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
    let packages = 0;
    for (const folder of closure([...Object.keys(dependencies), ...tools])) {
      cpSync(folder, join(work, relative(root, folder)), { recursive: true });
      packages += 1;
    }
    said.push([`node_modules: ${packages} packages`, sizeOf(join(work, "node_modules"))]);

    rmSync(kit, { recursive: true, force: true });
    mkdirSync(kit, { recursive: true });
    execFileSync("tar", ["-C", work, "-I", `xz -T0 -${kind.effort}`, "-cf", join(kit, "kit.tar.xz"), "."]);
    copyFileSync(join(root, "test/gpu_kit/gpu.sh"), join(kit, "gpu.sh"));
    const commit = execFileSync("git", ["describe", "--always", "--dirty"], { cwd: root, encoding: "utf8" }).trim();
    const { device, cases, parity, trained } = kind;
    const lines = Object.entries({ commit, device, cases, parity, trained }).map(
      ([name, value]) => `${name}='${value}'`,
    );
    if (addon.place !== "build/Release/seresnet.node") lines.push(`export SERESNET_ADDON="$work/${addon.place}"`);
    writeFileSync(join(kit, "kit.env"), `${lines.join("\n")}\n`);
    for (const [what, bytes] of said.sort((a, b) => b[1] - a[1])) console.log(`${MiB(bytes).padStart(10)}  ${what}`);
  } finally {
    rmSync(work, { recursive: true });
  }
}

function checkSize(kit) {
  const bytes = sizeOf(kit);
  for (const name of readdirSync(kit))
    console.log(`${MiB(statSync(join(kit, name)).size).padStart(10)}  ${join(kit, name)}`);
  if (bytes > most) throw new Error(`the kit has ${MiB(bytes)}, of which ${MiB(most)} may travel`);
  console.log(`${kit}: ${MiB(bytes)} of at most ${MiB(most)}; there: sh gpu.sh OUT first`);
}

function sizeOf(path) {
  const found = statSync(path);
  if (!found.isDirectory()) return found.size;
  return readdirSync(path).reduce((sum, name) => sum + sizeOf(join(path, name)), 0);
}

/** The folders of packages and of all they depend on, found as Node finds them. */
function closure(names) {
  const found = new Set();
  const visit = (name, from) => {
    for (let folder = from; ; folder = dirname(folder)) {
      const place = join(folder, "node_modules", name);
      if (existsSync(join(place, "package.json"))) return add(place);
      if (folder === root) return; // optional, and not for this platform
    }
  };
  const add = (place) => {
    if (found.has(place)) return;
    found.add(place);
    const { dependencies, optionalDependencies } = JSON.parse(readFileSync(join(place, "package.json"), "utf8"));
    for (const name of Object.keys({ ...dependencies, ...optionalDependencies })) visit(name, place);
  };
  for (const name of names) visit(name, root);
  // what lies inside another package's folder travels with it
  return [...found].filter((place) => ![...found].some((other) => place !== other && place.startsWith(`${other}/`)));
}

try {
  main();
} catch (error) {
  console.error(`gpu_kit: ${error.message}`);
  process.exitCode = 1;
}
