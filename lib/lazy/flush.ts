import type { DeviceBuffer, Executor, LoadedPlan } from "../devices/executor.js";
import { defaultExecutor } from "../devices/resolve.js";
import type { HostArray } from "../dtype.js";
import { ArgumentError, DeviceError, expected } from "../errors.js";
import { differentiate } from "../graph/passes/differentiate.js";
import { expand, fuse } from "../graph/passes/fuse.js";
import { fuseEpilogues } from "../graph/passes/fuse_epilogues.js";
import { isVariable, leavesUnder, type Value } from "../graph/value.js";
import { LeastRecentlyUsed } from "../lru.js";
import { lower, trace } from "../plan/lower.js";
import type { Plan } from "../plan/plan.js";
import { hasPendingWrites, isRecordingWrites, recordWrite, takePendingWrites } from "./recording.js";
import { lost, lostUnder, versionsChanged } from "./stale.js";
import { type Variable, Version, versionOf } from "./variable.js";

/*
 * A flush runs every pending write once, plus all values asked for in the same tick, as one plan. It is *submitted*
 * synchronously (staleness is judged, the plan is found or made, versions advance) and *runs* after the flushes before it.
 */

interface Request {
  resolve(data: HostArray): void;
  reject(error: unknown): void;
}

let asked = new Map<Value, Request[]>();
let scheduled = false;
let queue: Promise<void> = Promise.resolve();

/**
 * Asks for a value: resolves to the caller's own copy once the flush of this tick has run.
 * Throws ArgumentError, at once, in a forward that is recorded in isolation: what is computed there has no values.
 */
export function read(value: Value): Promise<HostArray> {
  if (!isRecordingWrites() && !value.isLeaf)
    throw new ArgumentError(
      expected(
        "data",
        "a forward that asks for no values, as compile, summary and exportOnnx record it without an input's",
        "a call of data or item in it",
      ),
    );
  return share(value).then((data) => data.slice());
}

/** The same without the copy: the array is the graph's own and must never be changed. */
export function share(value: Value): Promise<HostArray> {
  if (value.kept && !hasPendingWrites()) return Promise.resolve(value.kept);
  return new Promise((resolve, reject) => {
    const requests = asked.get(value);
    if (requests) requests.push({ resolve, reject });
    else asked.set(value, [{ resolve, reject }]);
    if (scheduled) return;
    scheduled = true;
    queueMicrotask(() => {
      scheduled = false;
      submit();
    });
  });
}

/** Has the next flush compute and keep a value nobody waits for. */
export function keep(value: Value): void {
  if (!value.isLeaf && !asked.has(value)) asked.set(value, []);
}

/** Submits a flush of all pending writes and requests without waiting for it. */
export function submit(): void {
  const requests = asked;
  const writes = takePendingWrites() as Map<Variable, Value>;
  asked = new Map();
  const run = prepare(requests, writes);
  queue = queue.then(run);
}

/** A plan and, once it was needed, the executor's copy of it. */
interface Prepared {
  readonly plan: Plan;
  loaded?: Promise<LoadedPlan>;
}

const plans = new LeastRecentlyUsed<Prepared>(32, (prepared) => {
  prepared.loaded?.then((plan) => plan.dispose()).catch(() => {}); // a plan that failed to load has nothing to free
  prepared.loaded = undefined;
});

/** The synchronous half of a flush; returns the asynchronous one, which never rejects. */
function prepare(requests: Map<Value, Request[]>, writes: Map<Variable, Value>): () => Promise<void> {
  const reject = (value: Value, error: unknown) => {
    for (const request of requests.get(value) ?? []) request.reject(error);
    requests.delete(value);
  };
  let executor: Executor | undefined;
  try {
    if ([...requests.keys(), ...writes.values()].some((value) => !source(value).isLeaf)) executor = defaultExecutor();
  } catch (error) {
    for (const value of [...requests.keys()]) reject(value, error);
    for (const [variable, value] of writes) recordWrite(variable, value); // they wait for a device that works
    return async () => {};
  }
  if (leavesUnder([...requests.keys(), ...writes.values()]).some(lost)) {
    for (const value of [...requests.keys()]) {
      const error = lostUnder(value);
      if (error) reject(value, error);
    }
    for (const [variable, value] of [...writes]) {
      if (!lostUnder(value)) continue;
      variable.adopt(variable.version); // computed from what is gone: there is nothing to write
      writes.delete(variable);
    }
  }

  const outputs = [...requests.keys()].filter((value) => !source(value).isLeaf);
  const written = [...new Set(writes.values())].filter((value) => !value.isLeaf);
  let work: (() => Promise<Results>) | undefined;
  try {
    if (executor && outputs.length + written.length > 0) work = planned(executor, outputs, written);
  } catch (error) {
    for (const value of [...requests.keys()]) reject(value, error);
    for (const variable of writes.keys()) variable.adopt(variable.version);
    return async () => {};
  }

  if (writes.size > 0) versionsChanged();
  for (const value of outputs) value.underWay = true;
  const versions = new Map<Version, Value>();
  const seen = new Map<Version, Value>();
  for (const [variable, value] of writes) {
    variable.version.state = "replaced";
    const version = new Version(variable, value.kept, variable.version);
    versions.set(version, value);
    seen.set(version, variable.read());
    variable.adopt(version);
    if (written.includes(value)) value.version ??= version;
  }
  // what was recorded on top of a write reads the variable from here on
  for (const [version, value] of seen) value.version ??= version;

  const succeed = (results: Results | undefined) => {
    for (const version of versions.keys()) {
      if (version.previous) version.previous.contents = undefined;
      version.previous = undefined;
    }
    for (const value of outputs) {
      value.kept = results?.outputs.get(value);
      value.node.forget();
    }
  };
  const fail = (error: unknown) => {
    versionsChanged();
    for (const [version, value] of versions) {
      version.state = "failed";
      version.error = error;
      version.variable.revert(version);
      for (const reader of [value, seen.get(version)]) if (reader?.version === version) reader.version = undefined;
    }
    for (const value of outputs) value.failure = error;
    for (const value of [...requests.keys()]) reject(value, error);
  };
  return async () => {
    const answers = new Map<Value, HostArray>();
    try {
      const results = await work?.();
      for (const [version, value] of versions)
        version.contents = results?.written.get(value) ?? (await contentsOf(value));
      for (const value of [...requests.keys()]) {
        // before anything is overwritten: a variable's old contents may have been asked for
        const answer =
          results?.outputs.get(value) ?? (await hostOf(source(value)).catch((error) => reject(value, error)));
        if (answer) answers.set(value, answer);
      }
      succeed(results);
    } catch (error) {
      fail(error);
    }
    for (const value of outputs) value.underWay = false;
    for (const [value, waiting] of requests)
      for (const request of waiting) request.resolve(answers.get(value) as HostArray);
  };
}

interface Results {
  readonly outputs: Map<Value, HostArray>;
  readonly written: Map<Value, DeviceBuffer>;
}

/** Finds or makes the plan for a graph now; the function returned loads and runs it. */
function planned(executor: Executor, outputs: readonly Value[], written: readonly Value[]): () => Promise<Results> {
  const roots = [...outputs, ...written];
  const labels = roots.map((_, i) => (i < outputs.length ? "output" : "write"));
  const { leaves, key } = trace(roots, labels);
  const name = `${executor.device} ${key}`;
  const prepared = plans.get(name) ?? { plan: makePlan(executor, leaves, outputs, written) };
  plans.set(name, prepared);
  const inputs = leaves.filter((leaf) => !isVariable(leaf));
  const variables = leaves.flatMap((leaf) => {
    const version = isVariable(leaf) ? versionOf(leaf) : undefined;
    return version ? [version] : [];
  });
  return async () => {
    plans.set(name, prepared); // it may have been dropped while this flush waited
    prepared.loaded ??= executor.load(prepared.plan, []);
    prepared.loaded.catch(() => plans.delete(name));
    const loaded = await prepared.loaded;
    const result = await loaded.run({
      inputs: await Promise.all(inputs.map(hostOf)),
      variables: await buffersOf(variables, executor),
    });
    return {
      outputs: new Map(outputs.map((value, i) => [value, result.outputs[i]])),
      written: new Map(written.map((value, i) => [value, result.written[i]])),
    };
  };
}

function makePlan(
  executor: Executor,
  leaves: readonly Value[],
  outputs: readonly Value[],
  written: readonly Value[],
): Plan {
  const roots = expand(fuse(differentiate(fuseEpilogues([...outputs, ...written]))), executor.fused);
  const role = (leaf: Value) => (isVariable(leaf) ? "variables" : "inputs");
  return lower(leaves, role, roots.slice(0, outputs.length), roots.slice(outputs.length));
}

/** The value behind what a read of a just written variable gives. */
function source(value: Value): Value {
  let behind = value;
  while (!behind.isLeaf && behind.node.op === "variable") behind = behind.node.inputs[0];
  return behind;
}

async function hostOf(value: Value): Promise<HostArray> {
  if (value.kept) return value.kept;
  const version = versionOf(value);
  if (version) return heldBy(version).host();
  throw value.failure ?? new DeviceError("this value was asked for in a flush that failed; ask for it again");
}

function heldBy(version: Version): Version {
  if (version.state === "failed")
    throw new DeviceError(`${version.variable.name}: the update this value reads failed`, { cause: version.error });
  return version;
}

async function contentsOf(value: Value): Promise<HostArray | DeviceBuffer> {
  const version = versionOf(value);
  return value.kept ?? (version ? heldBy(version).initialised() : hostOf(value));
}

/** One buffer for each version, however often it is read: moved there twice, the first would be released. */
function buffersOf(versions: readonly Version[], executor: Executor): Promise<DeviceBuffer[]> {
  const moved = new Map([...new Set(versions)].map((version) => [version, onDevice(version, executor)] as const));
  return Promise.all(versions.map((version) => moved.get(version) as Promise<DeviceBuffer>));
}

/** The contents of a version on an executor's device; they move there when they were elsewhere. */
async function onDevice(version: Version, executor: Executor): Promise<DeviceBuffer> {
  const contents = heldBy(version).initialised();
  if ("executor" in contents && contents.executor === executor) return contents;
  const buffer = await executor.upload(await version.host(), version.variable.dtype);
  version.contents = buffer;
  return buffer;
}
