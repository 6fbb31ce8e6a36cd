// Runs the tests that hold for every device, and those of the CUDA executor, on one kind of device.
//   node test/run_on.mjs cuda              npm run test:cuda: on a GPU; exit 3 with one sentence where there is none
//   node test/run_on.mjs cuda --sanitizer  the same under compute-sanitizer
//   node test/run_on.mjs cuda-sim          npm run test:sim: kernels and all on the host, with build/sim/seresnet.node
//   node test/run_on.mjs cuda --seconds 20 --only ops.parity,ops    some files, and at most so long for each test
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const require = createRequire(import.meta.url);
const text = { type: "string" };
const options = { sanitizer: { type: "boolean" }, only: text, seconds: text };
const { values, positionals } = parseArgs({ allowPositionals: true, options });
const [device] = positionals;
const sim = join(root, "build", "sim", "seresnet.node");
const judged = ["layers.parity", "ops.parity", "training.parity", "gated_conv2d", "ops", "ops_as_pytorch", "bad_input"];
const training = ["gradients", "optim", "trajectory", "checkpoint", "amp"];
const onHost = device === "cuda-sim" ? ["cuda_faults", "cuda_bench", "gpu_kit"] : [];
const known = ["cuda", ...judged, ...training, "profile", ...onHost];
const files = values.only?.split(",") ?? known;
const unknown = files.find((name) => !known.includes(name));
if (unknown !== undefined || !(Number(values.seconds ?? 1) > 0)) {
  const sentence =
    unknown === undefined
      ? `--seconds to be above 0, got ${values.seconds}`
      : `--only ${known.join(", ")}, got ${unknown}`;
  console.error(`run_on: expected ${sentence}`);
  process.exit(2);
}

if (device === "cuda-sim") process.env.SERESNET_ADDON = sim;

function whyNot() {
  if (device === "cuda-sim" && !existsSync(sim))
    return "build/sim/seresnet.node is not built (node native/build.mjs --sim)";
  const { listDevices } = require("seresnet");
  const devices = listDevices().filter(({ name }) => name === device);
  if (devices.some(({ usable }) => usable)) return undefined;
  return `${devices[0]?.reason ?? `this build has no device ${device}`}${devices[0]?.fix ? ` (try: ${devices[0].fix})` : ""}`;
}

const reason = whyNot();
if (reason !== undefined) {
  console.error(`The tests on ${device} were not run: ${reason}`);
  process.exitCode = 3;
} else {
  const vitest = [
    join(root, "node_modules", "vitest", "vitest.mjs"),
    "run",
    ...(values.seconds === undefined ? [] : [`--testTimeout=${1000 * Number(values.seconds)}`]),
    ...files.map((name) => `test/${name}.test.ts`),
  ];
  // our own kernels alone: with cuDNN's inside, whole suites would not end
  const filter = ["--target-processes", "all", "--kernel-name", "kns=seresnet"];
  const sanitizer = ["compute-sanitizer", ...filter, "--error-exitcode", "9", process.execPath];
  const [command, ...rest] = values.sanitizer ? sanitizer : [process.execPath];
  const run = spawnSync(command, [...rest, ...vitest], { cwd: root, stdio: "inherit" });
  if (run.error) console.error(`${command} could not be started: ${run.error.message}`);
  process.exitCode = run.status ?? 1;
}
