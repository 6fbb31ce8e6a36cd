import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Table from "cli-table3";
import { runBatch } from "../lib/classifier/prediction.js";
import { stack } from "../lib/image/stack.js";
import { compile, createModel, ImageClassifier, saveSafetensors, tensor } from "../lib/index.js";
import { type Bench, digits, median, milliseconds } from "./report.js";

const images = 1000;
const pairs = 3;
const maxBatch = 32;
const size = 32;

/** 1,000 concurrent single-image calls against the same images in explicit batches, turn by turn. */
export const classifier: Bench = {
  title: "ImageClassifier: 1,000 concurrent single-image calls and the same images in explicit batches of 32",
  async run() {
    const folder = await mkdtemp(join(tmpdir(), "seresnet-bench-"));
    try {
      const model = createModel("seresnet20_cifar").eval();
      const weights = join(folder, "model.safetensors");
      await saveSafetensors(weights, model.stateDict());
      await using merged = await ImageClassifier.load(weights, { model: "seresnet20_cifar", maxBatch });
      await using compiled = await compile(model);
      const inputs = Array.from({ length: images }, (_, i) =>
        tensor(
          Float32Array.from({ length: 3 * size * size }, (_, at) => Math.sin(at * (1 + i))),
          [1, 3, size, size],
        ),
      );
      const ways: Record<string, () => Promise<unknown>> = {
        "explicit batches": async () => {
          for (let at = 0; at < images; at += maxBatch)
            await runBatch(compiled, await stack(inputs.slice(at, at + maxBatch)));
        },
        "concurrent calls": () => Promise.all(inputs.map((input) => merged.classify(input))),
      };
      const [explicit, concurrent] = Object.keys(ways);
      const times: Record<string, number[]> = { [explicit]: [], [concurrent]: [] };
      const delays: number[] = [];
      for (const run of Object.values(ways)) await run(); // warm up
      for (let pair = 0; pair < pairs; pair++)
        for (const [name, run] of Object.entries(ways)) {
          let last = performance.now();
          let longest = 0;
          const ticker = setInterval(() => {
            const now = performance.now();
            longest = Math.max(longest, now - last);
            last = now;
          }, 1);
          times[name].push(digits(await milliseconds(run)));
          clearInterval(ticker);
          if (name === concurrent) delays.push(digits(longest));
        }
      const share = digits(median(times[explicit].map((time, i) => time / times[concurrent][i])), 3);
      const table = new Table({ head: ["", "images a second (median)"], style: { head: [], border: [] } });
      for (const [name, all] of Object.entries(times)) table.push([name, digits(images / (median(all) / 1000), 4)]);
      const device = merged.device.name;
      return {
        table: `${table}\non ${device}: concurrent calls reach ${share} of explicit batches (median of ${pairs} pairs); longest gap between two timer ticks ${median(delays)} ms`,
        figures: { model: "seresnet20_cifar", device, images, maxBatch, pairs, share, delays, times },
      };
    } finally {
      await rm(folder, { recursive: true });
    }
  },
};
