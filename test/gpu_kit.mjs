// Packs what proves and times the device cuda on a GPU machine that has neither Node.js nor a registry:
//   SERESNET_CUDA=1 npm run build && node test/gpu_kit.mjs kit.tar.xz
// There: tar -xf kit.tar.xz, then sh gpu.sh OUT [all|inspect|test|sanitizer|bench [options of npm run bench:cuda]|training [options]]
// cuDNN is looked for where its Python has it; PyTorch, where that has it, is measured beside us.
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const addon = join(root, "build", "Release", "seresnet.node");
const out = process.argv[2] && resolve(process.argv[2]);
if (!out) {
  console.error("usage: node test/gpu_kit.mjs FILE.tar.xz");
  process.exit(2);
}

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

const script = (commit) => `#!/bin/sh
# sh gpu.sh OUT [all|inspect|test|sanitizer|bench [options]|training [options]]: exits with 0 where everything asked for went well.
out=$(mkdir -p "\${1:?usage: sh gpu.sh OUT [all|inspect|test|sanitizer|bench [options]|training [options]]}" && cd "$1" && pwd)
what=\${2:-all}
[ $# -ge 2 ] && shift 2 || shift
cd "$(dirname "$0")" || exit 1
export PATH="$PWD/bin:$PATH" SERESNET_COMMIT=${commit} SERESNET_CACHE="\${SERESNET_CACHE:-$out/cache}"
if [ -z "$SERESNET_CUDNN" ]; then
  cudnn=$(python3 -c 'import os, nvidia.cudnn as c; print(os.path.join(list(c.__path__)[0], "lib"))' 2>/dev/null)
  [ -n "$cudnn" ] && export SERESNET_CUDNN="$cudnn"
fi
failed=0
step() {
  name=$1
  shift
  echo "== $name"
  "$@" >"$out/$name.log" 2>&1
  code=$?
  tail -n 60 "$out/$name.log"
  [ $code -eq 0 ] || { failed=1; echo "== $name: exit code $code"; }
}
wants() { [ "$what" = all ] || [ "$what" = "$1" ]; }
wants inspect && step inspect node dist/lib/cli/main.js inspect
wants test && step test node test/run_on.mjs cuda
wants bench && step bench node dist/bench/main.js cuda --results "$out" "$@"
wants training && step training node dist/bench/main.js training --device cuda --results "$out" "$@"
wants sanitizer && step sanitizer node test/run_on.mjs cuda --sanitizer
exit $failed
`;

const work = mkdtempSync(join(tmpdir(), "seresnet-kit-"));
try {
  if (!existsSync(addon)) throw new Error(`expected ${relative(root, addon)} to be built with SERESNET_CUDA=1`);
  const holder = { exports: {} };
  process.dlopen(holder, addon);
  const [device] = holder.exports.listDevices([]);
  if (String(device.details.problems).includes("no CUDA executor") || !holder.exports.versions().cuda)
    throw new Error("expected an addon with the CUDA executor, got one without: SERESNET_CUDA=1 npm run build:native");

  for (const folder of folders) cpSync(join(root, folder), join(work, folder), { recursive: true });
  for (const file of files) copy(join(root, file), join(work, file));
  copy(process.execPath, join(work, "bin/node"));
  copy(addon, join(work, "build/Release/seresnet.node"));
  // oneDNN and libgomp beside the addon, where it looks first
  for (const [, name, path] of run("ldd", [addon]).matchAll(/^\s*(lib(?:dnnl|gomp)\S+) => (\/\S+)/gm))
    copy(realpathSync(path), join(work, "build/Release", name));
  const { dependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  for (const folder of closure([...Object.keys(dependencies), ...tools]))
    cpSync(folder, join(work, relative(root, folder)), { recursive: true });
  writeFileSync(join(work, "gpu.sh"), script(run("git", ["describe", "--always", "--dirty"]).trim()));
  chmodSync(join(work, "gpu.sh"), 0o755);
  run("tar", ["-C", work, "-I", "xz -T0", "-cf", out, "."]);
  console.log(`${out}: ${(statSync(out).size / 2 ** 20).toFixed(1)} MiB`);
} catch (error) {
  console.error(`gpu_kit: ${error.message}`);
  process.exitCode = 1;
} finally {
  rmSync(work, { recursive: true });
}

function run(command, args) {
  return execFileSync(command, args, { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
}

function copy(from, to) {
  mkdirSync(dirname(to), { recursive: true });
  copyFileSync(from, to);
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
