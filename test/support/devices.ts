import { listDevices } from "seresnet";

/** The names of the devices that work on this machine: what is said of all devices is tested on each of them. */
export const usableDevices = [...new Set(listDevices().flatMap(({ name, usable }) => (usable ? [name] : [])))];

const cpu = listDevices().find(({ name }) => name === "cpu");
/** Whether the addon's own vector kernels run on this CPU. */
export const vectors = /^avx(2|512)/.test(String(cpu?.details?.isa ?? ""));
