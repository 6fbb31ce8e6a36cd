import { Worker } from "node:worker_threads";
import type { HostArray } from "../../dtype.js";
import { ArgumentError, DeviceError, DtypeError, ShapeError } from "../../errors.js";
import { packageFile } from "../../paths.js";
import { Barrier, barrierWords } from "./barrier.js";
import type { Program, Reply, Request, StepTime } from "./messages.js";

const errors: Record<string, new (message: string) => Error> = { ArgumentError, DtypeError, ShapeError };

interface Member {
  readonly worker: Worker;
  /** Programs this worker has been sent. */
  readonly programs: Set<number>;
}

interface CurrentRun {
  /** Workers that have not left the run yet. */
  waiting: number;
  error?: Error;
  times: readonly StepTime[];
  resolve(times: readonly StepTime[]): void;
  reject(error: Error): void;
}

/**
 * The worker threads, made when first needed and kept. They hold the process open only while a run is under way. When one
 * dies, all are ended and the next run gets new ones.
 */
export class Pool {
  #words = new Int32Array(new SharedArrayBuffer(4 * barrierWords));
  #members: Member[] = [];
  #current?: CurrentRun;

  /**
   * Runs a program on `threads` threads and tells what its steps took. One at a time: the caller waits for the last run
   * to end.
   */
  async run(program: Program, variables: readonly HostArray[], threads: number): Promise<readonly StepTime[]> {
    while (this.#members.length < threads) this.#members.push(this.#start());
    new Barrier(this.#words, threads).reset();
    const members = this.#members.slice(0, threads);
    const done = new Promise<readonly StepTime[]>((resolve, reject) => {
      this.#current = { waiting: threads, times: [], resolve, reject };
    });
    for (const [thread, { worker, programs }] of members.entries()) {
      worker.ref();
      if (!programs.has(program.id)) send(worker, { kind: "load", program });
      programs.add(program.id);
      send(worker, { kind: "run", id: program.id, variables, thread, threads });
    }
    try {
      return await done;
    } finally {
      for (const { worker } of members) worker.unref();
    }
  }

  /** Lets the workers forget a program. */
  unload(id: number): void {
    for (const { worker, programs } of this.#members) if (programs.delete(id)) send(worker, { kind: "unload", id });
  }

  /** Lets the workers give back the shared memory they no longer use. */
  collect(): void {
    for (const { worker } of this.#members) send(worker, { kind: "collect" });
  }

  #start(): Member {
    const worker = newWorker(this.#words);
    worker.unref();
    worker.on("message", (reply: Reply) => this.#left(reply));
    worker.on("error", (error) => this.#lost(worker, error.message));
    worker.on("exit", (code) => this.#lost(worker, `it ended with code ${code}`));
    return { worker, programs: new Set() };
  }

  #left({ error, times = [] }: Reply): void {
    const run = this.#current;
    if (!run) return;
    if (error) run.error ??= new (errors[error.name] ?? DeviceError)(error.message);
    if (times.length > 0) run.times = times;
    run.waiting--;
    if (run.waiting > 0) return;
    this.#current = undefined;
    if (run.error) run.reject(run.error);
    else run.resolve(run.times);
  }

  #lost(worker: Worker, reason: string): void {
    if (!this.#members.some((member) => member.worker === worker)) return; // ended here, with the others
    const members = this.#members;
    const run = this.#current;
    const error = new DeviceError(`reference: a worker thread was lost: ${reason}`);
    this.#words = new Int32Array(new SharedArrayBuffer(4 * barrierWords));
    this.#members = [];
    this.#current = undefined;
    // Only when all have ended is nobody left to write into memory that the next run uses.
    void Promise.all(members.map((member) => member.worker.terminate())).then(() => run?.reject(error));
  }
}

function newWorker(workerData: Int32Array): Worker {
  try {
    return new Worker(packageFile("dist", "lib", "devices", "reference", "worker.js"), { workerData, execArgv: [] });
  } catch (cause) {
    throw new DeviceError(`reference: a worker thread could not be started: ${(cause as Error).message}`, { cause });
  }
}

function send(worker: Worker, request: Request): void {
  worker.postMessage(request);
}
