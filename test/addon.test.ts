import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { Worker } from "node:worker_threads";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { AddonStatus, DeviceInfo, NativeVersions } from "#lib/devices/native/addon.js";
import {
  addonStatus,
  cudnnCandidates,
  nativeDevices,
  nativeRuntime,
  nativeVersions,
} from "#lib/devices/native/addon.js";
import { kernels } from "#lib/devices/reference/kernels.js";
import { fusedOps } from "#lib/graph/fused/index.js";
import { canMakeUp, madeUpLibraries } from "./support/made_up.js";

const compiled = join(__dirname, "..", "dist", "lib", "devices", "native", "addon.js");
const status = addonStatus();
const hasAddon = status.loaded;
const canFake = hasAddon && canMakeUp;
const folder = mkdtempSync(join(tmpdir(), "seresnet-addon-"));

beforeAll(() => {
  if (!hasAddon) console.warn(`addon.test: no native addon here (${status.reason}); what needs it is not tested`);
  else if (!canFake) console.warn("addon.test: no Linux or no C compiler here; made-up drivers are not tested");
  if (hasAddon && !canBind) console.warn("addon.test: no taskset here; how many CPUs the addon counts is not tested");
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Answer {
  status: AddonStatus;
  devices: DeviceInfo[];
  versions: NativeVersions | null;
}

/** What a fresh process with these environment variables says of its devices. */
function ask(env: Record<string, string>, script = ""): Answer & { stderr: string } {
  const source = `const n = require(${JSON.stringify(compiled)}); ${script}
    const answer = { devices: n.nativeDevices(), versions: n.nativeVersions(), status: n.addonStatus() };
    process.stdout.write(JSON.stringify(answer));`;
  const child = spawnSync(process.execPath, ["-e", source], { encoding: "utf8", env: { ...process.env, ...env } });
  expect(child.signal, child.stderr).toBeNull();
  expect(child.status, child.stderr).toBe(0);
  return { ...JSON.parse(child.stdout), stderr: child.stderr };
}

function problemsOf(device: DeviceInfo): string {
  return (device.details.problems as string[]).join("\n");
}

const onOneCpu = ["-c", firstCpu()];
const canBind = hasAddon && spawnSync("taskset", [...onOneCpu, "true"]).status === 0;

function firstCpu(): string {
  if (process.platform !== "linux") return "0";
  return /^Cpus_allowed_list:\s*(\d+)/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "0";
}

it.runIf(canBind)("counts the CPUs it may use, not those of the machine", () => {
  const source = `console.log(JSON.stringify(require(${JSON.stringify(compiled)}).nativeDevices()))`;
  const child = spawnSync("taskset", [...onOneCpu, process.execPath, "-e", source], { encoding: "utf8" });
  const cpu = (JSON.parse(child.stdout) as DeviceInfo[]).find(({ name }) => name === "cpu");
  expect(cpu?.details.threads).toBe(1);
});

describe("without the addon", () => {
  const expectAbsent = ({ status, devices, versions }: Answer, reason: string | RegExp) => {
    expect(status.loaded).toBe(false);
    expect(status.reason).toMatch(reason);
    expect(versions).toBeNull();
    expect(devices.map(({ name, usable }) => ({ name, usable }))).toEqual([
      { name: "cuda", usable: false },
      { name: "cpu", usable: false },
    ]);
    for (const device of devices) expect(device).toMatchObject({ reason: status.reason, fix: status.fix });
  };

  it("says that it is switched off", () => {
    expectAbsent(ask({ SERESNET_ADDON: "none" }), "SERESNET_ADDON=none");
  });

  it("says that a file is missing, is no addon, or is another addon's", () => {
    expectAbsent(ask({ SERESNET_ADDON: join(folder, "nowhere.node") }), /not at SERESNET_ADDON=.*nowhere\.node$/);
    const text = join(folder, "text.node");
    writeFileSync(text, "not an addon");
    const answer = ask({ SERESNET_ADDON: text });
    expectAbsent(answer, "could not be loaded");
    expect(answer.status).toMatchObject({ path: text, tried: [text] });
    expect(answer.status.fix).toContain("npm run build:native");
  });

  it("says what builds it", () => {
    const answer = ask({ SERESNET_ADDON: "" });
    if (answer.status.loaded) expect(existsSync(answer.status.path as string)).toBe(true);
    else expect(answer.status.fix).toContain("npm run build:native");
    expect(answer.status.tried.length).toBeGreaterThan(0);
  });
});

describe("places where cuDNN may be", () => {
  it("come in the order: own setting, loader, CUDA, Python", () => {
    const conda = join(folder, "conda");
    mkdirSync(join(conda, "lib", "python3.12"), { recursive: true });
    const places = cudnnCandidates({ SERESNET_CUDNN: folder, CUDA_PATH: "/opt/cuda", CONDA_PREFIX: conda });
    const order = [
      join(folder, "libcudnn.so.9"),
      "libcudnn.so.9",
      "/opt/cuda/lib64/libcudnn.so.9",
      "/usr/local/cuda/lib64/libcudnn.so.9",
      join(conda, "lib/python3.12/site-packages/nvidia/cudnn/lib/libcudnn.so.9"),
    ].map((place) => places.indexOf(place));
    expect(order[0]).toBe(0);
    expect(order).toEqual(order.toSorted((a, b) => a - b));
    expect(cudnnCandidates({ SERESNET_CUDNN: "/x/libcudnn.so.9.1" })[0]).toBe("/x/libcudnn.so.9.1");
    expect(new Set(places).size).toBe(places.length);
  });
});

function testAddon() {
  it("lists the devices of this machine, each with its own reason", () => {
    const devices = nativeDevices();
    const cpu = devices.filter(({ name }) => name === "cpu");
    const cuda = devices.filter(({ name }) => name === "cuda");
    expect(cpu).toHaveLength(1);
    expect(cuda.map(({ index }) => index)).toEqual(cuda.map((_, i) => i));
    for (const device of devices) {
      expect(device.usable).toBe(device.reason === undefined);
      expect(device.fix === undefined).toBe(device.usable);
      expect(device.description).not.toBe("");
    }
    expect(cpu[0].details.threads).toBe(availableParallelism());
    if (nativeVersions()?.onednn) expect(cpu[0].details.isa).toMatch(/^[a-z]/);
    else expect(cpu[0].reason).toContain("no oneDNN");
    if (!nativeVersions()?.cuda) expect(cuda[0].reason).toContain("no CUDA");
    expect(nativeVersions()).toMatchObject({ builtBy: expect.stringMatching(/^(cmake-js|node-gyp)$/), napi: 8 });
  });

  it("leaves the JavaScript thread its CPUs, and the environment as it was", () => {
    const script = `const os = require("node:os"); const before = os.availableParallelism();
      n.addonStatus();
      if (os.availableParallelism() !== before) throw new Error("pinned to " + os.availableParallelism());
      if (process.env.OMP_PROC_BIND !== undefined) throw new Error("OMP_PROC_BIND was left behind");`;
    const unset = { OMP_PROC_BIND: undefined, GOMP_SPINCOUNT: undefined } as unknown as Record<string, string>;
    const { stderr, versions } = ask({ ...unset, OMP_DISPLAY_ENV: "verbose" }, script);
    if (versions?.onednn?.threading !== "OpenMP" || !stderr.includes("OMP_PROC_BIND")) return; // not libgomp
    expect(stderr).toContain("OMP_PROC_BIND = 'TRUE'");
    expect(stderr).toContain("GOMP_SPINCOUNT = '2000'");
    const own = ask({ OMP_PROC_BIND: "false", GOMP_SPINCOUNT: "7", OMP_DISPLAY_ENV: "verbose" });
    expect(own.stderr).toContain("OMP_PROC_BIND = 'FALSE'");
    expect(own.stderr).toContain("GOMP_SPINCOUNT = '7'");
  });

  it("refuses wrong arguments with a TypeError", () => {
    const holder = { exports: {} as { listDevices(places: unknown): unknown } };
    process.dlopen(holder, status.path as string);
    expect(() => holder.exports.listDevices("libcudnn.so.9")).toThrow(TypeError);
    expect(() => holder.exports.listDevices([1])).toThrow("expected an array of strings");
    expect(holder.exports.listDevices([])).toHaveLength(nativeDevices().length);
  });

  it("loads in 8 workers at once, 50 times, while some are terminated", { timeout: 300_000 }, () => {
    // In a process of its own: a crash ends that, not this test run.
    const script = `
      const { Worker } = require("node:worker_threads");
      const body = 'const n = require(' + JSON.stringify(${JSON.stringify(compiled)}) + ');' +
        'const port = require("node:worker_threads").parentPort; n.nativeDevices(); port.postMessage("loaded");' +
        'const more = () => { port.postMessage(n.nativeDevices().length); setImmediate(more); }; more();';
      let heard = 0, early = 0;
      const one = (i, round) => new Promise((done, fail) => {
        const worker = new Worker(body, { eval: true });
        worker.on("error", fail);
        worker.on("exit", done);
        if ((i + round) % 4 === 0) setTimeout(() => { early++; worker.terminate(); }, (i * 7 + round) % 40);
        else worker.once("message", () => { heard++; worker.terminate(); });
      });
      (async () => {
        if (process.argv[1] === "main first") require(${JSON.stringify(compiled)}).nativeDevices();
        for (let round = 0; round < Number(process.argv[2]); round++) await Promise.all(Array.from({ length: 8 }, (_, i) => one(i, round)));
        console.log(heard + " heard, " + early + " early");
      })();`;
    for (const [order, rounds] of [
      ["main first", 40],
      ["workers only", 10],
    ] as const) {
      const child = spawnSync(process.execPath, ["-e", script, order, String(rounds)], { encoding: "utf8" });
      expect(child.signal, child.stderr).toBeNull();
      expect(child.status, child.stderr).toBe(0);
      expect(child.stdout.trim()).toBe(`${rounds * 6} heard, ${rounds * 2} early`);
    }
  });

  it("answers a worker and the main thread alike", async () => {
    const source = `const n = require(${JSON.stringify(compiled)});
      require("node:worker_threads").parentPort.postMessage([n.nativeDevices(), n.nativeDevices()]);`;
    const worker = new Worker(source, { eval: true });
    const answers = await new Promise<DeviceInfo[][]>((done, fail) => worker.once("message", done).once("error", fail));
    await worker.terminate();
    expect(answers).toEqual([nativeDevices(), nativeDevices()]);
  });
}

function testDiagnosis() {
  const { library, driver, cudnn } = madeUpLibraries(folder);
  /** The CUDA devices seen with these folders on the loader's path. */
  const see = (...folders: string[]) =>
    ask({ LD_LIBRARY_PATH: folders.join(":") }).devices.filter(({ name }) => name === "cuda");
  const built = nativeVersions()?.cuda;

  it("tells a missing GPU, a broken driver and an old one apart", () => {
    expect(problemsOf(see(driver({ init: 100 }))[0])).toContain("no NVIDIA GPU: the driver finds none");
    expect(problemsOf(see(driver({ count: 0 }))[0])).toContain("no NVIDIA GPU: the driver finds none");
    expect(problemsOf(see(driver({ init: 803 }))[0])).toContain("cuInit: CUDA_ERROR_MADE_UP (803)");
    const partial = library("libcuda.so.1", "int cuInit(unsigned f) { return 0; }");
    expect(problemsOf(see(partial)[0])).toMatch(/the NVIDIA driver does not work: dlsym: .*cuGetErrorName/);
    const old = see(driver({ version: 12040 }))[0];
    expect(old.details.driver).toBe("CUDA 12.4");
    if (built) expect(old.reason).toMatch(/^the NVIDIA driver is too old: it speaks CUDA 12\.4, this build needs/);
  });

  it("lists each GPU with its facts, and what the build holds no code for", () => {
    const found = see(driver({ count: 2 }), cudnn(92400));
    expect(found).toMatchObject([
      { index: 0, description: "NVIDIA Made-up, 80 GiB, compute capability 9.0" },
      { index: 1, details: { computeCapability: "9.0", memoryBytes: 80 * 2 ** 30, cudnn: "9.24.0" } },
    ]);
    const old = see(driver({ major: 5, minor: 2 }), cudnn(92400))[0];
    if (built) expect(problemsOf(old)).toMatch(/no code for compute capability 5\.2: it holds .*sm_/);
    else expect(old.reason).toContain("this build has no CUDA");
  });

  it("lists every place without cuDNN, and names a wrong version", () => {
    const gpu = driver({});
    const withCudnn = (own: string) => ask({ SERESNET_CUDNN: own, LD_LIBRARY_PATH: gpu }).devices[0];
    const refused: [own: string, tried: RegExp, problem: RegExp][] = [
      [join(folder, "no.so"), /no\.so \(cannot open shared object file/, /no cuDNN 9: libcudnn.so.9 could not be/],
      [join(cudnn(0, "libcudnn.so.8.9.7"), "libcudnn.so.8.9.7"), /\(cuDNN 8\.9\.7\)$/, /expected 9, got 8\.9\.7 at /],
      [cudnn(100100), /\(cuDNN 10\.1\.0\)$/, /expected 9, got 10\.1\.0 at /],
      // Half an installation: the process must not abort.
      [cudnn(92400, "libcudnn.so.9", false), /with .*libcudnn_graph\.so\.9: cannot open/, /no cuDNN 9: /],
    ];
    for (const [own, place, problem] of refused) {
      const device = withCudnn(own);
      const tried = device.details.cudnnTried as string[] | undefined;
      if (tried === undefined)
        expect(device.details.cudnn).toMatch(/^9\./); // this machine has another that serves
      else {
        expect(tried[0]).toMatch(place);
        expect(tried.length).toBeGreaterThan(3);
        expect(problemsOf(device)).toMatch(problem);
      }
    }
    const good = cudnn(91002);
    const path = join(good, "libcudnn.so.9");
    expect(withCudnn(good).details).toMatchObject({ cudnn: "9.10.2", cudnnPath: path });
    // With no GPU to use it the file is found, but not loaded.
    const idle = ask({ SERESNET_CUDNN: good, LD_LIBRARY_PATH: driver({ count: 0 }) }).devices[0];
    expect(idle.details.cudnnPath).toBe(path);
    expect(idle.details).not.toHaveProperty("cudnn");
  });
}

it.runIf(hasAddon)("a device that computes has a kernel for every op: the reference's, and the fused ones", () => {
  const known = [...Object.keys(kernels), ...fusedOps.flat().map(({ name }) => name)].sort();
  const { addon } = nativeRuntime();
  const { onednn, cuda } = nativeVersions() as NativeVersions;
  expect(addon?.ops("cpu").sort()).toEqual(onednn ? known : []);
  expect(addon?.ops("cuda").sort()).toEqual(cuda ? known : []);
  expect(addon?.ops("reference")).toEqual([]);
});

if (hasAddon) describe("the addon", testAddon);
if (canFake) describe("made-up drivers and cuDNN", testDiagnosis);

it("is built from folders, of which node-gyp names those that CMake compiles in every build", () => {
  const root = join(__dirname, "..");
  const read = (name: string) => readFileSync(join(root, name), "utf8");
  const always = /GLOB SOURCES [^)]*?((?:\s+native\/\S+)+)\)/.exec(read("CMakeLists.txt"))?.[1] ?? "";
  const folders = always
    .trim()
    .split(/\s+/)
    .map((glob) => dirname(glob));
  const [, command = ""] = /<!@\(node -p \\"(.*)\\"\)"/.exec(read("binding.gyp")) ?? [];
  const sources = execFileSync(process.execPath, ["-p", command], { cwd: root, encoding: "utf8" }).trim().split(" ");
  expect(sources.filter((source) => !existsSync(join(root, source)))).toEqual([]);
  expect([...new Set(sources.map((source) => dirname(source)))].sort()).toEqual(folders.sort());
  expect(folders.length).toBeGreaterThan(3);
});
