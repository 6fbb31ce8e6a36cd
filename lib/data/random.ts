import { Generator } from "../nn/random.js";

/**
 * The random stream of one item, a function of its coordinates alone (seed, epoch, index, …): what one worker draws never
 * depends on what another one did, nor on what came before a resumed run.
 */
export function streamOf(...coordinates: readonly number[]): Generator {
  return new Generator(coordinates.reduce((state, coordinate) => new Generator(state ^ coordinate).next(), 0));
}

/** A whole number in [0, count). */
export function below(generator: Generator, count: number): number {
  return Math.floor(generator.uniform() * count);
}

/** A number in [least, most). */
export function between(generator: Generator, [least, most]: readonly [number, number]): number {
  return least + generator.uniform() * (most - least);
}

/** 0 … count - 1 in random order (Fisher and Yates). */
export function permutation(generator: Generator, count: number): Uint32Array {
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = below(generator, i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

/** Beta(alpha, alpha), by two gamma variates; of their logarithms, because those of small shapes are too small for a number. */
export function beta(generator: Generator, alpha: number): number {
  const [a, b] = [logGamma(generator, alpha), logGamma(generator, alpha)];
  return 1 / (1 + Math.exp(b - a));
}

/** The logarithm of Gamma(shape, 1): Marsaglia & Tsang 2000; shapes below 1 through shape + 1. */
function logGamma(generator: Generator, shape: number): number {
  if (shape < 1) return logGamma(generator, shape + 1) + Math.log(1 - generator.uniform()) / shape;
  const d = shape - 1 / 3;
  const c = 1 / Math.sqrt(9 * d);
  for (;;) {
    const x = gaussian(generator);
    const v = (1 + c * x) ** 3;
    if (v > 0 && Math.log(1 - generator.uniform()) < x ** 2 / 2 + d - d * v + d * Math.log(v)) return Math.log(d * v);
  }
}

function gaussian(generator: Generator): number {
  return Math.sqrt(-2 * Math.log(1 - generator.uniform())) * Math.cos(2 * Math.PI * generator.uniform());
}
