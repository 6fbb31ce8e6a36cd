import { ArgumentError, expected, shown } from "../lib/errors.js";
import { checkOptionNames } from "../lib/options.js";

/** Where shapes differ: zero-padded identity, a projection there, or a projection in every block (He et al. 2016, 3.3). */
export type Shortcut = "A" | "B" | "C";
/** Where a bottleneck strides: in its 3x3 (v1.5, torchvision) or in its first 1x1 (v1, the paper). */
export type StridePlacement = "3x3" | "1x1";
/** How the last features become one number a channel: their mean, their largest, or the mean of both (timm's global_pool). */
export type GlobalPool = "avg" | "max" | "avgmax";
/** Where the SE unit sits (Hu et al. 2018, 6.4), if there is one. */
export type SEPlacement = "none" | "standard" | "pre" | "post" | "identity";

export interface ResNetOptions {
  /** Outputs of the classifier. Default 1000; 10 for the small-image networks. 0: none, `forward` gives the pooled features. */
  readonly numClasses?: number;
  /** Channels of the input. Default 3. */
  readonly inChannels?: number;
  /** Default "B". */
  readonly shortcut?: Shortcut;
  /** Default "3x3". Basic blocks stride in their first convolution either way. */
  readonly stride?: StridePlacement;
  /** Default "standard" for the SE networks, "none" for the others. */
  readonly se?: SEPlacement;
  /** Channels over squeezed channels in the SE unit. Default 16. */
  readonly reduction?: number;
  /** Starts the last batch norm of every residual branch at zero, so that blocks begin as their shortcuts. Default false. */
  readonly zeroInitResidual?: boolean;
  /** Groups of a bottleneck's 3x3. Default 1. */
  readonly groups?: number;
  /** How the last features are pooled. Default "avg". */
  readonly globalPool?: GlobalPool;
  /** A bottleneck's 3x3 has `floor(width * widthPerGroup / 64) * groups` channels. Default 64. */
  readonly widthPerGroup?: number;
}

export type ResNetSettings = Required<ResNetOptions>;

export const resNetDefaults: ResNetSettings = {
  numClasses: 1000,
  inChannels: 3,
  shortcut: "B",
  stride: "3x3",
  se: "none",
  reduction: 16,
  zeroInitResidual: false,
  groups: 1,
  widthPerGroup: 64,
  globalPool: "avg",
};

type Check = readonly [what: string, holds: (value: unknown) => boolean];

const positiveInteger: Check = ["a positive integer", (value) => Number.isSafeInteger(value) && Number(value) > 0];
const count: Check = ["an integer of at least 0", (value) => Number.isSafeInteger(value) && Number(value) >= 0];
const flag: Check = ["true or false", (value) => typeof value === "boolean"];
const oneOf = (...names: readonly string[]): Check => [
  `one of ${names.map((name) => `"${name}"`).join(", ")}`,
  (value) => typeof value === "string" && names.includes(value),
];

const checks: Readonly<Record<keyof ResNetSettings, Check>> = {
  numClasses: count,
  inChannels: positiveInteger,
  shortcut: oneOf("A", "B", "C"),
  stride: oneOf("3x3", "1x1"),
  se: oneOf("none", "standard", "pre", "post", "identity"),
  reduction: positiveInteger,
  zeroInitResidual: flag,
  groups: positiveInteger,
  widthPerGroup: positiveInteger,
  globalPool: oneOf("avg", "max", "avgmax"),
};

/**
 * `defaults` overridden by what `options` says; undefined means the default. The names in `defaults` are the names allowed.
 *
 * @throws ArgumentError for a name that is not allowed or a value out of its range.
 */
export function resolveOptions<T extends Partial<ResNetSettings>>(where: string, options: unknown, defaults: T): T {
  checkOptionNames(where, options, Object.keys(defaults));
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  for (const [name, value] of given) {
    const [what, holds] = checks[name as keyof ResNetSettings];
    if (!holds(value)) throw new ArgumentError(expected(where, `${name} to be ${what}`, shown(value)));
  }
  return { ...defaults, ...Object.fromEntries(given) };
}
