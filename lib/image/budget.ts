import { setTimeout as delay } from "node:timers/promises";

const unit = 1024;
/** How often somebody who waits looks whether other threads have given bytes back, in milliseconds. */
const patience = 5;

/**
 * Bytes that many may hold together, in all threads that share the budget; the others wait in line. What is larger than
 * the whole budget is let in when nobody else is.
 */
export class ByteBudget {
  /** The limit and what is taken of it, in KiB. */
  #counts = new Int32Array(new SharedArrayBuffer(8));
  #line: Promise<unknown> = Promise.resolve();
  #wake: () => void = () => {};

  constructor(bytes: number) {
    this.limit = bytes;
  }

  get limit(): number {
    return Atomics.load(this.#counts, 0) * unit;
  }

  set limit(bytes: number) {
    Atomics.store(this.#counts, 0, Math.ceil(bytes / unit));
    this.#wake();
  }

  /** What another thread needs to `share` this budget. */
  get memory(): SharedArrayBuffer {
    return this.#counts.buffer as SharedArrayBuffer;
  }

  /** Makes this the same budget as another thread's. Nothing may have been taken of it yet. */
  share(memory: SharedArrayBuffer): void {
    this.#counts = new Int32Array(memory);
  }

  /** Resolves when there is room for so many bytes; they are taken until the function it resolves to is called. */
  take(bytes: number): Promise<() => void> {
    const amount = Math.ceil(bytes / unit);
    const turn = this.#line.then(() => this.#enter(amount));
    this.#line = turn;
    return turn;
  }

  async #enter(amount: number): Promise<() => void> {
    while (!this.#tryTake(amount)) {
      const woken = new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      await Promise.race([woken, delay(patience)]);
    }
    return () => {
      Atomics.sub(this.#counts, 1, amount);
      this.#wake();
    };
  }

  #tryTake(amount: number): boolean {
    for (;;) {
      const taken = Atomics.load(this.#counts, 1);
      if (taken > 0 && taken + amount > Atomics.load(this.#counts, 0)) return false;
      if (Atomics.compareExchange(this.#counts, 1, taken, taken + amount) === taken) return true;
    }
  }
}
