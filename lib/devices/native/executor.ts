import { isMainThread } from "node:worker_threads";
import { checkDtype, type DType, type HostArray } from "../../dtype.js";
import {
  ArgumentError,
  DeviceError,
  DisposedError,
  DtypeError,
  expected,
  MemoryError,
  type SeresnetError,
  ShapeError,
} from "../../errors.js";
import type { Plan } from "../../plan/plan.js";
import { sizeOf } from "../../shape.js";
import { checkArray, checkLoad, checkRequest, ownerOf } from "../check.js";
import type {
  DeviceBuffer,
  DeviceName,
  Executor,
  LoadedPlan,
  LoadOptions,
  RunRequest,
  RunResult,
  StepProfile,
} from "../executor.js";
import type { BufferHandle, DeviceHandle, NativeRuntime, PlanHandle, Timing, TimingOptions } from "./addon.js";

/** Runs plans on an executor thread of the addon. What is checked here is checked again there, for memory safety. */
export class NativeExecutor implements Executor {
  /** @param folds whether the device runs, at load, the steps that read constants alone */
  constructor(
    readonly device: DeviceName,
    readonly fused: ReadonlySet<string>,
    readonly folds: boolean,
    readonly addon: NativeRuntime,
    readonly handle: DeviceHandle,
  ) {
    // The exit handlers of native libraries free what the executor thread uses: it has to end before they run.
    process.prependOnceListener("exit", () => addon.halt(handle));
  }

  async upload(data: HostArray, dtype: DType): Promise<DeviceBuffer> {
    checkDtype(this.device, dtype);
    checkArray(this.device, "an upload", data, dtype, data?.length);
    const handle = await attempt(() => this.addon.upload(this.handle, data, dtype));
    return new NativeBuffer(this, dtype, data.length, handle);
  }

  /**
   * Makes a plan ready.
   * @throws DeviceError when the plan has an op without a kernel, MemoryError when its memory cannot be had
   */
  async load(plan: Plan, constants: readonly HostArray[], options: LoadOptions = {}): Promise<LoadedPlan> {
    checkLoad(this.device, plan, constants, options);
    const convolution = options.convolution ?? (process.env.SERESNET_CONVOLUTION || undefined);
    const handle = await attempt(() =>
      this.addon.load(this.handle, plan, constants, { ...options, convolution } as LoadOptions),
    );
    return new NativePlan(this, plan, handle);
  }
}

class NativeBuffer implements DeviceBuffer {
  constructor(
    readonly executor: NativeExecutor,
    readonly dtype: DType,
    readonly length: number,
    readonly handle: BufferHandle,
  ) {}

  read(): Promise<HostArray> {
    return attempt(() => this.executor.addon.read(this.handle));
  }

  release(): void {
    this.executor.addon.release(this.handle);
  }
}

/** `run` or `profile` of the addon. */
type NativeCall<T> = (
  plan: PlanHandle,
  inputs: readonly HostArray[],
  variables: readonly BufferHandle[],
) => { id: number; result: Promise<T> };

/** A plan in the addon. What it has beside LoadedPlan is for tests and benchmarks. */
export class NativePlan implements LoadedPlan {
  readonly #executor: NativeExecutor;
  readonly #handle: PlanHandle;
  #disposed?: Promise<void>;

  constructor(
    executor: NativeExecutor,
    readonly plan: Plan,
    handle: PlanHandle,
  ) {
    this.#executor = executor;
    this.#handle = handle;
  }

  async run(request: RunRequest): Promise<RunResult> {
    const { outputs, written } = await this.#submit(request, (...given) =>
      this.#executor.addon.run(...given, isMainThread),
    );
    return {
      outputs,
      written: written.map((buffer, i) => {
        const { shape, dtype } = this.plan.slots[this.plan.written[i]];
        return new NativeBuffer(this.#executor, dtype, sizeOf(shape), buffer);
      }),
    };
  }

  async profile(request: RunRequest): Promise<StepProfile[]> {
    const times = await this.#submit(request, this.#executor.addon.profile);
    return times.map(({ step, flops: _, ...time }) => ({ ...time, layer: this.plan.steps[step]?.layer ?? "" }));
  }

  /** Runs it many times with everything on the device, which tells how long that takes: of the device cuda alone. */
  time(request: RunRequest, options: TimingOptions = {}): Promise<Timing> {
    return this.#submit(request, (...given) => this.#executor.addon.time(...given, options));
  }

  /** Checks a request, puts it into the queue through `call`, and takes it out again when its signal says so. */
  async #submit<T>(request: RunRequest, call: NativeCall<T>): Promise<T> {
    const { device, addon, handle } = this.#executor;
    if (this.#disposed) throw new DisposedError(`${device}: expected a loaded plan, got a disposed one`);
    checkRequest(device, this.plan, request);
    const { inputs, variables, signal } = request;
    signal?.throwIfAborted();
    const buffers = variables.map((buffer, i) => this.#checkVariable(buffer, i));
    const { id, result } = await attempt(async () => {
      const run = call(this.#handle, inputs, buffers);
      run.result.catch(() => {}); // it is waited for below
      return run;
    });
    const drop = () => addon.drop(handle, id, signal?.reason);
    signal?.addEventListener("abort", drop, { once: true });
    if (signal?.aborted) drop();
    try {
      return await result;
    } catch (error) {
      throw signal?.aborted && error === signal.reason ? error : typed(error);
    } finally {
      signal?.removeEventListener("abort", drop);
    }
  }

  dispose(): Promise<void> {
    this.#disposed ??= attempt(() => this.#executor.addon.dispose(this.#handle));
    return this.#disposed;
  }

  /** What runs each kernel of the plan, in order: the op and its implementation. */
  kernels(): string[] {
    if (this.#disposed) throw new DisposedError("kernels: expected a loaded plan, got a disposed one");
    return this.#executor.addon.kernels(this.#handle);
  }

  #checkVariable(buffer: DeviceBuffer, i: number): BufferHandle {
    const { device } = this.#executor;
    if (!(buffer instanceof NativeBuffer && buffer.executor === this.#executor))
      throw new DeviceError(expected(device, `variable ${i} to be one of its own buffers`, ownerOf(buffer)));
    const { shape, dtype } = this.plan.slots[this.plan.variables[i]];
    if (buffer.dtype !== dtype) throw new DtypeError(expected(device, `variable ${i} of dtype ${dtype}`, buffer.dtype));
    if (buffer.length !== sizeOf(shape))
      throw new ShapeError(expected(device, `variable ${i} with ${sizeOf(shape)} elements`, String(buffer.length)));
    return buffer.handle;
  }
}

/** Calls the addon; what it throws becomes one of our errors, with the native one as its cause. */
async function attempt<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw typed(error);
  }
}

const errors: Record<string, new (message: string, options: ErrorOptions) => SeresnetError> = {
  ERR_ARGUMENT: ArgumentError,
  ERR_DEVICE: DeviceError,
  ERR_DTYPE: DtypeError,
  ERR_MEMORY: MemoryError,
};

function typed(cause: unknown): unknown {
  if (!(cause instanceof Error)) return cause;
  const { code = "ERR_DEVICE" } = cause as { code?: string };
  return new (errors[code] ?? DeviceError)(cause.message, { cause });
}
