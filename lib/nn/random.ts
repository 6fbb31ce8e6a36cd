import { type HostArray, hostArray } from "../dtype.js";
import { ArgumentError, expected, shown } from "../errors.js";

/** A seeded stream of 32-bit numbers (splitmix32 steps through a murmur3 finaliser): small, fast and the same everywhere. */
export class Generator {
  #state: number;

  constructor(seed: number) {
    this.#state = mix(seed ^ 0x5e7e57) >>> 0;
  }

  /** A whole number in [0, 2^32). */
  next(): number {
    this.#state = (this.#state + 0x9e3779b9) >>> 0;
    return mix(this.#state);
  }

  /** A number in [0, 1) with 53 random bits. */
  uniform(): number {
    return (this.next() * 0x200000 + (this.next() >>> 11)) / 2 ** 53;
  }
}

function mix(x: number): number {
  let z = x;
  z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
  z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
  return (z ^ (z >>> 16)) >>> 0;
}

let current = new Generator(0);

/** Seeds the generator that layers constructed from here on draw their first weights from. */
export function manualSeed(seed: number): void {
  if (!Number.isSafeInteger(seed)) throw new ArgumentError(expected("manualSeed", "an integer", shown(seed)));
  current = new Generator(seed);
}

/** Constructs layers whose first weights depend on `seed` alone, and leaves the shared generator where it was. */
export function withSeed<T>(seed: number, construct: () => T): T {
  const outer = current;
  current = new Generator(seed);
  try {
    return construct();
  } finally {
    current = outer;
  }
}

/** First weights, drawn when somebody first needs them: loading a checkpoint never pays for them. */
export type Initializer = (size: number) => () => HostArray;

/** Normal with mean 0 (Kaiming: `standardDeviation = sqrt(2 / fanOut)`, He et al. 2015, equation 14). */
export function normal(standardDeviation: number): Initializer {
  return drawn((generator, data) => {
    for (let i = 0; i < data.length; i += 2) {
      // Box-Muller gives two at a time
      const radius = standardDeviation * Math.sqrt(-2 * Math.log(1 - generator.uniform()));
      const angle = 2 * Math.PI * generator.uniform();
      data[i] = radius * Math.cos(angle);
      if (i + 1 < data.length) data[i + 1] = radius * Math.sin(angle);
    }
  });
}

/** Uniform in [-bound, bound). */
export function uniform(bound: number): Initializer {
  return drawn((generator, data) => {
    for (let i = 0; i < data.length; i++) data[i] = (2 * generator.uniform() - 1) * bound;
  });
}

function drawn(fill: (generator: Generator, data: Float32Array) => void): Initializer {
  return (size) => {
    const seed = current.next();
    return () => {
      const data = hostArray("float32", size) as Float32Array;
      fill(new Generator(seed), data);
      return data;
    };
  };
}
