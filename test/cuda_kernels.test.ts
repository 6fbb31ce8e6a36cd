import { execFile, spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { beforeAll, describe, expect, it } from "vitest";

// The CUDA kernels without a GPU: run on the host against float64 (native/test). SERESNET_SIMT_ORDERS says in how many orders
// of the threads each case runs: 3 by default. What nvcc makes of them is in cuda_refusals.test.ts.

const run = promisify(execFile);
const root = join(__dirname, "..");
const build = join(root, "build", "simt");

const has = (program: string) => spawnSync(program, ["--version"]).status === 0;
const compiler = process.env.CXX ?? "c++";
const canBuild = process.platform === "linux" && has("cmake") && has(compiler);
if (!canBuild) console.warn(`the CUDA kernels are NOT run on the host: there is no Linux with cmake and ${compiler}`);

/** Runs the harness; a planted fault ends it by a signal or the sanitizer's exit code. */
function simt(...words: string[]): Promise<{ ok: boolean; output: string }> {
  return run(join(build, "simt"), words, { maxBuffer: 1 << 26 }).then(
    ({ stdout, stderr }) => ({ ok: true, output: stdout + stderr }),
    (error: { stdout?: string; stderr?: string }) => ({ ok: false, output: `${error.stdout}${error.stderr}` }),
  );
}

describe.skipIf(!canBuild)("CUDA kernels on the host", () => {
  let sanitized = false;

  beforeAll(async () => {
    await run("cmake", ["-S", join(root, "native", "test"), "-B", build]);
    await run("cmake", ["--build", build, "--parallel", String(availableParallelism())], { maxBuffer: 1 << 26 });
    sanitized = readFileSync(join(build, "CMakeCache.txt"), "utf8").includes("HAS_SANITIZERS:INTERNAL=1");
    if (!sanitized) console.warn("no sanitizer links here: reads outside buffers are NOT looked for");
  }, 600_000);

  const poisoned = "use-after-poison";
  it.each([
    ["write past a buffer", `${poisoned}|wrote outside a buffer of 256 bytes`],
    ["write past dynamic shared memory", `${poisoned}|wrote outside its 256 bytes of dynamic shared memory`],
    ["write past static shared memory", `${poisoned}|wrote outside a static shared array of 252 bytes`],
    ["missing barrier", "order \\d+: element \\d+ is"],
    ["missing barrier, ascending only", "order [1-4]: element \\d+ is"],
    ["divergent shuffle", "divergent shuffle at faults.cc:\\d+: lane 1 of the mask 0xffffffff waits at a barrier"],
    ["crossed shuffles", "divergent shuffle at faults.cc:\\d+: lane \\d+ of the mask 0xffffffff waits at a shuffle"],
    ["shuffle after exit", "divergent shuffle at faults.cc:\\d+: lane 5 of the mask 0xffffffff has exited"],
    ["shuffle outside the mask", "lane 0 reads lane 20, which the mask 0x0000ffff leaves out"],
    ["divergent barrier", "divergent barrier at faults.cc:\\d+: 24 of the block's 64 threads wait, 40 have exited"],
    ["two barriers", "threads wait at different barriers"],
    ["cluster left early", "shared memory of block \\d of the cluster, which has exited"],
    ["too much shared memory", "300000 bytes of shared memory, 232448 are all there is"],
  ])("catches a planted fault: %s", async (name, report) => {
    const { ok, output } = await simt("fault", name);
    expect(output).toMatch(new RegExp(report));
    expect(ok).toBe(false);
  });

  it("catches a planted read past a buffer where there is AddressSanitizer", async ({ skip }) => {
    if (!sanitized) return skip("no AddressSanitizer");
    const { ok, output } = await simt("fault", "read past a buffer");
    expect(output).toContain(poisoned);
    expect(ok).toBe(false);
  });

  it.each(["barrier", "offered", "halves"])("finds nothing wrong with: %s", async (name) => {
    const { ok, output } = await simt("fault", name);
    expect(output).toContain(`${name}: ran to its end`);
    expect(ok).toBe(true);
  });

  it("gives float64's numbers, the same bits in every order of the threads", async () => {
    const orders = process.env.SERESNET_SIMT_ORDERS ?? "3";
    const families = await Promise.all(["images", "squeeze_excite", "tensors"].map((family) => simt(family, orders)));
    for (const { ok, output } of families) {
      console.log(output.trim());
      expect(output).toMatch(/: [1-9]\d+ cases, .* 0 failed/);
      expect(ok).toBe(true);
    }
  }, 600_000);
});

it("every kernel says what it moves and what bounds it", () => {
  const folder = join(root, "native", "cuda", "kernels");
  const silent: string[] = [];
  let count = 0;
  for (const file of readdirSync(folder).filter((name) => /\.(cu|h)$/.test(name))) {
    const lines = readFileSync(join(folder, file), "utf8").split("\n");
    for (const [i, line] of lines.entries()) {
      if (!line.startsWith("__global__")) continue;
      count++;
      let first = lines[i - 1].startsWith("template") ? i - 1 : i;
      const last = first;
      while (lines[first - 1].startsWith("//")) first--;
      const comment = lines.slice(first, last).join(" ").replaceAll(" // ", " ");
      const name = /(\w+Kernel)\(/.exec(`${line}${lines[i + 1]}`)?.[1];
      if (!/\bMoves .+ Bound: (memory|L2|latency)/.test(comment)) silent.push(`${file}: ${name}`);
    }
  }
  expect(silent).toEqual([]);
  expect(count).toBeGreaterThan(30);
});
