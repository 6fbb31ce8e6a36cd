import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { compile, DeviceError, listDevices, nn } from "seresnet";
import { afterAll, describe, expect, it, test } from "vitest";
import type { DeviceInfo } from "#lib/devices/native/addon.js";
import { addonStatus, nativeVersions } from "#lib/devices/native/addon.js";
import { canMakeUp, madeUpLibraries } from "./support/made_up.js";

// What the device "cuda" says where it cannot work, each cause in a sentence and with a code of its own. Drivers and cuDNN
// are made up here; what only an open device refuses (memoryLimit, a dtype that an old card lacks) is in cuda.test.ts.
const folder = mkdtempSync(join(tmpdir(), "seresnet-refusals-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const root = join(__dirname, "..");

const { loaded, path, reason } = addonStatus();
const canTell = loaded && canMakeUp;
if (!canTell) console.warn(`LEFT OUT the refusals of CUDA: ${reason ?? "no Linux with a C compiler"}`);
const built = nativeVersions()?.cuda;
const { driver, cudnn } = madeUpLibraries(folder);

/** Runs JavaScript in a process of its own with these folders on the loader's path, and gives back what it prints as JSON. */
function run<T>(folders: readonly string[], source: string, ...args: string[]): T {
  const env = { ...process.env, LD_LIBRARY_PATH: folders.join(":") };
  const child = spawnSync(process.execPath, ["-e", source, ...args], { encoding: "utf8", env, cwd: root });
  expect(child.signal, child.stderr).toBeNull();
  expect(child.status, child.stderr).toBe(0);
  return JSON.parse(child.stdout);
}

/** The first device "cuda" where cuDNN may be in one place and in no other. */
function see(place: string, ...folders: string[]): DeviceInfo {
  const source = `const holder = { exports: {} };
    process.dlopen(holder, process.argv[1]);
    console.log(JSON.stringify(holder.exports.listDevices([process.argv[2]])));`;
  return run<DeviceInfo[]>(folders, source, path as string, place)[0];
}

const good = () => join(cudnn(92400), "libcudnn.so.9");

/** What `compile` throws when it is asked for a device. */
function refusal(device: string, folders: readonly string[]): { name: string; code: string; message: string } {
  const source = `const { compile, nn } = require("seresnet");
    compile(new nn.Conv2d(2, 2, { kernelSize: 1 }), { device: process.argv[1], inputShape: [1, 2, 3, 3] }).then(
      () => console.log(JSON.stringify({ message: "it did not refuse" })),
      ({ name, code, message }) => console.log(JSON.stringify({ name, code, message })));`;
  return run(folders, source, device);
}

describe.runIf(canTell)("the device cuda where it cannot work", () => {
  const none = () => {
    const place = mkdtempSync(join(folder, "none-"));
    writeFileSync(join(place, "libcuda.so.1"), "no library"); // so that a real one is not found either
    return place;
  };
  const causes: [code: string, sentence: RegExp, see: () => DeviceInfo][] = [
    ["ERR_CUDA_NO_DRIVER", /^no NVIDIA driver: libcuda\.so\.1 could not be loaded$/, () => see(good(), none())],
    ["ERR_CUDA_NO_DEVICE", /^no NVIDIA GPU: the driver finds none$/, () => see(good(), driver({ count: 0 }))],
    [
      "ERR_CUDA_DRIVER",
      /^the NVIDIA driver does not work: cuInit: .*\(803\)$/,
      () => see(good(), driver({ init: 803 })),
    ],
    [
      "ERR_CUDA_DRIVER_TOO_OLD",
      /^the NVIDIA driver is too old: it speaks CUDA 12\.4, this build needs CUDA \d+$/,
      () => see(good(), driver({ version: 12040 })),
    ],
    [
      "ERR_CUDA_CAPABILITY",
      /^this build has no code for compute capability 5\.2: it holds .*sm_/,
      () => see(good(), driver({ major: 5, minor: 2 })),
    ],
    [
      "ERR_CUDNN_MISSING",
      /^no cuDNN 9: libcudnn\.so\.9 could not be loaded from any of 1 place$/,
      () => see(join(folder, "no.so"), driver({})),
    ],
    [
      "ERR_CUDNN_VERSION",
      /^cuDNN has the wrong version: expected 9, got 8\.9\.7 at /,
      () => see(join(cudnn(0, "libcudnn.so.8.9.7"), "libcudnn.so.8.9.7"), driver({})),
    ],
  ];
  const ofTheBuild = new Set(["ERR_CUDA_DRIVER_TOO_OLD", "ERR_CUDA_CAPABILITY"]);
  const seen = built ? causes : causes.filter(([code]) => !ofTheBuild.has(code));

  it.each(seen)("%s has a sentence of its own, and what mends it", (code, sentence, seeIt) => {
    const device = seeIt();
    expect(device).toMatchObject({ name: "cuda", usable: false });
    // a build without CUDA says that first
    if (built) expect(device).toMatchObject({ code, reason: expect.stringMatching(sentence) });
    const [own] = (device.details.problems as string[]).filter((problem) => sentence.test(problem.split("; fix: ")[0]));
    expect(own, String(device.details.problems)).toMatch(/; fix: \S/);
    const others = causes
      .filter(([other]) => other !== code)
      .filter(([, other]) => other.test(own.split("; fix: ")[0]));
    expect(others).toEqual([]);
  });

  it("ERR_CUDA_DEVICE_INDEX: a GPU by a number that none has", () => {
    expect(refusal("cuda:7", [driver({ count: 2 })])).toEqual({
      name: "DeviceError",
      code: "ERR_CUDA_DEVICE_INDEX",
      message: "device: expected cuda:0, cuda:1, got cuda:7",
    });
  });

  it("compile refuses in one sentence with the code of the cause", () => {
    const { name, code, message } = refusal("cuda", [driver({ count: 0 })]);
    expect(name).toBe("DeviceError");
    expect(code).toBe(built ? "ERR_CUDA_NO_DEVICE" : "ERR_CUDA_BUILD");
    expect(message).toMatch(/^no usable cuda device: [^\n]+ \(try: [^\n]+\)$/);
  });
});

const cuda = listDevices().find(({ name }) => name === "cuda");
const linked = built && !String(cuda?.details.problems).includes("no CUDA executor");
if (!linked)
  console.warn("LEFT OUT the linked CUDA executor: the addon was built without nvcc, or with SERESNET_CUDA=0");

describe.runIf(linked)("the addon with the CUDA executor linked", () => {
  it("holds machine code and PTX, and is loaded here", () => {
    expect(loaded).toBe(true);
    const archs = nativeVersions()?.cuda?.archs ?? [];
    expect(archs.some((arch) => arch.startsWith("sm_"))).toBe(true);
    expect(archs.some((arch) => arch.startsWith("compute_"))).toBe(true);
    expect(statSync(path as string).size).toBeGreaterThan(5e6);
  });

  test.skipIf(cuda?.usable)(
    "without a GPU inspect tells why, and asking for cuda is refused with the same code",
    async () => {
      expect(cuda?.code).toMatch(/^ERR_CU/);
      const inspect = spawnSync(process.execPath, [join(root, "dist/lib/cli/main.js"), "inspect"], {
        encoding: "utf8",
      });
      expect(inspect.status, inspect.stderr).toBe(0);
      expect(inspect.stdout).toContain(cuda?.reason);
      expect(inspect.stdout).not.toContain("no CUDA executor");
      const asked = compile(new nn.Linear(2, 2), { device: "cuda" });
      await expect(asked).rejects.toBeInstanceOf(DeviceError);
      await expect(asked).rejects.toMatchObject({
        code: cuda?.code,
        message: expect.stringContaining(cuda?.reason ?? ""),
      });
    },
  );

  it.runIf(canTell && nativeVersions()?.cudnn)(
    "a driver that breaks when it is used fails the call that used it, and nothing else",
    () => {
      const place = cudnn(92400);
      const { name, message } = refusal("cuda", [driver({}), place]);
      expect(name).toBe("DeviceError");
      expect(message).toMatch(/^cuda[A-Z]\w+: cudaError\w+: [^\n]+$/); // the CUDA runtime's call and what it said
    },
  );
});

/** What ptxas said of each kernel. */
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

describe.runIf(linked)("the kernels as they were linked", () => {
  it("a kernel that spills is told", () => {
    const source = join(folder, "spilling.cu");
    const object = join(folder, "spilling.o");
    const values = Array.from({ length: 64 }, (_, i) => i);
    writeFileSync(
      source,
      `__global__ void spilling(float* x) {
        ${values.map((i) => `float v${i} = x[${i} * blockDim.x + threadIdx.x];`).join("\n")}
        __syncthreads();
        ${values.map((i) => `x[${i} + threadIdx.x * 64] = v${i} * v${63 - i};`).join("\n")}
      }`,
    );
    const cache = readFileSync(join(root, "build/cmake/CMakeCache.txt"), "utf8");
    const nvcc = /^CMAKE_CUDA_COMPILER:\w+=(.+)$/m.exec(cache)?.[1] as string;
    const words = [join(root, "native/nvcc.sh"), nvcc, "-arch=sm_90", "-Xptxas=-v", "-maxrregcount=24", "-c", source];
    const build = spawnSync("sh", [...words, "-o", object], { encoding: "utf8" });
    expect(build.status, build.stderr).toBe(0);
    expect(spills(readFileSync(`${object}.ptxas`, "utf8"))).toEqual({
      kernels: 1,
      spilling: [expect.stringMatching(/spilling\w*: [1-9]\d* bytes stored/)],
    });
  });

  it("none spills", (context) => {
    const kernels = join(root, "native/cuda/kernels");
    const objects = join(root, "build/cmake/CMakeFiles/seresnet.dir/native/cuda/kernels");
    const sources = readdirSync(kernels).filter((name) => name.endsWith(".cu"));
    const reports = sources.map((name) => join(objects, `${name}.o.ptxas`));
    const old = sources.filter((name, i) => statSync(reports[i]).mtimeMs < statSync(join(kernels, name)).mtimeMs);
    if (old.length > 0) return context.skip(`LEFT OUT: ${old} changed after the build`);
    const { kernels: count, spilling } = spills(reports.map((report) => readFileSync(report, "utf8")).join("\n"));
    console.log(`ptxas: ${count} kernels in ${sources.length} files, ${spilling.length} spill`);
    expect(spilling).toEqual([]);
    expect(count).toBeGreaterThan(200);
  });
});
