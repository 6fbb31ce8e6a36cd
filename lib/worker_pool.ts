import { parentPort, type TransferListItem, Worker } from "node:worker_threads";
import { DisposedError, ImageError, SeresnetError } from "./errors.js";
import { packageFile } from "./paths.js";

interface Order<In> {
  readonly id: number;
  readonly order: In;
}

interface Answer<Out> {
  readonly id: number;
  readonly result?: Out;
  /** What went wrong, and whether it was an image. */
  readonly failure?: { readonly message: string; readonly isImage: boolean };
}

interface Waiting<Out> {
  readonly worker: Worker;
  resolve(result: Out): void;
  reject(error: unknown): void;
}

/** Worker threads of the package that take orders in turn. They hold the process open only while somebody waits. */
export class WorkerPool<In, Out> {
  readonly #name: string;
  readonly #file: readonly string[];
  readonly #data: unknown;
  readonly #count: number;
  readonly #here: ((order: In) => Promise<Out>) | undefined;
  readonly #waiting = new Map<number, Waiting<Out>>();
  #workers: Worker[] = [];
  #next = 0;
  #disposed = false;

  /**
   * @param name what messages call its work
   * @param file of the package, whose threads `serve`
   * @param data their `workerData`
   * @param here does the work on the caller's thread where `count` is 0
   */
  constructor(name: string, file: readonly string[], data: unknown, count: number, here?: (order: In) => Promise<Out>) {
    this.#name = name;
    this.#file = file;
    this.#data = data;
    this.#count = count;
    this.#here = here;
  }

  /**
   * What a thread makes of the order, of which `transfer` is handed over and not copied. Throws DisposedError once the pool is
   * disposed, and what the thread threw.
   */
  run(order: In, transfer: readonly TransferListItem[] = []): Promise<Out> {
    if (this.#disposed) throw this.#gone();
    if (this.#count === 0 && this.#here) return this.#here(order);
    const id = this.#next++;
    const worker = this.#idlest();
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { worker, resolve, reject });
      worker.ref(); // somebody waits: the process stays
      worker.postMessage({ id, order } satisfies Order<In>, transfer);
    });
  }

  /** Ends the threads; orders still under way are rejected. */
  async dispose(): Promise<void> {
    this.#disposed = true;
    const workers = this.#workers;
    this.#workers = [];
    for (const [id, { reject }] of this.#waiting) {
      this.#waiting.delete(id);
      reject(this.#gone());
    }
    await Promise.all(workers.map((worker) => worker.terminate()));
  }

  /** The thread with the fewest orders; a new one where all have some and there may be more. */
  #idlest(): Worker {
    const waiting = [...this.#waiting.values()];
    const known = this.#workers
      .map((worker) => ({ worker, orders: waiting.filter((order) => order.worker === worker).length }))
      .sort((a, b) => a.orders - b.orders);
    if (known.length > 0 && (known[0].orders === 0 || known.length >= this.#count)) return known[0].worker;
    const worker = this.#start();
    this.#workers.push(worker);
    return worker;
  }

  #start(): Worker {
    const worker = new Worker(packageFile(...this.#file), { workerData: this.#data });
    worker.unref();
    worker.on("message", ({ id, result, failure }: Answer<Out>) => {
      const waiting = this.#waiting.get(id);
      if (!waiting) return; // disposed meanwhile: whoever waits for the thread's end needs it to keep the process
      this.#waiting.delete(id);
      if (![...this.#waiting.values()].some((other) => other.worker === worker)) worker.unref();
      if (result !== undefined) waiting.resolve(result);
      else if (failure?.isImage) waiting.reject(new ImageError(failure.message));
      else waiting.reject(this.#error(`the work could not be done: ${failure?.message}`));
    });
    const lost = (why: string) => {
      this.#workers = this.#workers.filter((other) => other !== worker);
      for (const [id, waiting] of this.#waiting) {
        if (waiting.worker !== worker) continue;
        this.#waiting.delete(id);
        waiting.reject(this.#error(`a worker thread was lost: ${why}`));
      }
    };
    worker.on("error", (error: Error) => lost(error.message));
    worker.on("exit", (code) => lost(`it ended with code ${code}`));
    return worker;
  }

  #error(why: string): SeresnetError {
    return new SeresnetError("ERR_DATA", `${this.#name}: ${why}`);
  }

  #gone(): DisposedError {
    return new DisposedError(`${this.#name}: this loader has been disposed`);
  }
}

/** In a worker thread: answers the orders of its pool. `work` tells what of its result is handed over and not copied. */
export function serve<In, Out>(
  work: (order: In) => Promise<{ result: Out; transfer: readonly TransferListItem[] }>,
): void {
  const port = parentPort;
  port?.on("message", async ({ id, order }: Order<In>) => {
    try {
      const { result, transfer } = await work(order);
      port.postMessage({ id, result } satisfies Answer<Out>, transfer);
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      port.postMessage({ id, failure: { message, isImage: error instanceof ImageError } } satisfies Answer<Out>);
    }
  });
}
