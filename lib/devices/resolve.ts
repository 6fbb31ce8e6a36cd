import { availableParallelism } from "node:os";
import { getEnvironmentData, setEnvironmentData } from "node:worker_threads";
import { DeviceError, expected, shown } from "../errors.js";
import type { DeviceName, Executor } from "./executor.js";
import { type DeviceInfo, nativeDevices } from "./native/addon.js";
import { cpuExecutor } from "./native/cpu.js";
import { type CudaOptions, checkCudaOptions, cudaExecutor } from "./native/cuda.js";
import { referenceExecutor } from "./reference/executor.js";

export type { DeviceInfo } from "./native/addon.js";

/** Where to compute: a device by name (`"cuda:1"` is the second GPU), or `"auto"` for the first usable of cuda, cpu, reference. */
export type DeviceChoice = DeviceName | `cuda:${number}` | "auto";

const names: readonly DeviceName[] = ["cuda", "cpu", "reference"];
const order: readonly DeviceName[] = [...names, "cuda-sim"];

let chosen: DeviceChoice = "auto";
let cudaOptions: CudaOptions = {};

/** Every device this machine could have, in the order `"auto"` tries them: usable or not, and why not. Never throws. */
export function listDevices(): DeviceInfo[] {
  const threads = availableParallelism();
  const reference: DeviceInfo = {
    name: "reference",
    index: 0,
    usable: true,
    description: `pure TypeScript, ${threads} threads`,
    details: { node: process.version, threads },
  };
  const rank = ({ name }: DeviceInfo) => order.indexOf(name);
  return [...nativeDevices(), reference].sort((a, b) => rank(a) - rank(b));
}

/** The device a choice means, and why it was taken. */
export interface ResolvedDevice extends DeviceInfo {
  /** One sentence: why this device. */
  readonly why: string;
  /** What the machine could do better, why it does not, and what mends that: one sentence. Only where `"auto"` chose. */
  readonly slower?: string;
}

/**
 * What a machine loses that has to make do with this device: the addon, or a GPU that is there and does not work.
 * SE-ResNet-50 at batch 1 on two threads took 31 times as long on the reference as on oneDNN (`seresnet bench`).
 */
function lossOf(device: DeviceInfo, devices: readonly DeviceInfo[]): string | undefined {
  const gpu = devices.find(({ usable, details }) => !usable && details.computeCapability !== undefined);
  const absent = gpu ?? (device.name === "reference" ? devices.find(({ name }) => name === "cpu") : undefined);
  if (!absent || device.name === "cuda") return undefined;
  const speed = device.name === "reference" ? ", which takes about thirty times as long as the native addon" : "";
  const fix = absent.fix === undefined ? "" : `; remedy: ${absent.fix}`;
  return `computing on the device ${device.name}${speed}, because ${absent.reason ?? "no other works"}${fix}`;
}

/**
 * Resolves a choice. `"auto"` takes `SERESNET_DEVICE` if it is set, else the first usable device.
 * Asking for one by name never falls back.
 *
 * @throws DeviceError when the device named does not exist or does not work here, saying why and what would help
 */
export function resolveDevice(choice: DeviceChoice = "auto"): ResolvedDevice {
  const override = process.env.SERESNET_DEVICE;
  const fromEnvironment = choice === "auto" && override !== undefined && override !== "" && override !== "auto";
  const name = fromEnvironment ? override : choice;
  const devices = listDevices();
  if (name === "auto") {
    const skipped = devices.filter(({ usable }) => !usable).map((device) => `${device.name}: ${device.reason}`);
    const device = devices.find(({ usable }) => usable) as DeviceInfo;
    const why = skipped.length > 0 ? `the first that works (${skipped.join("; ")})` : "the first that works";
    return { ...device, why, slower: lossOf(device, devices) };
  }
  const source = fromEnvironment ? "SERESNET_DEVICE" : "device";
  const why = fromEnvironment ? "SERESNET_DEVICE asks for it" : "asked for by name";
  const kind = typeof name === "string" && /^cuda:\d+$/.test(name) ? "cuda" : name;
  const candidates = devices.filter((device) => device.name === kind);
  if (!names.includes(kind as DeviceName) && candidates.length === 0)
    throw new DeviceError(expected(source, `one of auto, ${names.join(", ")}`, shown(name)));
  if (kind !== name) return { ...numbered(source, name, candidates), why };
  const device = candidates.find(({ usable }) => usable);
  if (device) return { ...device, why };
  throw unusable(kind, candidates[0]);
}

/** The GPU that "cuda:1" names. Machines without any list one entry that says why. */
function numbered(source: string, name: string, candidates: readonly DeviceInfo[]): DeviceInfo {
  const index = Number(name.slice("cuda:".length));
  const device = candidates.find((candidate) => candidate.index === index);
  const none = candidates.length === 1 && candidates[0].details.computeCapability === undefined;
  if (none && !device) throw unusable("cuda", candidates[0]);
  if (!device) {
    const known = candidates.map((candidate) => `cuda:${candidate.index}`).join(", ");
    throw new DeviceError(expected(source, known, name), { code: "ERR_CUDA_DEVICE_INDEX" });
  }
  if (!device.usable) throw unusable(name, device);
  return device;
}

function unusable(name: string, device?: DeviceInfo): DeviceError {
  const fix = device?.fix ? ` (try: ${device.fix})` : "";
  const tried = device?.details.cudnnTried as readonly string[] | undefined;
  const message = `no usable ${name} device: ${device?.reason ?? "this build has none"}${fix}`;
  return new DeviceError(message, { code: device?.code, tried });
}

const warned = "seresnet: told of a slow device";

/**
 * Warns, once a process, where `"auto"` had to take the reference: a process warning of type `SeresnetWarning` and code
 * `SERESNET_REFERENCE`, one line on stderr. Asking for the reference by name or through SERESNET_DEVICE does not warn.
 */
function warnOfReference({ name, slower }: DeviceInfo & { slower?: string }): void {
  if (name !== "reference" || slower === undefined || getEnvironmentData(warned)) return;
  setEnvironmentData(warned, true); // workers started from now on inherit it
  process.emitWarning(slower, { type: "SeresnetWarning", code: "SERESNET_REFERENCE" });
}

/** The executor for a device that `resolveDevice` returned. */
export function executorFor(device: DeviceInfo): Executor {
  warnOfReference(device);
  if (device.name === "reference") return referenceExecutor();
  if (device.name === "cpu") return cpuExecutor();
  return cudaExecutor(device, cudaOptions);
}

/**
 * Sets where lazy values are computed from the next flush on, in this environment (worker threads have their own).
 * Variables move when they are used.
 *
 * @param options of the device cuda, for whatever is opened from now on, models compiled for it included
 * @throws DeviceError when the device does not work here, ArgumentError for options that are none
 */
export function setDefaultDevice(choice: DeviceChoice, options: CudaOptions = {}): void {
  const checked = checkCudaOptions("setDefaultDevice", options);
  resolveDevice(choice);
  chosen = choice;
  cudaOptions = checked;
  current = undefined;
}

let current: Executor | undefined;

/** The executor of the default device. */
export function defaultExecutor(): Executor {
  current ??= executorFor(resolveDevice(chosen));
  return current;
}
