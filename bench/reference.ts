import Table from "cli-table3";
import { compile, createModel, tensor } from "../lib/index.js";
import { type Bench, digits, median, milliseconds } from "./report.js";
import { hostState, type Network, tfjsResNet } from "./tfjs.js";
import { largestDifference, noise, trainedLooking } from "./weights.js";

const pairs = 7;

/** Our reference executor and tfjs's pure-JavaScript backend, turn by turn; its wasm backend for orientation. */
export const reference: Bench = {
  title: "SE-ResNet-18, 224x224, batch 1: the reference executor and tfjs (pure JavaScript; wasm for orientation)",
  async run() {
    const model = trainedLooking(createModel("seresnet18")).eval();
    const state = await hostState(model.stateDict());
    const compiled = await compile(model, { device: "reference" });
    const networks: Record<string, Network> = {
      "seresnet reference": async ({ data, shape }) =>
        (await (await compiled.run(tensor(data, shape))).data()) as Float32Array,
      "tfjs cpu": await tfjsResNet("cpu", state),
      "tfjs wasm": await tfjsResNet("wasm", state),
    };
    const shape = [1, 3, 224, 224];
    const x = { shape, data: noise(3 * 224 * 224, -2, 2) };

    const times: Record<string, number[]> = {};
    const logits: Record<string, Float32Array> = {};
    for (const [name, network] of Object.entries(networks)) {
      times[name] = [];
      logits[name] = await network(x); // warm up, and keep what it says
    }
    for (let pair = 0; pair < pairs; pair++) {
      for (const [name, network] of Object.entries(networks))
        times[name].push(digits(await milliseconds(() => network(x))));
      process.stderr.write(`pair ${pair + 1} of ${pairs}\r`);
    }
    await compiled.dispose();

    const [ours, ...peers] = Object.keys(networks);
    const largest = logits[ours].reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const rows = [ours, ...peers].map((name) => ({
      name,
      milliseconds: digits(median(times[name])),
      // of each pair, so that a disturbance of the machine hits both
      timesOurs: digits(median(times[name].map((time, i) => time / times[ours][i])), 3),
      largestDifference: digits(largestDifference(logits[name], logits[ours]), 2),
    }));
    const table = new Table({
      head: ["", "ms (median)", "times ours", "logits differ by"],
      style: { head: [], border: [] },
    });
    for (const row of rows) table.push([row.name, row.milliseconds, row.timesOurs, row.largestDifference]);
    const note = `${pairs} interleaved rounds; ratio is the median of the rounds' ratios; largest logit ${digits(largest, 3)}`;
    return {
      table: `${table}\n${note}`,
      figures: { model: "seresnet18", shape, pairs, largestLogit: digits(largest), rows, times },
    };
  },
};
