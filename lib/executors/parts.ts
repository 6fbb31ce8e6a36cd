import { type HostArray, hostArray } from "../dtype.js";
import type { Parts } from "../plan/images.js";
import { type Plan, sizeOf } from "../plan/plan.js";
import { checkRequest } from "./check.js";
import type { DeviceName, LoadedPlan, RunRequest, RunResult, StepProfile } from "./executor.js";

/** Runs a plan for several images as plans for fewer, one after the other. */
export class PlanInParts implements LoadedPlan {
  readonly #device: DeviceName;
  readonly #plan: Plan;
  readonly #counts: readonly number[];
  readonly #loaded: ReadonlyMap<number, LoadedPlan>;

  private constructor(device: DeviceName, plan: Plan, counts: readonly number[], loaded: Map<number, LoadedPlan>) {
    this.#device = device;
    this.#plan = plan;
    this.#counts = counts;
    this.#loaded = loaded;
  }

  static async load(
    device: DeviceName,
    plan: Plan,
    { counts, planFor }: Parts,
    load: (part: Plan) => Promise<LoadedPlan>,
  ): Promise<PlanInParts> {
    const loaded = new Map<number, LoadedPlan>();
    try {
      for (const count of new Set(counts)) loaded.set(count, await load(planFor(count)));
    } catch (error) {
      await Promise.all([...loaded.values()].map((part) => part.dispose()));
      throw error;
    }
    return new PlanInParts(device, plan, counts, loaded);
  }

  async run(request: RunRequest): Promise<RunResult> {
    // all of them into the queue at once, so that nothing comes between
    const results = await Promise.all(this.#split(request).map(([part, own]) => part.run(own)));
    const { slots, outputs } = this.#plan;
    const whole = outputs.map((slot, i) => {
      const { shape, dtype } = slots[slot];
      const array = hostArray(dtype, sizeOf(shape));
      let at = 0;
      for (const { outputs: own } of results) {
        array.set(own[i] as never, at);
        at += own[i].length;
      }
      return array;
    });
    return { outputs: whole, written: [] };
  }

  /** Each kernel once, with the time and bytes of all parts. */
  async profile(request: RunRequest): Promise<StepProfile[]> {
    const [first, ...others] = await Promise.all(this.#split(request).map(([part, own]) => part.profile(own)));
    let start = 0;
    return first.map((step, i) => {
      const same = others.map((steps) => steps[i]).filter((other) => other?.op === step.op);
      const milliseconds = same.reduce((sum, other) => sum + other.milliseconds, step.milliseconds);
      const bytes = same.reduce((sum, other) => sum + other.bytes, step.bytes);
      start += milliseconds;
      return { ...step, start: start - milliseconds, milliseconds, bytes };
    });
  }

  async dispose(): Promise<void> {
    await Promise.all([...this.#loaded.values()].map((part) => part.dispose()));
  }

  #split(request: RunRequest): [LoadedPlan, RunRequest][] {
    checkRequest(this.#device, this.#plan, request);
    let done = 0;
    return this.#counts.map((count) => {
      const inputs = this.#plan.inputs.map((slot, i) => {
        const image = sizeOf(this.#plan.slots[slot].shape.slice(1));
        return request.inputs[i].subarray(done * image, (done + count) * image) as HostArray;
      });
      done += count;
      return [this.#loaded.get(count) as LoadedPlan, { ...request, inputs }];
    });
  }
}
