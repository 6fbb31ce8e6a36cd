import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

let collectGarbage: ((options?: { type: "minor" }) => void) | undefined;

/**
 * Collects this thread's garbage now. V8 does not count shared memory when it decides to do so by itself: a worker, which
 * makes hardly any garbage of its own, would keep gigabytes of plans and variables alive that nobody else has any more. A minor
 * collection looks at what is young only, and is over in a few milliseconds whatever the size of the heap.
 */
export function collect(type: "full" | "minor"): void {
  if (!collectGarbage) {
    setFlagsFromString("--expose-gc");
    collectGarbage = runInNewContext("gc") as typeof collectGarbage;
  }
  if (type === "minor") collectGarbage?.({ type });
  else collectGarbage?.();
}
