import { availableParallelism } from "node:os";
import { checkDtype, type DType, type HostArray, hostArray, hostBytes, roundTo } from "../../dtype.js";
import { DeviceError, DisposedError, expected, MemoryError } from "../../errors.js";
import { planMemory } from "../../plan/memory.js";
import type { Plan } from "../../plan/plan.js";
import { sizeOf } from "../../shape.js";
import { checkArray, checkLoad, checkRequest, ownerOf } from "../check.js";
import type {
  DeviceBuffer,
  Executor,
  LoadedPlan,
  LoadOptions,
  RunRequest,
  RunResult,
  StepProfile,
} from "../executor.js";
import { collect } from "./garbage.js";
import { kernels } from "./kernels.js";
import { bindProgram, type Program, type StepTime } from "./messages.js";
import { Pool } from "./worker_pool.js";

/** What a run gave, and what its steps took. */
interface TimedResult extends RunResult {
  readonly times: readonly StepTime[];
}

interface Job {
  readonly plan: ReferencePlan;
  readonly request: RunRequest;
  /** Called when the run starts: from then on its signal is not heard. */
  started(): void;
  resolve(result: TimedResult): void;
  reject(reason: unknown): void;
}

/**
 * Runs plans in TypeScript, on worker threads over shared memory. It accumulates in float64 and is the judge of the other
 * executors; the number of threads never changes a result. Runs go first in, first out, over all plans. When a worker
 * thread is lost the run under way is rejected, and those behind it go on with new threads.
 */
class ReferenceExecutor implements Executor {
  readonly device = "reference";
  readonly fused: ReadonlySet<string> = new Set();
  readonly folds = false;
  readonly pool = new Pool();
  readonly #queue: Job[] = [];
  #busy = false;

  async upload(data: HostArray, dtype: DType): Promise<DeviceBuffer> {
    checkDtype(this.device, dtype);
    return new ReferenceBuffer(this, dtype, toShared("an upload", data, dtype, data?.length));
  }

  /**
   * Makes a plan ready; the workers get it at its first run.
   * @throws DeviceError when the plan has an op without a kernel, MemoryError when its memory cannot be had.
   */
  async load(plan: Plan, constants: readonly HostArray[], options: LoadOptions = {}): Promise<LoadedPlan> {
    checkLoad(this.device, plan, constants, options);
    const threads = options.threads ?? (isSmall(plan) ? 1 : availableParallelism());
    const missing = plan.steps.find(({ op }) => !Object.hasOwn(kernels, op));
    if (missing) throw new DeviceError(expected("reference", "ops it has a kernel for", missing.op));
    return new ReferencePlan(this, plan, constants, threads);
  }

  /** Puts a run at the end of the queue. */
  submit(plan: ReferencePlan, request: RunRequest): Promise<TimedResult> {
    const { signal } = request;
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const drop = () => this.#drop(job, signal?.reason);
      const started = () => signal?.removeEventListener("abort", drop);
      const job: Job = { plan, request, started, resolve, reject };
      signal?.addEventListener("abort", drop, { once: true });
      this.#queue.push(job);
      void this.#drain();
    });
  }

  #drop(job: Job, reason: unknown): void {
    const place = this.#queue.indexOf(job);
    this.#queue.splice(place, 1);
    job.reject(reason);
  }

  async #drain(): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    for (let job = this.#queue.shift(); job; job = this.#queue.shift()) {
      job.started();
      try {
        job.resolve(await job.plan.execute(job.request));
      } catch (error) {
        job.reject(error);
      }
    }
    this.#busy = false;
  }
}

/** Meeting after a step takes threads some 30 microseconds, about as long as one needs for this many elements. */
const worthSharing = 4096;

/** Whether a plan's steps are so small, on average, that one thread is done sooner than several. */
function isSmall({ slots, steps }: Plan): boolean {
  let elements = 0;
  for (const { inputs, outputs } of steps)
    for (const slot of [...inputs, ...outputs]) elements += sizeOf(slots[slot].shape);
  return elements < worthSharing * steps.length;
}

class ReferenceBuffer implements DeviceBuffer {
  readonly length: number;
  #data: HostArray | undefined;

  constructor(
    readonly executor: Executor,
    readonly dtype: DType,
    data: HostArray,
  ) {
    this.length = data.length;
    this.#data = data;
  }

  /** Over shared memory, and never written again. */
  get data(): HostArray {
    if (!this.#data)
      throw new DeviceError(expected("reference", "a buffer that has not been released", "one that has"));
    return this.#data;
  }

  async read(): Promise<HostArray> {
    return this.data.slice();
  }

  release(): void {
    this.#data = undefined;
  }
}

let programs = 0;

class ReferencePlan implements LoadedPlan {
  readonly #executor: ReferenceExecutor;
  readonly #threads: number;
  readonly #program: Program;
  readonly #bound: ReturnType<typeof bindProgram>;
  #pending = new Set<Promise<unknown>>();
  #disposed?: Promise<void>;

  constructor(executor: ReferenceExecutor, plan: Plan, constants: readonly HostArray[], threads: number) {
    this.#executor = executor;
    this.#threads = threads;
    const memory = planMemory(plan);
    this.#program = {
      id: programs++,
      plan,
      memory,
      arena: allocate(memory.bytes),
      constants: plan.constants.map((slot, i) => {
        const { shape, dtype } = plan.slots[slot];
        return toShared(`constant ${i}`, constants[i], dtype, sizeOf(shape));
      }),
    };
    this.#bound = bindProgram(this.#program);
  }

  async run(request: RunRequest): Promise<RunResult> {
    const { outputs, written } = await this.#submit(request);
    return { outputs, written };
  }

  async profile(request: RunRequest): Promise<StepProfile[]> {
    const { times } = await this.#submit(request);
    const { slots, steps } = this.#program.plan;
    const bytesOf = (slot: number) => sizeOf(slots[slot].shape) * hostBytes(slots[slot].dtype);
    const implementation = this.#threads === 1 ? "TypeScript" : `TypeScript, ${this.#threads} threads`;
    return steps.map(({ op, layer = "", inputs, outputs }, i) => {
      const bytes = [...new Set([...inputs, ...outputs])].reduce((sum, slot) => sum + bytesOf(slot), 0);
      return { op, layer, implementation, ...times[i], bytes };
    });
  }

  async #submit(request: RunRequest): Promise<TimedResult> {
    if (this.#disposed) throw new DisposedError("reference: expected a loaded plan, got a disposed one");
    checkRequest("reference", this.#program.plan, request);
    const run = this.#executor.submit(this, request);
    const settled: Promise<unknown> = run.catch(() => {}).then(() => this.#pending.delete(settled));
    this.#pending.add(settled);
    return run;
  }

  dispose(): Promise<void> {
    this.#disposed ??= Promise.all(this.#pending).then(() => this.#executor.pool.unload(this.#program.id));
    return this.#disposed;
  }

  /** One run, called when its turn has come. */
  async execute(request: RunRequest): Promise<TimedResult> {
    const { plan } = this.#program;
    const { views, bindVariables } = this.#bound;
    const variables = request.variables.map((buffer, i) => {
      if (!(buffer instanceof ReferenceBuffer && buffer.executor === this.#executor))
        throw new DeviceError(expected("reference", `variable ${i} to be one of its own buffers`, ownerOf(buffer)));
      const { shape, dtype } = plan.slots[plan.variables[i]];
      checkArray("reference", `variable ${i}`, buffer.data, dtype, sizeOf(shape));
      return buffer.data;
    });
    for (const [i, slot] of plan.inputs.entries()) {
      const view = views[slot];
      checkArray("reference", `input ${i}`, request.inputs[i], view.dtype, view.data.length); // it may have been detached
      copy(request.inputs[i], view.data);
      roundTo(view.dtype, view.data);
    }
    bindVariables(variables);
    const times = await this.#executor.pool.run(this.#program, variables, this.#threads);
    if (allocatedBytes > collectEvery) {
      allocatedBytes = 0;
      collect("minor");
      this.#executor.pool.collect();
    }
    return {
      times,
      outputs: plan.outputs.map((slot) => {
        const { data, dtype } = views[slot];
        return copy(data, hostArray(dtype, data.length));
      }),
      written: plan.written.map((slot) => {
        const { data, dtype } = views[slot];
        return new ReferenceBuffer(this.#executor, dtype, toShared("written", data, dtype, data.length));
      }),
    };
  }
}

/** Bytes of shared memory allocated between two collections: what may be alive in the workers beyond what is in use. */
const collectEvery = 64 * 2 ** 20;
let allocatedBytes = 0;

/** Memory that all threads see. */
function allocate(bytes: number): SharedArrayBuffer {
  allocatedBytes += bytes;
  try {
    return new SharedArrayBuffer(bytes);
  } catch (cause) {
    throw new MemoryError(`reference: ${bytes} bytes of memory could not be allocated`, { cause });
  }
}

/** A copy of `data` in shared memory, rounded to what `dtype` can hold. */
function toShared(what: string, data: HostArray, dtype: DType, length: number): HostArray {
  checkArray("reference", what, data, dtype, length);
  const shared = copy(data, hostArray(dtype, length, allocate(length * hostBytes(dtype))));
  roundTo(dtype, shared);
  return shared;
}

/** Copies between arrays of one kind. */
function copy(from: HostArray, to: HostArray): HostArray {
  (to as Float32Array).set(from as Float32Array);
  return to;
}

let executor: ReferenceExecutor | undefined;

/** The reference executor of this environment (the main thread, or one worker thread); the first call makes it. */
export function referenceExecutor(): Executor {
  executor ??= new ReferenceExecutor();
  return executor;
}
