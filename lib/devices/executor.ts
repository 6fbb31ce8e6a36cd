import type { DType, HostArray } from "../dtype.js";
import type { Plan } from "../plan/plan.js";

/** "cuda-sim" is the cuda executor with its kernels run on the host: builds for tests have it and nothing else does. */
export type DeviceName = "cuda" | "cpu" | "reference" | "cuda-sim";

/** A tensor's contents on a device. Immutable: a run never changes the buffers it reads. */
export interface DeviceBuffer {
  readonly executor: Executor;
  readonly dtype: DType;
  readonly length: number;
  /** A copy of the contents on the host. */
  read(): Promise<HostArray>;
  /**
   * Frees the contents now and not when the garbage collector comes. Runs and reads under way are not disturbed; a later
   * one rejects with a DeviceError.
   */
  release(): void;
}

export interface RunRequest {
  /** One host array for each of `plan.inputs`, which must not change until the run is done. */
  readonly inputs: readonly HostArray[];
  /** One buffer of this executor for each of `plan.variables`. */
  readonly variables: readonly DeviceBuffer[];
  /** Drops the run if it has not started; the promise then rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

export interface RunResult {
  /** One fresh host array for each of `plan.outputs`; the receiver owns it. */
  readonly outputs: HostArray[];
  /** One new buffer for each of `plan.written`. */
  readonly written: DeviceBuffer[];
}

/** What one kernel of a plan did in a profiled run. A step may take several, or none. */
export interface StepProfile {
  readonly op: string;
  /** The layer whose parameters it reads (`layer1.0.conv1`), or "" where there is none. */
  readonly layer: string;
  /** The library's or our own name of what ran. */
  readonly implementation: string;
  /** Milliseconds since the run began. */
  readonly start: number;
  readonly milliseconds: number;
  /** Of its operands and results, each counted once. */
  readonly bytes: number;
}

/** A plan made ready on a device. Runs are first in, first out; a failed run changes nothing. */
export interface LoadedPlan {
  run(request: RunRequest): Promise<RunResult>;
  /** A run whose results are dropped and that tells what each kernel took, in the order in which they ran. */
  profile(request: RunRequest): Promise<StepProfile[]>;
  /** Frees the plan once the runs under way are done. */
  dispose(): Promise<void>;
}

export interface LoadOptions {
  /** Threads to use; the device's own choice when left out. */
  readonly threads?: number;
  /** Arithmetic for the plan's float32 slots, default float32 (IEEE). What is stored between steps is the executor's business. */
  readonly compute?: "float32" | "tf32" | "bfloat16" | "float16";
  /**
   * One for each constant: constants of one name have the same contents in all plans. The executor then holds what it
   * makes of them (weights in its own order, folded weights) once for all plans that are loaded at a time.
   */
  readonly names?: readonly string[];
  /**
   * The algorithm of the cpu device's 3x3 convolutions in float32, default SERESNET_CONVOLUTION or "auto": Winograd's
   * where there is one, it times faster when the plan is loaded, and it is within 1e-5 of the direct one. The choice may
   * differ from process to process, and with it the results, by so much. "winograd" takes it whatever it costs; where
   * there is none the direct one is taken all the same. "rule" decides by the layer's shape, without timing, as training
   * always does: every process then computes the same.
   */
  readonly convolution?: "auto" | "direct" | "winograd" | "rule";
}

/** One kind of device that runs plans. Nothing here blocks the JavaScript thread. */
export interface Executor {
  readonly device: DeviceName;
  /** Fused ops this executor runs itself; the others are expanded into the ops they stand for before `load`. */
  readonly fused: ReadonlySet<string>;
  /**
   * Whether steps that read constants alone are run once, at load. Where they are not, whoever makes the plan computes them
   * first and hands in the results.
   */
  readonly folds: boolean;
  upload(data: HostArray, dtype: DType): Promise<DeviceBuffer>;
  /** `constants` are read until the promise settles: arrays that never change. */
  load(plan: Plan, constants: readonly HostArray[], options?: LoadOptions): Promise<LoadedPlan>;
}
