import { listDevices } from "seresnet";
import type { DeviceName, Executor } from "#lib/devices/executor.js";
import { executorFor, resolveDevice } from "#lib/devices/resolve.js";

/** The names of the devices that work on this machine: what is said of all devices is tested on each of them. */
export const usableDevices: readonly DeviceName[] = [
  ...new Set(listDevices().flatMap(({ name, usable }) => (usable ? [name] : []))),
];

/** What runs plans on a device. */
export const executorOf = (device: DeviceName): Executor => executorFor(resolveDevice(device));

const cpu = listDevices().find(({ name }) => name === "cpu");
/** Whether the addon's own vector kernels run on this CPU. */
export const vectors = /^avx(2|512)/.test(String(cpu?.details?.isa ?? ""));
