import { DeviceError } from "../../errors.js";
import type { Executor } from "../executor.js";
import { nativeRuntime } from "./addon.js";
import { NativeExecutor } from "./executor.js";

let executor: Executor | undefined;

/**
 * The oneDNN executor of this environment (the main thread, or one worker thread); the first call makes it.
 * @throws DeviceError when the addon is not loaded or was built without oneDNN
 */
export function cpuExecutor(): Executor {
  if (executor) return executor;
  const { addon, reason } = nativeRuntime();
  if (!addon) throw new DeviceError(`no usable cpu device: ${reason}`);
  try {
    executor = new NativeExecutor("cpu", new Set(addon.ops("cpu")), true, addon, addon.open("cpu"));
    return executor;
  } catch (cause) {
    throw new DeviceError(`no usable cpu device: ${(cause as Error).message}`, { cause });
  }
}
