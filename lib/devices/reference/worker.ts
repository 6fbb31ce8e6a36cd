import { parentPort, workerData } from "node:worker_threads";
import { roundTo } from "../../dtype.js";
import { SeresnetError } from "../../errors.js";
import { Barrier } from "./barrier.js";
import { collect } from "./garbage.js";
import type { Share, Task } from "./kernels/kernel.js";
import { kernels } from "./kernels.js";
import { bindProgram, type Program, type Reply, type Request, type StepTime } from "./messages.js";

interface Loaded extends Pick<ReturnType<typeof bindProgram>, "bindVariables"> {
  readonly tasks: readonly (Task & { readonly op: string })[];
}

const loaded = new Map<number, Loaded>();

function load(program: Program): Loaded {
  const { views, bindVariables } = bindProgram(program);
  const tasks = program.plan.steps.map(({ op, attributes, inputs, outputs }) => ({
    op,
    attributes,
    inputs: inputs.map((slot) => views[slot]),
    outputs: outputs.map((slot) => views[slot]),
  }));
  return { tasks, bindVariables };
}

/** Goes through all steps together with the other threads. */
function run(tasks: Loaded["tasks"], thread: number, threads: number): Reply {
  const barrier = new Barrier(workerData as Int32Array, threads);
  const share: Share = (total) => [
    Math.floor((total * thread) / threads),
    Math.floor((total * (thread + 1)) / threads),
  ];
  const times: StepTime[] = [];
  const begin = performance.now();
  for (const task of tasks) {
    const start = performance.now();
    try {
      kernels[task.op](task, share);
      if (!barrier.wait()) return {};
      const halves = task.outputs.filter(({ dtype }) => dtype === "float16" || dtype === "bfloat16");
      for (const { dtype, data } of halves) roundTo(dtype, data, ...share(data.length));
      if (halves.length > 0 && !barrier.wait()) return {};
      if (thread === 0) times.push({ start: start - begin, milliseconds: performance.now() - start });
    } catch (error) {
      barrier.abandon();
      if (error instanceof SeresnetError) return { error: { name: error.name, message: error.message } };
      return { error: { name: "DeviceError", message: `reference: ${task.op} failed: ${(error as Error).message}` } };
    }
  }
  return { times };
}

parentPort?.on("message", (request: Request) => {
  if (request.kind === "load") loaded.set(request.program.id, load(request.program));
  if (request.kind === "unload") loaded.delete(request.id);
  if (request.kind === "collect") collect("full");
  if (request.kind === "run") {
    const { tasks, bindVariables } = loaded.get(request.id) as Loaded;
    bindVariables(request.variables);
    parentPort?.postMessage(run(tasks, request.thread, request.threads));
  }
});
