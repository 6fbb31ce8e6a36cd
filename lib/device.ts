import { availableParallelism } from "node:os";
import { DeviceError, expected, shown } from "./errors.js";
import { cpuExecutor } from "./executors/cpu.js";
import type { DeviceName, Executor } from "./executors/executor.js";
import { type DeviceInfo, nativeDevices } from "./executors/native.js";
import { referenceExecutor } from "./executors/reference/executor.js";

export type { DeviceInfo } from "./executors/native.js";

/** Where to compute: a device by name, or `"auto"` for the first usable of cuda, cpu, reference. */
export type DeviceChoice = DeviceName | "auto";

const names: readonly DeviceName[] = ["cuda", "cpu", "reference"];

let chosen: DeviceChoice = "auto";

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
  const rank = ({ name }: DeviceInfo) => names.indexOf(name);
  return [...nativeDevices(), reference].sort((a, b) => rank(a) - rank(b));
}

/** The device a choice means, and why it was taken. */
export interface ResolvedDevice extends DeviceInfo {
  /** One sentence: why this device. */
  readonly why: string;
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
    return {
      ...device,
      why: skipped.length > 0 ? `the first that works (${skipped.join("; ")})` : "the first that works",
    };
  }
  const source = fromEnvironment ? "SERESNET_DEVICE" : "device";
  if (!names.includes(name as DeviceName))
    throw new DeviceError(expected(source, `one of auto, ${names.join(", ")}`, shown(name)));
  const candidates = devices.filter((device) => device.name === name);
  const device = candidates.find(({ usable }) => usable);
  if (device) return { ...device, why: fromEnvironment ? "SERESNET_DEVICE asks for it" : "asked for by name" };
  const fix = candidates[0]?.fix ? ` (try: ${candidates[0].fix})` : "";
  throw new DeviceError(`no usable ${name} device: ${candidates[0]?.reason ?? "this build has none"}${fix}`);
}

/** The executor for a device that `resolveDevice` returned. */
export function executorFor({ name }: DeviceInfo): Executor {
  if (name === "reference") return referenceExecutor();
  if (name === "cpu") return cpuExecutor();
  throw new DeviceError(`no usable ${name} device: this build has no executor for it`);
}

/**
 * Sets where lazy values are computed from the next flush on, in this environment (worker threads have their own).
 * Variables move when they are used.
 *
 * @throws DeviceError when the device does not work here
 */
export function setDefaultDevice(choice: DeviceChoice): void {
  resolveDevice(choice);
  chosen = choice;
  current = undefined;
}

let current: Executor | undefined;

/** The executor of the default device. */
export function defaultExecutor(): Executor {
  current ??= executorFor(resolveDevice(chosen));
  return current;
}
