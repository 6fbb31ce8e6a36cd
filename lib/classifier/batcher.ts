import { onAbort } from "../abort.js";

/** What a call waits for: its place in a batch. */
interface Call<In, Out> {
  readonly item: In;
  /** When it came, in milliseconds. */
  readonly since: number;
  resolve(result: Out): void;
  reject(reason: unknown): void;
}

export interface BatcherOptions {
  /** Items of one batch at most. */
  readonly maxBatch: number;
  /** How long the first item of a batch waits for others. */
  readonly maxDelayMs: number;
}

/** Batches under way at once: while one computes, the next full one is handed over, so that the device never waits. */
const mostRunning = 2;

/**
 * Merges concurrent calls into batches, first come, first served. A batch starts when `maxBatch` items wait, or when the
 * oldest has waited `maxDelayMs` and no other batch runs. Sizes are powers of two or `maxBatch` (13 waiting items make
 * batches of 8, 4 and 1), because each size needs a plan of its own on the device.
 */
export class Batcher<In, Out> {
  readonly #run: (items: In[]) => Promise<Out[]>;
  readonly #options: BatcherOptions;
  readonly #waiting = new Set<Call<In, Out>>();
  #running = 0;
  #timer: NodeJS.Timeout | undefined;

  /** @param run gives one result for each item, in order */
  constructor(run: (items: In[]) => Promise<Out[]>, options: BatcherOptions) {
    this.#run = run;
    this.#options = options;
  }

  /**
   * One item's result. A failing batch rejects for all its items; an aborted signal rejects at once with its reason,
   * and an item that has not started is dropped.
   */
  submit(item: In, signal?: AbortSignal): Promise<Out> {
    signal?.throwIfAborted();
    return new Promise((resolve, reject) => {
      const call: Call<In, Out> = {
        item,
        since: performance.now(),
        resolve: (result) => {
          forget();
          resolve(result);
        },
        reject: (reason) => {
          forget();
          reject(reason);
        },
      };
      const forget = onAbort(signal, () => {
        this.#waiting.delete(call);
        call.reject(signal?.reason);
      });
      this.#waiting.add(call);
      this.#pump();
    });
  }

  /** Starts what may start, and sees to it that somebody looks again when the oldest item has waited long enough. */
  #pump(): void {
    clearTimeout(this.#timer);
    const { maxBatch, maxDelayMs } = this.#options;
    while (this.#running < mostRunning && this.#waiting.size >= maxBatch) void this.#start(maxBatch);
    if (this.#waiting.size === 0 || this.#running > 0) return; // the end of a batch pumps again
    const [oldest] = this.#waiting;
    const left = oldest.since + maxDelayMs - performance.now();
    if (left <= 0) void this.#start(2 ** Math.floor(Math.log2(this.#waiting.size)));
    else this.#timer = setTimeout(() => this.#pump(), left);
  }

  async #start(size: number): Promise<void> {
    const calls: Call<In, Out>[] = [];
    for (const call of this.#waiting) {
      if (calls.length === size) break;
      this.#waiting.delete(call);
      calls.push(call);
    }
    this.#running++;
    try {
      const results = await this.#run(calls.map(({ item }) => item));
      for (const [i, call] of calls.entries()) call.resolve(results[i]);
    } catch (error) {
      for (const call of calls) call.reject(error);
    } finally {
      this.#running--;
      this.#pump();
    }
  }
}
