import type { DeviceName } from "./executor.js";
export interface DeviceInfo {
  readonly name: DeviceName;
  readonly index: number;
  readonly usable: boolean;
  readonly description: string;
  readonly reason?: string;
  readonly fix?: string;
  readonly details: Readonly<Record<string, string | number | boolean | readonly string[]>>;
}
export function nativeDevices(): DeviceInfo[] {
  return [];
}
