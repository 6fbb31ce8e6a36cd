import Table from "cli-table3";
import type { Command } from "commander";
import { createModel } from "../../models/index.js";
import { compile } from "../compile/compile.js";
import { listDevices } from "../devices/resolve.js";
import { SeresnetError } from "../errors.js";
import { formatShape, sizeOf } from "../shape.js";
import { tensor } from "../tensor.js";
import { usualInput } from "./models.js";
import {
  type ComputeType,
  type Device,
  deviceOption,
  dtypeOption,
  jsonOption,
  parseCount,
  parseCountUpTo,
} from "./options.js";
import { colours, print, printJson, reportError } from "./output.js";

interface Options {
  device: Device;
  dtype: ComputeType;
  batch: number[];
  threads?: number;
  seconds: number;
  json?: boolean;
}

/** What one device does with one batch size. Times are milliseconds a call, of the whole batch. */
interface Timing {
  device: string;
  batch: number;
  calls: number;
  /** Until `compile` is done. */
  compile: number;
  first: number;
  median: number;
  fastest: number;
  imagesPerSecond: number;
}

const fewestCalls = 3;
const mostBatch = 4096;

export function addBench(program: Command): void {
  program
    .command("bench")
    .description("Time a network on the devices of this machine.")
    .argument("[model]", "a name that `seresnet models` lists", "seresnet50")
    .addOption(
      deviceOption().default("all", "every device that works").choices(["all", "auto", "cuda", "cpu", "reference"]),
    )
    .addOption(dtypeOption())
    .option("--batch <counts>", "images a call; several with commas", parseBatches, [1, 8])
    .option("--threads <count>", "threads on the CPU devices (default: every core)", parseCount)
    .option("--seconds <count>", "time to spend on each, at the least three calls", parseCountUpTo(3600), 3)
    .addOption(jsonOption())
    .addHelpText(
      "after",
      "\nExamples:\n  seresnet bench\n  seresnet bench resnet18 --device cpu --batch 1,4,16 --threads 2 --json",
    )
    .action(bench);
}

function parseBatches(text: string): number[] {
  return text.split(",").map(parseCountUpTo(mostBatch));
}

async function bench(model: string, { device, dtype, batch, threads, seconds, json }: Options): Promise<void> {
  const network = createModel(model).eval();
  const usable = listDevices().filter((info) => info.usable);
  const devices = (device as string) === "all" ? usable.map(({ name }) => name) : [device];
  const timings: Timing[] = [];
  for (const name of devices)
    for (const count of batch) {
      const shape = [count, ...usualInput(model)];
      try {
        timings.push(await time(network, name, shape, { dtype, threads, seconds }));
      } catch (error) {
        // one device that cannot do this is no reason to say nothing of the others
        if (devices.length === 1 || !(error instanceof SeresnetError)) throw error;
        reportError(error);
        break;
      }
    }
  if (timings.length === 0) process.exitCode = 1;
  const input = usualInput(model);
  if (json) return printJson({ model, input, dtype, threads: threads ?? null, timings });
  if (timings.length > 0) print(`${model}, images ${formatShape(input)}, ${dtype}\n${tableOf(timings)}`);
}

async function time(
  network: ReturnType<typeof createModel>,
  device: Device,
  shape: number[],
  { dtype, threads, seconds }: Pick<Options, "dtype" | "threads" | "seconds">,
): Promise<Timing> {
  const x = tensor(
    Float32Array.from({ length: sizeOf(shape) }, (_, i) => Math.sin(i)),
    shape,
  );
  const start = performance.now();
  await using compiled = await compile(network, { device, dtype, threads, inputShape: shape });
  const ready = performance.now();
  const call = async () => {
    const from = performance.now();
    await (await compiled.run(x)).data();
    return performance.now() - from;
  };
  const first = await call();
  const times: number[] = [];
  const end = performance.now() + seconds * 1000;
  while (times.length < fewestCalls || performance.now() < end) times.push(await call());
  times.sort((a, b) => a - b);
  const median = times[times.length >> 1];
  return {
    device: compiled.device.name,
    batch: shape[0],
    calls: times.length,
    compile: ready - start,
    first,
    median,
    fastest: times[0],
    imagesPerSecond: (shape[0] * 1000) / median,
  };
}

function tableOf(timings: readonly Timing[]): string {
  const table = new Table({
    head: ["device", "batch", "ms a call", "fastest", "first", "compile", "images/s", "calls"],
    colAligns: ["left", ...new Array<"right">(7).fill("right")],
    style: { head: [], border: [], compact: true },
  });
  for (const { device, batch, calls, compile: ready, first, median, fastest, imagesPerSecond } of timings)
    table.push([
      device,
      batch,
      colours.bold(shown(median)),
      shown(fastest),
      shown(first),
      shown(ready),
      colours.bold(shown(imagesPerSecond)),
      calls,
    ]);
  return table.toString();
}

/** Three digits are more than a timing holds. */
const shown = (value: number) => (value >= 100 ? value.toFixed(0) : value.toPrecision(3));
