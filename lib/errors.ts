/** Every error seresnet throws on purpose. `code` is stable and safe to switch on; `message` is one sentence for people. */
export class SeresnetError extends Error {
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.name = new.target.name;
  }
}

/** A tensor or an option has the wrong shape, rank or size. */
export class ShapeError extends SeresnetError {
  constructor(message: string, options?: ErrorOptions) {
    super("ERR_SHAPE", message, options);
  }
}

/** A tensor has a dtype the operation does not take. */
export class DtypeError extends SeresnetError {
  constructor(message: string, options?: ErrorOptions) {
    super("ERR_DTYPE", message, options);
  }
}

/** An option or argument that is neither a shape nor a dtype is out of its range. */
export class ArgumentError extends SeresnetError {
  constructor(message: string, options?: ErrorOptions) {
    super("ERR_ARGUMENT", message, options);
  }
}

/** A device is missing, unusable, or failed while it ran. `code` is ERR_DEVICE, or tells what it lacks (`DeviceInfo.code`). */
export class DeviceError extends SeresnetError {
  /** Every place that was looked at, when something was searched for and not found. */
  readonly tried: readonly string[];

  constructor(message: string, options?: ErrorOptions & { code?: string; tried?: readonly string[] }) {
    super(options?.code ?? "ERR_DEVICE", message, options);
    this.tried = options?.tried ?? [];
  }
}

/** A device has no room for what was asked, or its memory limit does not allow it. What was loaded before still works. */
export class MemoryError extends DeviceError {
  constructor(message: string, options?: ErrorOptions) {
    super(message, { ...options, code: "ERR_MEMORY" });
  }
}

/** A weights file is damaged, or a state dict does not fit the model. */
export class WeightsError extends SeresnetError {
  /** Names the model has and the record lacks. */
  readonly missingKeys: readonly string[];
  /** Names the record has and the model lacks. */
  readonly unexpectedKeys: readonly string[];
  /** One line for each tensor whose shape differs. */
  readonly mismatched: readonly string[];

  constructor(
    message: string,
    options?: ErrorOptions & {
      missingKeys?: readonly string[];
      unexpectedKeys?: readonly string[];
      mismatched?: readonly string[];
    },
  ) {
    super("ERR_WEIGHTS", message, options);
    this.missingKeys = options?.missingKeys ?? [];
    this.unexpectedKeys = options?.unexpectedKeys ?? [];
    this.mismatched = options?.mismatched ?? [];
  }
}

/** An image is missing, damaged, too large or not an image. */
export class ImageError extends SeresnetError {
  constructor(message: string, options?: ErrorOptions) {
    super("ERR_IMAGE", message, options);
  }
}

/** Training cannot go on: the loss is not finite, or what to resume from is another run's. */
export class TrainingError extends SeresnetError {
  constructor(message: string, options?: ErrorOptions) {
    super("ERR_TRAINING", message, options);
  }
}

/** Something was used after `dispose`. */
export class DisposedError extends SeresnetError {
  constructor(message: string, options?: ErrorOptions) {
    super("ERR_DISPOSED", message, options);
  }
}

/** A lazy value was asked for after the variables it reads were overwritten. */
export class StaleTensorError extends SeresnetError {
  constructor(message: string, options?: ErrorOptions) {
    super("ERR_STALE", message, options);
  }
}

/** `a, b, c, d, e and 3 more`: at most five items of a list, for a message. */
export function listed(items: readonly string[], most = 5): string {
  const shown = items.slice(0, most).join(", ");
  return items.length > most ? `${shown} and ${items.length - most} more` : shown;
}

/** The one form of a message about an argument: `conv2d: expected input [N, 64, H, W], got [8, 32, 56, 56]`. */
export function expected(where: string, what: string, got: string): string {
  return `${clipped(where)}: expected ${what}, got ${got}`;
}

/** Text that came from outside, such as a path, as a message may repeat it. */
export function clipped(text: string, most = 160): string {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

/** Any value as a message shows it, whatever untyped code passed. Never throws. */
export function shown(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 80 ? `${value.slice(0, 80)}…` : value);
  if (Array.isArray(value))
    return value.every(Number.isFinite) && value.length <= 8 ? JSON.stringify(value) : "an array";
  if (typeof value === "object" && value !== null) return "an object";
  return typeof value === "function" ? "a function" : String(value);
}
