import { Worker } from "node:worker_threads";
import { DisposedError, SeresnetError } from "../errors.js";
import { packageFile } from "../paths.js";
import { type BatchRecipe, type MadeBatch, makeBatch } from "./make_batch.js";
import type { BatchAnswer, BatchOrder } from "./worker.js";

interface Waiting {
  readonly worker: Worker;
  resolve(batch: MadeBatch): void;
  reject(error: unknown): void;
}

/** Worker threads that make batches; with `count` 0 they are made on the caller's own thread. */
export class WorkerPool {
  readonly #recipe: BatchRecipe;
  readonly #count: number;
  readonly #waiting = new Map<number, Waiting>();
  #workers: Worker[] = [];
  #next = 0;
  #disposed = false;

  constructor(recipe: BatchRecipe, count: number) {
    this.#recipe = recipe;
    this.#count = count;
  }

  /** Orders a batch. Throws DisposedError once the pool is disposed. */
  make(epoch: number, indices: Uint32Array): Promise<MadeBatch> {
    if (this.#disposed) throw disposed();
    if (this.#count === 0) return makeBatch(this.#recipe, epoch, indices);
    while (this.#workers.length < this.#count) this.#workers.push(this.#start());
    const id = this.#next++;
    const worker = this.#workers[id % this.#workers.length];
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { worker, resolve, reject });
      worker.ref(); // somebody waits: the process stays
      worker.postMessage({ id, epoch, indices } satisfies BatchOrder);
    });
  }

  /** Ends the threads; batches still under way are rejected. */
  async dispose(): Promise<void> {
    this.#disposed = true;
    const workers = this.#workers;
    this.#workers = [];
    for (const [id, { reject }] of this.#waiting) {
      this.#waiting.delete(id);
      reject(disposed());
    }
    await Promise.all(workers.map((worker) => worker.terminate()));
  }

  #start(): Worker {
    const worker = new Worker(packageFile("dist", "lib", "data", "worker.js"), { workerData: this.#recipe });
    worker.unref();
    worker.on("message", ({ id, batch, failure }: BatchAnswer) => {
      const waiting = this.#waiting.get(id);
      if (!waiting) return; // disposed meanwhile: whoever waits for the thread's end needs it to keep the process
      this.#waiting.delete(id);
      if (![...this.#waiting.values()].some((other) => other.worker === worker)) worker.unref();
      if (batch) waiting.resolve(batch);
      else waiting.reject(new SeresnetError("ERR_DATA", `data: a batch could not be made: ${failure}`));
    });
    const lost = (why: string) => {
      this.#workers = this.#workers.filter((other) => other !== worker);
      for (const [id, waiting] of this.#waiting) {
        if (waiting.worker !== worker) continue;
        this.#waiting.delete(id);
        waiting.reject(new SeresnetError("ERR_DATA", `data: a worker thread was lost: ${why}`));
      }
    };
    worker.on("error", (error: Error) => lost(error.message));
    worker.on("exit", (code) => lost(`it ended with code ${code}`));
    return worker;
  }
}

function disposed(): DisposedError {
  return new DisposedError("data: this loader has been disposed");
}
