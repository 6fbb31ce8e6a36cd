import type { KernelTime } from "../lib/devices/native/addon.js";

/** What a device can do at most, measured in the same run. */
export interface Ceilings {
  /** Bytes a second that a copy reads and writes together. */
  readonly bytes: number;
  /** Floating-point operations a second of a large product of matrices. */
  readonly flops: number;
}

/** What a kernel takes at least, and what decides that. */
export interface Bound {
  readonly milliseconds: number;
  readonly by: "memory" | "products";
}

/** A kernel moves its bytes or computes its products of matrices, whichever takes longer, with nothing left in the caches. */
export function boundOf({ bytes, flops }: Pick<KernelTime, "bytes" | "flops">, ceilings: Ceilings): Bound {
  const moving = bytes / ceilings.bytes;
  const computing = flops / ceilings.flops;
  return computing > moving
    ? { milliseconds: 1e3 * computing, by: "products" }
    : { milliseconds: 1e3 * moving, by: "memory" };
}

/** Milliseconds that kernels need at least, one after the other. */
export function leastTime(kernels: readonly KernelTime[], ceilings: Ceilings): number {
  return kernels.reduce((sum, kernel) => sum + boundOf(kernel, ceilings).milliseconds, 0);
}
