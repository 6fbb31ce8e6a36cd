import { onAbort } from "./abort.js";

/** Lets at most `room` in at a time; the others wait in line. */
export class Gate {
  #room: number;
  readonly #line = new Set<() => void>();

  constructor(room: number) {
    this.#room = room;
  }

  /** Resolves when there is room. An aborted signal rejects with its reason and gives the place in line up. */
  async enter(signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    if (this.#room > 0) {
      this.#room--;
      return;
    }
    await new Promise<void>((resolve, reject) => {
      const enter = () => {
        forget();
        resolve();
      };
      const forget = onAbort(signal, () => {
        this.#line.delete(enter);
        reject(signal?.reason);
      });
      this.#line.add(enter);
    });
  }

  leave(): void {
    const [next] = this.#line;
    if (!next) {
      this.#room++;
      return;
    }
    this.#line.delete(next);
    next();
  }
}
