import { type nn, tensor } from "../lib/index.js";

/** Reproducible numbers in [low, high). */
export function noise(length: number, low: number, high: number): Float32Array {
  let seed = 1;
  return Float32Array.from({ length }, () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return low + (seed / 2 ** 32) * (high - low);
  });
}

/** Gives batch norms statistics and factors as after a training, so that none is the identity. */
export function trainedLooking<M extends nn.Module>(model: M): M {
  const state = new Map(
    Object.entries(model.stateDict()).flatMap(([name, { shape, dtype }]) => {
      const isNorm = name.includes(".running_") || /bn\d|downsample\.1/.test(name);
      if (dtype !== "float32" || shape.length !== 1 || !isNorm) return [];
      const [low, high] = /mean$|bias$/.test(name) ? [-0.2, 0.2] : [0.7, 1.3];
      return [[name, tensor(noise(shape[0], low, high), shape)]];
    }),
  );
  model.loadStateDict(Object.fromEntries(state), { strict: false });
  return model;
}

export function largestDifference(a: Float32Array, b: Float32Array): number {
  return a.reduce((largest, value, i) => Math.max(largest, Math.abs(value - b[i])), 0);
}
