import { execFile, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

// The CUDA kernels without a GPU: run on the host against float64 (native/test), and compiled by nvcc to see that no
// register is spilled. SERESNET_SIMT_ORDERS says in how many orders of the threads each case runs: 3 by default.

const run = promisify(execFile);
const root = join(__dirname, "..");
const build = join(root, "build", "simt");
const folder = mkdtempSync(join(tmpdir(), "seresnet-kernels-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

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

/** What ptxas -v said of each kernel. */
function spills(report: string): { kernels: number; spilling: string[] } {
  const found = [
    ...report.matchAll(/Function properties for (\S+)\s+\d+ bytes stack frame, (\d+) bytes spill stores, (\d+) bytes/g),
  ];
  return {
    kernels: [...report.matchAll(/Compiling entry function/g)].length,
    spilling: found.flatMap(([, name, stored, loaded]) =>
      stored === "0" && loaded === "0" ? [] : [`${name}: ${stored} bytes stored, ${loaded} loaded`],
    ),
  };
}

const nvcc = ["nvcc", "/usr/local/cuda/bin/nvcc"].find(has);
if (!nvcc) console.warn("the CUDA kernels are NOT looked at for spilled registers: there is no nvcc");

describe.skipIf(!nvcc)("CUDA kernels compiled for sm_90", () => {
  const compile = async (source: string, ...options: string[]) => {
    const words = ["-std=c++20", "-O3", "-arch=sm_90", "-cubin", "-Xptxas", "-v", ...options];
    const { stderr } = await run(nvcc as string, [...words, "-o", join(folder, `${basename(source)}.cubin`), source], {
      maxBuffer: 1 << 26,
    });
    return stderr;
  };

  it("a kernel that spills is told", async () => {
    const source = join(folder, "spilling.cu");
    const values = Array.from({ length: 64 }, (_, i) => i);
    writeFileSync(
      source,
      `__global__ void spilling(float* x) {
        ${values.map((i) => `float v${i} = x[${i} * blockDim.x + threadIdx.x];`).join("\n")}
        __syncthreads();
        ${values.map((i) => `x[${i} + threadIdx.x * 64] = v${i} * v${63 - i};`).join("\n")}
      }`,
    );
    expect(spills(await compile(source, "-maxrregcount=24"))).toEqual({
      kernels: 1,
      spilling: [expect.stringMatching(/spilling\w*: [1-9]\d* bytes stored/)],
    });
  });

  it("no kernel spills", async () => {
    const sources = readdirSync(join(root, "native", "cuda", "kernels")).filter((name) => name.endsWith(".cu"));
    const waiting = [...sources];
    const reports: string[] = [];
    const worker = async () => {
      for (let name = waiting.pop(); name; name = waiting.pop())
        reports.push(await compile(join(root, "native", "cuda", "kernels", name)));
    };
    await Promise.all(Array.from({ length: availableParallelism() }, worker));
    const { kernels, spilling } = spills(reports.join("\n"));
    console.log(`ptxas: ${kernels} kernels in ${sources.length} files, ${spilling.length} spill`);
    expect(spilling).toEqual([]);
    expect(kernels).toBeGreaterThan(200);
  }, 900_000);
});
