import { existsSync, readdirSync, statSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import bindings from "bindings";
import type { DType, HostArray } from "../../dtype.js";
import { absolute, packageRoot } from "../../paths.js";
import type { Plan } from "../../plan/plan.js";
import type { DeviceName, LoadOptions, StepProfile } from "../executor.js";
import { isCheckout, platformName, prebuiltPlatform, remedies, withRemedies } from "../remedies.js";

/** One device of this machine: what it is, whether it works and, if not, why not and what mends it. */
export interface DeviceInfo {
  readonly name: DeviceName;
  /** Counts the devices of one name, from 0. */
  readonly index: number;
  readonly usable: boolean;
  readonly description: string;
  /** Why the device cannot be used: one sentence, the most fundamental cause. Absent when it can. */
  readonly reason?: string;
  /** The same for programs: "ERR_CUDA_NO_DRIVER" and the like. */
  readonly code?: string;
  /** The command or the act that mends it. */
  readonly fix?: string;
  /** Facts by name; `problems` lists every cause when there are several. */
  readonly details: Readonly<Record<string, string | number | boolean | readonly string[]>>;
}

/** What the addon was built from and which versions it runs on; null for each part the build lacks. */
export interface NativeVersions {
  readonly builtBy: "cmake-js" | "node-gyp";
  /** The Node-API version it needs. */
  readonly napi: number;
  readonly onednn: { readonly compiled: string; readonly runtime: string; readonly threading: string } | null;
  readonly cuda: { readonly archs: readonly string[]; readonly runtime: string } | null;
  /** Version of cuDNN's headers; the library is looked for at run time (`nativeDevices`). */
  readonly cudnn: { readonly compiled: string } | null;
}

/** Whether the addon is loaded in this environment. */
export interface AddonStatus {
  readonly loaded: boolean;
  /** The file that was loaded, or that was found and could not be. */
  readonly path?: string;
  /** Where the file comes from, and why no other was taken. */
  readonly origin?: string;
  readonly reason?: string;
  readonly fix?: string;
  /** Every file that was looked for. */
  readonly tried: readonly string[];
}

declare const handle: unique symbol;
/** The runtime's objects, opaque to JavaScript and checked by the addon. */
export type DeviceHandle = { readonly [handle]: "device" };
export type BufferHandle = { readonly [handle]: "buffer" };
export type PlanHandle = { readonly [handle]: "plan" };
export type ImageThreadHandle = { readonly [handle]: "image thread" };

/** What one kernel took; `step` is an index into the plan's steps, or -1. */
export type KernelTime = Omit<StepProfile, "layer"> & {
  readonly step: number;
  /** Floating-point operations of its products of matrices, where the executor says so: cuda's does. */
  readonly flops: number;
};

/** How a plan is timed with everything on the device. */
export interface TimingOptions {
  /** Each gives a time; the median per kernel is reported. Default 5. */
  readonly rounds?: number;
  /** Runs that follow each other in a round, default 1. */
  readonly calls?: number;
  /** Bytes to copy for memory's speed, and to flush the caches with before each kernel; without it both are left out. */
  readonly scratch?: number;
}

export interface Timing {
  /** Milliseconds of one run by itself until the host knows that it is done, one a round. */
  readonly latencies: readonly number[];
  /** Milliseconds of one run among those that follow each other, one a round. */
  readonly milliseconds: readonly number[];
  /** One after the other, with nothing in the caches. */
  readonly kernels: readonly KernelTime[];
  /** Bytes a second that a copy on the device reads and writes together. */
  readonly copied: number;
  /** The most bytes of memory that the device's plans and buffers have taken at any time. */
  readonly most: number;
  /** Why runs are not put on the device with one call; empty where they are. */
  readonly notReplayed: string;
}

/** The part of the addon that computes: native/node/runtime.h. Its errors carry `code` and `call`. */
export interface NativeRuntime {
  open(device: DeviceName, options?: object): DeviceHandle;
  /** The ops that a device has kernels for, fused ones too. */
  ops(device: DeviceName): string[];
  halt(device: DeviceHandle): void;
  upload(device: DeviceHandle, data: HostArray, dtype: DType): Promise<BufferHandle>;
  read(buffer: BufferHandle): Promise<HostArray>;
  release(buffer: BufferHandle): void;
  load(device: DeviceHandle, plan: Plan, constants: readonly HostArray[], options?: LoadOptions): Promise<PlanHandle>;
  /** `shared`: large inputs are not copied. Not in a worker thread, whose memory may go before what reads it. */
  run(
    plan: PlanHandle,
    inputs: readonly HostArray[],
    variables: readonly BufferHandle[],
    shared?: boolean,
  ): { id: number; result: Promise<{ outputs: HostArray[]; written: BufferHandle[] }> };
  profile(
    plan: PlanHandle,
    inputs: readonly HostArray[],
    variables: readonly BufferHandle[],
  ): { id: number; result: Promise<KernelTime[]> };
  time(
    plan: PlanHandle,
    inputs: readonly HostArray[],
    variables: readonly BufferHandle[],
    options: TimingOptions,
  ): { id: number; result: Promise<Timing> };
  drop(device: DeviceHandle, id: number, reason: unknown): boolean;
  dispose(plan: PlanHandle): Promise<void>;
  kernels(plan: PlanHandle): string[];
}

/** How the addon makes an image for a network of decoded samples: native/image/prepare.h. */
export interface NativePreparation {
  readonly width: number;
  readonly height: number;
  readonly channels: number;
  readonly colours: "plain" | "cmyk" | "gif";
  /** Of a GIF: what its frame draws, [left, top, width, height], and the colour behind it. */
  readonly drawn?: readonly number[];
  readonly background?: readonly number[];
  readonly across: NativeTaps;
  readonly down: NativeTaps;
  readonly transposed: boolean;
  readonly outputChannels: 1 | 3;
  readonly canvas?: {
    readonly side: number;
    readonly left: number;
    readonly top: number;
    readonly fill: readonly number[];
  };
  readonly table?: Float32Array;
  /** False for tests: as on a CPU without AVX2. The bytes are the same. */
  readonly vectors?: boolean;
}

/** Taps of lib/image/resize.ts. */
interface NativeTaps {
  readonly first: Int32Array;
  readonly count: Int32Array;
  readonly weights: Int32Array;
  readonly stride: number;
}

/** The part of the addon that prepares images: native/node/images.h. */
export interface NativeImages {
  openImages(): ImageThreadHandle;
  /** Detaches the samples. Floats where there is a table. */
  prepareImage(
    thread: ImageThreadHandle,
    samples: Uint8Array,
    preparation: NativePreparation,
  ): Promise<Uint8Array | Float32Array>;
  /** The same on this thread: for worker threads, whose buffers go before the threads that read them when they are ended. */
  prepareImageHere(samples: Uint8Array, preparation: NativePreparation): Uint8Array | Float32Array;
}

/** A convolution as `cudnnSupport` takes it. `pass` is forward when left out; the flags name parts of its epilogue. */
export interface ConvolutionQuery {
  readonly input: readonly number[];
  readonly weight: readonly number[];
  readonly stride: readonly number[];
  readonly padding: readonly number[];
  readonly dtype: "float32" | "tf32" | "float16" | "bfloat16";
  readonly pass?: "forward" | "inputGradient" | "weightGradient";
  /** Bytes that the addresses of the input, the weight and the output are multiples of; 16 where it is left out. */
  readonly alignment?: readonly [number, number, number];
  readonly gate?: boolean;
  readonly bias?: boolean;
  readonly residual?: boolean;
  readonly relu?: boolean;
}

/** How cuDNN could compute a convolution on a device. */
export interface ConvolutionSupport {
  readonly convolution: string;
  /** Engine configurations, and how many of them are compiled at run time. */
  readonly configurations: number;
  readonly compiled: number;
  /** The engine of the first that could be made into a plan; "" for none. */
  readonly plan: string;
  readonly milliseconds: number;
}

/** The exports of native/addon.cc. */
interface Addon extends NativeRuntime, NativeImages {
  cudnnSupport(file: string, properties: string, convolutions: readonly ConvolutionQuery[]): ConvolutionSupport[];
  listDevices(cudnn: readonly string[]): DeviceInfo[];
  versions(): NativeVersions;
}

/** Packages with a prebuilt addon, best first: npm installs the second along with seresnet, the first where it is asked to. */
const platformPackages = [`@seresnet/${prebuiltPlatform}-cuda13`, `@seresnet/${prebuiltPlatform}`];

/** Settings of the OpenMP runtime that 5x and 15x hang on: bound threads, and little spinning beside a busy process. */
const openMp = { OMP_PROC_BIND: "true", GOMP_SPINCOUNT: "2000" } as const;

let found: { addon?: Addon; status: AddonStatus } | undefined;

/** Whether the native addon is loaded here, from where, or why not. Loads it on the first call; never throws. */
export function addonStatus(): AddonStatus {
  return load().status;
}

/**
 * Every native device, CUDA first, usable or not. Without the addon each is listed as unusable with the reason; never
 * throws. Asks the driver each time: some milliseconds, more on the first call.
 */
export function nativeDevices(): DeviceInfo[] {
  const { addon, status } = load();
  const { fix, tried } = status;
  let { reason } = status;
  try {
    if (addon) return addon.listDevices(cudnnCandidates()).map(inOurWords);
  } catch (error) {
    reason = `the native addon could not tell its devices: ${(error as Error).message}`;
  }
  const absent = { index: 0, usable: false, reason, fix, details: { tried } };
  return [
    {
      name: "cuda",
      description: "NVIDIA GPU",
      ...absent,
      fix: status.fix === remedies().cpu ? remedies().cuda : status.fix,
    },
    { name: "cpu", description: "CPU with oneDNN", ...absent },
  ];
}

/** The device with its remedies spelled out. */
function inOurWords(device: DeviceInfo): DeviceInfo {
  const { fix, details } = device;
  const problems = details.problems as readonly string[] | undefined;
  return {
    ...device,
    ...(fix !== undefined && { fix: withRemedies(fix) }),
    ...(problems && { details: { ...details, problems: problems.map(withRemedies) } }),
  };
}

/** Versions of the addon and its libraries, or null when the addon is not loaded. */
export function nativeVersions(): NativeVersions | null {
  return load().addon?.versions() ?? null;
}

/**
 * Asks cuDNN how it would compute convolutions on a device that need not be there. cuDNN aborts the process where a part
 * of it is missing, so this is for processes of their own.
 *
 * @param file libcudnn.so.9
 * @param properties the device's, as cuDNN's JSON
 * @throws Error with `code` when cuDNN is not there, is older than 9.11, or fails
 */
export function cudnnSupport(
  file: string,
  properties: string,
  convolutions: readonly ConvolutionQuery[],
): ConvolutionSupport[] {
  const { addon, status } = load();
  if (!addon) throw new Error(status.reason);
  return addon.cudnnSupport(file, properties, convolutions);
}

/** The addon's runtime, or why it is not there. */
export function nativeRuntime(): { addon?: NativeRuntime; reason?: string } {
  const { addon, status } = load();
  return addon ? { addon } : { reason: status.reason };
}

/** The addon's image threads, or undefined where there is no addon. */
export function nativeImages(): NativeImages | undefined {
  return load().addon;
}

function load(): { addon?: Addon; status: AddonStatus } {
  found ??= open(process.env.SERESNET_ADDON);
  return found;
}

/** `override` is a file, "none" for no addon at all, or empty for the one that was built in this package. */
function open(override: string | undefined): { addon?: Addon; status: AddonStatus } {
  if (override === "none") {
    const fix = "unset SERESNET_ADDON";
    return {
      status: { loaded: false, reason: "the native addon is switched off: SERESNET_ADDON=none", fix, tried: [] },
    };
  }
  if (override) {
    const path = absolute(override);
    const fix = `set SERESNET_ADDON to a built seresnet.node, or unset it and run: ${remedies().build}`;
    if (!existsSync(path)) {
      const reason = `the native addon is not at SERESNET_ADDON=${override}`;
      return { status: { loaded: false, reason, fix, tried: [path] } };
    }
    return tryFile(path, "SERESNET_ADDON names it", fix, [path]);
  }
  return openFirst();
}

/** The first addon that loads, of the platform packages and the local build; why not the others is told either way. */
function openFirst(): { addon?: Addon; status: AddonStatus } {
  const tried: string[] = [];
  const faults: string[] = [];
  for (const [origin, { path, looked }] of candidates()) {
    tried.push(...looked);
    if (path === undefined) continue;
    const why = faults.length > 0 ? `${origin}, because ${faults.join("; ")}` : origin;
    const { addon, status } = tryFile(path, why, remedies().cpu, tried);
    if (addon) return { addon, status };
    faults.push(status.reason ?? path);
    if (origin === localBuild) return { status: { ...status, reason: faults.join("; ") } };
  }
  const reason = faults.length > 0 ? faults.join("; ") : `the native addon is not built${notInstalled()}`;
  return { status: { loaded: false, reason, fix: remedies().cpu, tried } };
}

/** Why there is no prebuilt addon either. */
function notInstalled(): string {
  if (isCheckout) return "";
  const platform = platformName();
  return platform === prebuiltPlatform
    ? ` and ${platformPackages[1]} is not installed`
    : `, and there is no prebuilt one for ${platform}`;
}

const localBuild = "the local build";

function* candidates(): Iterable<[origin: string, place: { path?: string; looked: readonly string[] }]> {
  for (const name of platformPackages) {
    let path: string | undefined;
    try {
      path = require.resolve(name);
    } catch {
      // not installed, which is nothing unusual
    }
    yield [`the platform package ${name}`, { path, looked: [path ?? name] }];
  }
  const { path, tried } = locate();
  yield [localBuild, { path: path !== undefined && existsSync(path) ? path : undefined, looked: tried }];
}

function tryFile(
  path: string,
  origin: string,
  fix: string,
  tried: readonly string[],
): { addon?: Addon; status: AddonStatus } {
  try {
    const addon = withOpenMpSettings(() => loadFile(path));
    const missing = (["listDevices", "versions", "ops", "run", "halt", "prepareImageHere"] as const).filter(
      (name) => typeof addon[name] !== "function",
    );
    if (missing.length === 0) return { addon: addon as Addon, status: { loaded: true, path, origin, tried } };
    const reason = `the native addon ${path} is not of this version of seresnet: it lacks ${missing.join(", ")}`;
    return { status: { loaded: false, path, reason, fix, tried } };
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    const reason = `the native addon ${path} could not be loaded: ${why}`;
    return { status: { loaded: false, path, reason, fix, tried } };
  }
}

function locate(): { path?: string; tried: readonly string[] } {
  try {
    const path: string = bindings({ bindings: "seresnet", module_root: packageRoot, path: true } as bindings.Options);
    return { path, tried: [path] };
  } catch (error) {
    return { tried: (error as { tries?: string[] }).tries ?? [] };
  }
}

/** Not `require`, which would run a file that is not called *.node as JavaScript. */
function loadFile(path: string): Partial<Addon> {
  const holder: { exports: Partial<Addon> } = { exports: {} };
  process.dlopen(holder, path, constants.dlopen.RTLD_NOW);
  return holder.exports;
}

/**
 * libgomp reads its settings from the process's environment when it is loaded, along with the addon. They are set only
 * for that moment, so that child processes do not inherit them, and never over the user's own. In a worker thread
 * `process.env` is a copy that libgomp does not see: a program that uses seresnet in workers only should load it in the
 * main thread first, or set the two variables itself.
 */
function withOpenMpSettings<T>(action: () => T): T {
  const ours = Object.entries(openMp).filter(([name]) => process.env[name] === undefined);
  for (const [name, value] of ours) process.env[name] = value;
  try {
    return action();
  } finally {
    for (const [name] of ours) delete process.env[name];
  }
}

/**
 * The places where cuDNN 9 may be, in order: SERESNET_CUDNN (a file or a folder), the loader's own path, CUDA's folders,
 * then pip's and conda's `nvidia/cudnn/lib` under .venv, VIRTUAL_ENV and CONDA_PREFIX. They are gathered here because a
 * worker has its own environment variables, which native code cannot see.
 */
export function cudnnCandidates(env: NodeJS.ProcessEnv = process.env): string[] {
  const library = "libcudnn.so.9";
  const { SERESNET_CUDNN: own, CUDA_PATH, CUDA_HOME, VIRTUAL_ENV, CONDA_PREFIX } = env;
  const folders: string[] = [];
  for (const root of [CUDA_PATH, CUDA_HOME, "/usr/local/cuda"]) {
    if (root) folders.push(join(root, "lib64"), join(root, "lib"), join(root, "targets", "x86_64-linux", "lib"));
  }
  for (const root of [join(packageRoot, ".venv"), absolute(".venv"), VIRTUAL_ENV, CONDA_PREFIX]) {
    if (!root) continue;
    if (root === CONDA_PREFIX) folders.push(join(root, "lib"));
    folders.push(...sitePackages(root).map((site) => join(site, "nvidia", "cudnn", "lib")));
  }
  const first = own ? (isFolder(own) ? [join(own, library), join(own, "lib", library)] : [own]) : [];
  return [...new Set([...first, library, ...folders.map((folder) => join(folder, library))])];
}

function sitePackages(root: string): string[] {
  const lib = join(root, "lib");
  const versions = namesIn(lib).filter((name) => name.startsWith("python"));
  return (versions.length > 0 ? versions.sort() : ["python*"]).map((name) => join(lib, name, "site-packages"));
}

/** What cannot be looked at is not there: the places that were tried are told. */
function isFolder(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch {
    return false;
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
