import type { DeviceBuffer } from "../devices/executor.js";
import { checkHolds, type DType, type HostArray, hostArray } from "../dtype.js";
import { Node, op, type Value } from "../graph/value.js";
import { sizeOf } from "../shape.js";
import { frozenValue, isRecordingWrites, recordWrite } from "./recording.js";
import { checkFresh } from "./stale.js";

/** Where a version's contents are: on the host, on a device, or still to be drawn by an initialiser. */
export type Contents = HostArray | DeviceBuffer | (() => HostArray);

/** How many versions hold a buffer: more than one where a variable was written to another. */
const holders = new WeakMap<DeviceBuffer, number>();

function held(contents: Contents | undefined): contents is DeviceBuffer {
  return contents !== undefined && "release" in contents;
}

/** The contents of a variable between two writes. Leaves of the graph point at the version they were recorded with. */
export class Version {
  #contents: Contents | undefined;
  /** `replaced` from the moment a flush that overwrites it is submitted. */
  state: "current" | "replaced" | "failed" = "current";
  /** Why the flush that should have filled this version failed. */
  error?: unknown;

  constructor(
    readonly variable: Variable,
    contents?: Contents,
    /** What was current before, until the flush that fills this version has succeeded. */
    public previous?: Version,
  ) {
    this.contents = contents;
  }

  get contents(): Contents | undefined {
    return this.#contents;
  }

  /** A buffer that no version holds any more is released: the next step's would need as much memory again. */
  set contents(contents: Contents | undefined) {
    const last = this.#contents;
    this.#contents = contents;
    if (held(contents)) holders.set(contents, (holders.get(contents) ?? 0) + 1);
    if (!held(last)) return;
    const others = (holders.get(last) ?? 1) - 1;
    holders.set(last, others);
    if (others === 0) last.release();
  }

  /** The contents on the host (initialisers run once, here). */
  async host(): Promise<HostArray> {
    const contents = this.initialised();
    return "read" in contents ? contents.read() : contents;
  }

  /** The contents, after the initialiser has run if there is one. */
  initialised(): HostArray | DeviceBuffer {
    if (typeof this.contents === "function") this.contents = this.contents();
    if (this.contents === undefined) throw new Error(`${this.variable.name}: read before it was written`);
    return this.contents;
  }
}

/** State that outlives a plan: a parameter, a buffer, a gradient or optimiser state. One concept: a name plus a version. */
export class Variable {
  /** What a read sees now: the newest recorded write, or the current version. */
  #value: Value;
  #version: Version;

  /** What `backward` has accumulated, once there was a first one. */
  gradient?: Variable;

  constructor(
    readonly shape: readonly number[],
    readonly dtype: DType,
    contents: Contents,
    public name = "variable",
    /** Whether `backward` gives it a gradient. */
    public requiresGrad = false,
  ) {
    this.#version = new Version(this, contents);
    this.#value = leaf(this.#version);
  }

  /** The value a reader records. */
  read(): Value {
    return frozenValue(this) ?? this.#value;
  }

  get version(): Version {
    return this.#version;
  }

  /**
   * Records that the variable holds `value` from here on.
   * @throws StaleTensorError when the value reads what has been overwritten, and so can never be computed
   */
  write(value: Value): void {
    if (isRecordingWrites()) checkFresh(value);
    if (!recordWrite(this, value)) return;
    this.#value = op("variable", {}, [value], this); // an alias: readers must be told from readers of `value` itself
    this.#value.variable = this;
  }

  /** Overwrites the contents with host data, as a recorded write. */
  fill(data: (length: number) => HostArray): void {
    const value = new Node("constant", {}, [], [this]).outputs[0];
    value.kept = data(sizeOf(this.shape));
    this.write(value);
  }

  /** Makes `version` the current one: reads no longer see the graph that computed it. */
  adopt(version: Version): void {
    this.#version = version;
    this.#value = leaf(version);
  }

  /** After the flush that should have filled `failed` did not: back to the newest version that is whole. */
  revert(failed: Version): void {
    if (this.#version !== failed) return; // a later flush overwrote it without reading it
    let good = failed;
    while (good.state === "failed" && good.previous) good = good.previous;
    good.state = "current";
    this.adopt(good);
  }
}

/** The variable that a value reads. */
export function variableOf({ variable }: Value): Variable | undefined {
  return variable as Variable | undefined;
}

/** The version of a variable that a leaf was recorded with. */
export function versionOf({ version }: Value): Version | undefined {
  return version as Version | undefined;
}

function leaf(version: Version): Value {
  const value = new Node("variable", {}, [], [version.variable]).outputs[0];
  value.version = version;
  value.variable = version.variable;
  return value;
}

/** Contents that are all `value`. Throws ArgumentError where the dtype cannot hold it. */
export function filled(dtype: DType, length: number, value: number): HostArray {
  checkHolds("fill", dtype, [value]);
  const data = hostArray(dtype, length);
  if (data instanceof BigInt64Array) data.fill(BigInt(Math.trunc(value)));
  else data.fill(value);
  return data;
}
