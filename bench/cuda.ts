import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createModel, nn, saveSafetensors } from "../lib/index.js";
import { type Contender, GpuChild } from "./cuda_child.js";
import { type Options, parse, settings, type Wanted } from "./cuda_options.js";
import { type Dtype, type Feed, type GpuJob, inputsOf, type Kernels } from "./cuda_runner.js";
import { type Case, kernelsTable, type Row, table, targets } from "./cuda_table.js";
import { referenceLogits } from "./reference_logits.js";
import { type Bench, digits, median, save, usableDevice } from "./report.js";
import { trainedLooking } from "./weights.js";

/** Relative error of the logits, ‖out - ref‖ / ‖ref‖. */
const tolerance: Readonly<Record<Dtype, number>> = { float32: 1e-4, tf32: 3e-3, float16: 5e-3, bfloat16: 2e-2 };
const feeds: readonly Feed[] = ["resident", "float32", "uint8"];
const normalize = { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
/** Different images in a batch. */
const distinct = 2;

export const cuda: Bench = {
  title:
    "ResNets and SE-ResNets on a GPU, every dtype, beside PyTorch eager and torch.compile: images/s, latency, GB/s",
  async run(args = []) {
    const options = parse(args);
    const device = usableDevice(options.device);
    const folder = mkdtempSync(join(tmpdir(), "seresnet-cuda-"));
    try {
      const session = new Session(options, folder);
      const figures = () => ({
        device,
        options: { ...options, minutes: Number.isFinite(options.minutes) ? options.minutes : undefined },
        ...session.figures(),
      });
      await session.run(() => save(options.device, { figures: figures(), folder: options.results }));
      return {
        name: options.device,
        folder: options.results,
        table: session.table(),
        figures: figures(),
        failures: session.failures(),
      };
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
};

/** A network with weights as after a training, and some images: what every contender computes. */
function subject(name: string, device: Options["device"]) {
  const { image, numClasses } = settings[device];
  nn.manualSeed(1);
  const network = trainedLooking(createModel(name, { numClasses })).eval();
  const images = Uint8Array.from({ length: distinct * product(image) }, (_, i) => Math.imul(i + 1, 2654435761) >>> 24);
  const { float32: input } = inputsOf(images, { shape: [distinct, ...image], ...normalize });
  return { network, images, input, numClasses };
}

/** Puts what the reference says of every network into a folder, for a machine whose time is dear: `--logits`. */
export async function shipLogits(device: Options["device"], models: readonly string[], folder: string): Promise<void> {
  for (const name of models) {
    const { network, input } = subject(name, device);
    await referenceLogits(name, network, input, folder);
  }
}

/** One run of the benchmark: what has been found out so far, so that what is there can be saved at any time. */
class Session {
  readonly #options: Options;
  readonly #folder: string;
  readonly #start = performance.now();
  readonly #cases: Case[] = [];
  readonly #notRun: string[] = [];
  readonly #flops: Partial<Record<Dtype, number>> = {};
  readonly #versions: Record<string, unknown> = {};
  /** Contenders that could not start at all, and why. */
  readonly #leftOut = new Map<Contender, string>();

  constructor(options: Options, folder: string) {
    this.#options = options;
    this.#folder = folder;
  }

  /** Measures case after case; `report` is called after each. */
  async run(report: () => void): Promise<void> {
    const { cases, minutes, warm } = this.#options;
    const prepared = new Map<string, { model: GpuJob["model"]; pixels: string; logits: Float32Array }>();
    for (const wanted of cases) {
      const { model: name, dtype, batch } = wanted;
      const what = `${name} ${dtype} batch ${batch}`;
      if (performance.now() - this.#start > minutes * 60e3) {
        this.#notRun.push(what);
        continue;
      }
      if (!prepared.has(name)) prepared.set(name, await this.#prepare(name));
      const { logits, ...files } = prepared.get(name) as NonNullable<ReturnType<typeof prepared.get>>;
      console.error(`bench: ${what}`);
      if (warm) {
        await this.#warm(wanted, files);
        continue;
      }
      if (this.#flops[dtype] === undefined) this.#flops[dtype] = await this.#ceiling(dtype);
      this.#cases.push(await this.#measure(wanted, files, logits));
      report();
    }
  }

  /** Starts each of the others once and says how long that took. */
  async #warm(wanted: Wanted, files: Pick<GpuJob, "model" | "pixels">): Promise<void> {
    const { contenders, python, patience } = this.#options;
    for (const contender of contenders.filter((name) => name !== "seresnet")) {
      const start = performance.now();
      try {
        await (await GpuChild.start(contender, this.#jobOf(wanted, files), python, patience)).stop();
        console.error(`bench: ${contender} started in ${digits((performance.now() - start) / 1e3, 3)} s`);
      } catch (error) {
        this.#leftOut.set(contender, (error as Error).message);
        console.error(`bench: ${contender}: ${(error as Error).message}`);
      }
    }
  }

  #jobOf({ batch, dtype }: Wanted, files: Pick<GpuJob, "model" | "pixels">): GpuJob {
    const { device } = this.#options;
    return { device, ...files, shape: [batch, ...settings[device].image], dtype, ...normalize };
  }

  figures() {
    return {
      versions: this.#versions,
      flops: this.#flops,
      cases: this.#cases,
      targets: targets(this.#cases),
      notRun: this.#notRun,
      leftOut: Object.fromEntries(this.#leftOut),
    };
  }

  /** Cases of ours that were not measured, because they went wrong. */
  failures(): string[] {
    return this.#cases.flatMap(({ model, dtype, batch, rows: [{ failed }] }) =>
      failed === undefined ? [] : [`${model} ${dtype} batch ${batch}: ${failed}`],
    );
  }

  table(): string {
    const lines = [table(this.#cases)];
    const [first] = this.#cases.filter(({ kernels }) => kernels);
    if (first) lines.push(kernelsTable(first));
    for (const { what, got, wanted } of targets(this.#cases)) lines.push(`target: ${what}: ${got}, wanted ${wanted}`);
    for (const [name, why] of this.#leftOut) lines.push(`LEFT OUT ${name}: ${why}`);
    if (this.#notRun.length > 0) lines.push(`not run, for want of time: ${this.#notRun.join(", ")}`);
    return lines.join("\n");
  }

  /** A model's weights as a file, some images, and what the reference says of them. */
  async #prepare(name: string) {
    const { device, logits: folder } = this.#options;
    const { network, images, input, numClasses } = subject(name, device);
    const weights = join(this.#folder, `${name}.safetensors`);
    await saveSafetensors(weights, network.stateDict());
    const pixels = join(this.#folder, "pixels.bin");
    writeFileSync(pixels, images);
    const { logits, shipped } = await referenceLogits(name, network, input, folder);
    if (folder && !shipped)
      console.error(`bench: the reference's logits of ${name} were not there, or of other weights`);
    return { model: { name, weights, numClasses }, pixels, logits };
  }

  /** Floating-point operations a second of a large product of matrices. */
  async #ceiling(dtype: Dtype): Promise<number> {
    const { device, rounds } = this.#options;
    const { product: shape, scratch } = settings[device];
    const job = { device, shape, dtype, pixels: "", ...normalize };
    const child = await GpuChild.start("seresnet", job, "", this.#options.patience);
    try {
      const { kernels } = await child.ask({ ask: "kernels", rounds, scratch });
      return Math.max(...kernels.map(({ flops, milliseconds }) => flops / (milliseconds / 1e3)));
    } finally {
      await child.stop();
    }
  }

  async #measure(wanted: Wanted, files: Pick<GpuJob, "model" | "pixels">, reference: Float32Array): Promise<Case> {
    const { python, patience } = this.#options;
    const { dtype, batch } = wanted;
    const job = this.#jobOf(wanted, files);
    const children: GpuChild[] = [];
    const rows: Row[] = [];
    try {
      for (const contender of this.#options.contenders.filter((name) => !this.#leftOut.has(name))) {
        const fail = (why: string) => rows.push({ contender, failed: why });
        try {
          const child = await GpuChild.start(contender, job, python, patience);
          children.push(child);
          this.#versions[contender] = child.started.versions;
          const differences = await differencesOf(child, reference, batch);
          if (differences.some((difference) => !(difference <= tolerance[dtype])) && contender === "seresnet") {
            fail(`wrong: it differs from the reference by ${differences.map((d) => digits(d, 2)).join(" and ")}`);
            break; // nobody times what is wrong
          }
          rows.push({ contender, differs: digits(Math.max(...differences), 2), ready: digits(child.started.ready, 3) });
        } catch (error) {
          const why = (error as Error).message;
          fail(why);
          console.error(`bench: ${contender}: ${why}`);
          if (contender === "seresnet") break;
          if (this.#cases.length === 0) this.#leftOut.set(contender, why); // what is not there does not come later
        }
      }
      if (rows[0].failed !== undefined) return { ...wanted, rows };
      const timed = await this.#alternate(children, batch);
      return {
        ...wanted,
        rows: rows.map((row) => ({ ...row, ...timed.get(row.contender) })),
        kernels: await this.#kernels(children[0], dtype),
      };
    } finally {
      await Promise.all(children.map((child) => child.stop()));
    }
  }

  /** Turn by turn, so that what disturbs the machine hits all. Times are medians of the rounds. */
  async #alternate(children: readonly GpuChild[], batch: number): Promise<Map<Contender, Partial<Row>>> {
    const { rounds, device } = this.#options;
    const { turn } = settings[device];
    const found = new Map<string, { latency: number[]; milliseconds: number[] }>();
    const calls = new Map<string, number>();
    const most = new Map<Contender, number>();
    for (let round = -1; round < rounds; round++)
      for (const feed of feeds)
        for (const child of round % 2 === 0 ? children : [...children].reverse()) {
          const key = `${child.contender} ${feed}`;
          const times = await child.ask({ ask: "times", feed, calls: calls.get(key) ?? 1 });
          if (times.most !== undefined) most.set(child.contender, times.most);
          if (round < 0) {
            // warm by now: how many make a turn
            calls.set(key, Math.min(1000, Math.max(1, Math.round(turn / times.milliseconds))));
            continue;
          }
          const { latency, milliseconds } = found.get(key) ?? { latency: [], milliseconds: [] };
          latency.push(times.latency);
          milliseconds.push(times.milliseconds);
          found.set(key, { latency, milliseconds });
        }
    return new Map(
      children.map(({ contender }) => [
        contender,
        {
          ...Object.fromEntries(
            feeds.map((feed) => {
              const { latency, milliseconds } = found.get(`${contender} ${feed}`) ?? { latency: [], milliseconds: [] };
              const each = median(milliseconds);
              return [
                feed,
                {
                  latency: digits(median(latency)),
                  milliseconds: digits(each),
                  imagesPerSecond: digits((1e3 * batch) / each),
                  rounds: milliseconds.map((time) => digits(time)),
                },
              ];
            }),
          ),
          peakBytes: most.get(contender),
        },
      ]),
    );
  }

  #kernels(child: GpuChild, dtype: Dtype): Promise<Kernels> {
    const { rounds, device } = this.#options;
    return child.ask({ ask: "kernels", rounds, scratch: settings[device].scratch, flops: this.#flops[dtype] });
  }
}

/** Relative error of every image's logits, the largest: for floats and for pixels. */
export async function differencesOf(
  child: Pick<GpuChild, "ask">,
  reference: Float32Array,
  batch: number,
): Promise<number[]> {
  const classes = reference.length / distinct;
  const differences: number[] = [];
  for (const feed of ["float32", "uint8"] as const) {
    const logits = await child.ask({ ask: "logits", feed });
    const images = Math.min(batch, logits.length / classes);
    if (!(images >= 1)) throw new Error(`expected logits of ${classes} classes, got ${logits.length} numbers`);
    let largest = 0;
    for (let image = 0; image < images; image++) {
      const start = (image % distinct) * classes;
      let error = 0;
      let norm = 0;
      for (let i = 0; i < classes; i++) {
        error += (logits[image * classes + i] - reference[start + i]) ** 2;
        norm += reference[start + i] ** 2;
      }
      const difference = Math.sqrt(error / norm);
      largest = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : Math.max(largest, difference);
    }
    differences.push(largest);
  }
  return differences;
}

const product = (shape: readonly number[]) => shape.reduce((all, extent) => all * extent, 1);
