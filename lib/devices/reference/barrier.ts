/** Int32 words a barrier needs. */
export const barrierWords = 3;

const arrived = 0;
const phase = 1;
const abandoned = 2;

/** Looks at the phase before going to sleep: steps are short, and waking a thread costs more than a few of these. */
const spins = 2000;

/** Where threads meet between two steps. It turns over by itself, and anyone can break it for all. */
export class Barrier {
  readonly #words: Int32Array;
  readonly #threads: number;

  constructor(words: Int32Array, threads: number) {
    this.#words = words;
    this.#threads = threads;
  }

  /** Blocks until all threads have arrived. False when one has abandoned the work: then all must leave. */
  wait(): boolean {
    if (this.#threads === 1) return true;
    const words = this.#words;
    const mine = Atomics.load(words, phase); // before looking at `abandoned`: a break after this line changes the phase
    if (Atomics.load(words, abandoned)) return false;
    if (Atomics.add(words, arrived, 1) + 1 === this.#threads) {
      Atomics.store(words, arrived, 0);
      Atomics.add(words, phase, 1);
      Atomics.notify(words, phase);
    } else {
      for (let i = 0; i < spins && Atomics.load(words, phase) === mine; i++);
      while (Atomics.load(words, phase) === mine) Atomics.wait(words, phase, mine);
    }
    return Atomics.load(words, abandoned) === 0;
  }

  /** Lets everyone who waits, or comes to wait, leave with false. */
  abandon(): void {
    Atomics.store(this.#words, abandoned, 1);
    Atomics.add(this.#words, phase, 1);
    Atomics.notify(this.#words, phase);
  }

  /** Makes the barrier new. Only when no thread is at it. */
  reset(): void {
    this.#words.fill(0);
  }
}
