import { listDevices } from "seresnet";

/** The names of the devices that work on this machine: what is said of all devices is tested on each of them. */
export const usableDevices = [...new Set(listDevices().flatMap(({ name, usable }) => (usable ? [name] : [])))];
