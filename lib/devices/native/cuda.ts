import { join } from "node:path";
import { ArgumentError, DeviceError, expected, shown } from "../../errors.js";
import { checkOptions, type OptionNames } from "../../options.js";
import { userCache } from "../../paths.js";
import type { Executor } from "../executor.js";
import { type DeviceInfo, nativeRuntime } from "./addon.js";
import { NativeExecutor } from "./executor.js";

/** How the device "cuda" is used in this environment. */
export interface CudaOptions {
  /** Most bytes of device memory to take. Default: what the device has. */
  readonly memoryLimit?: number;
  /** The same bits in every run, default true: cuDNN's engines that do not promise that are left out. */
  readonly deterministic?: boolean;
  /** Times every new convolution's candidates on the device and keeps the fastest, default false: loading then takes seconds. */
  readonly autotune?: boolean;
}

const cudaNames: OptionNames<CudaOptions> = { memoryLimit: true, deterministic: true, autotune: true };

/** Throws ArgumentError unless these are options. */
export function checkCudaOptions(where: string, options: CudaOptions): CudaOptions {
  const { memoryLimit, deterministic, autotune } = checkOptions(where, options, cudaNames);
  if (memoryLimit !== undefined && !(Number.isSafeInteger(memoryLimit) && memoryLimit > 0 && memoryLimit <= 2 ** 50))
    throw new ArgumentError(expected(where, "memoryLimit to be a number of bytes", shown(memoryLimit)));
  for (const [name, value] of Object.entries({ deterministic, autotune }))
    if (value !== undefined && typeof value !== "boolean")
      throw new ArgumentError(expected(where, `${name} to be true or false`, shown(value)));
  return { memoryLimit, deterministic, autotune };
}

const executors = new Map<string, Executor>();

/**
 * The executor of a GPU of this environment (the main thread, or one worker thread); the first call with these options makes
 * it. The GPU itself is started by the first thing it is given to do, on its own thread. Built, never run on a GPU.
 *
 * @throws DeviceError when the addon is not loaded or was built without CUDA
 */
export function cudaExecutor(device: DeviceInfo, options: CudaOptions = {}): Executor {
  const { name, index } = device;
  const given = { device: index, cudnn: String(device.details.cudnnPath ?? ""), cache: cacheFolder(), ...options };
  const key = JSON.stringify([name, given]);
  const known = executors.get(key);
  if (known) return known;
  const { addon, reason } = nativeRuntime();
  if (!addon) throw new DeviceError(`no usable ${name} device: ${reason}`);
  try {
    const executor = new NativeExecutor(name, new Set(addon.ops(name)), false, addon, addon.open(name, given));
    executors.set(key, executor);
    return executor;
  } catch (cause) {
    throw new DeviceError(`no usable ${name} device: ${(cause as Error).message}`, { cause });
  }
}

/** Where convolution plans are kept from process to process: SERESNET_CACHE ("none" for nowhere), or the user's cache, if there is one. */
function cacheFolder(): string {
  const { SERESNET_CACHE: own } = process.env;
  if (own) return own === "none" ? "" : join(own, "cudnn");
  const caches = userCache();
  return caches === undefined ? "" : join(caches, "seresnet", "cudnn");
}
