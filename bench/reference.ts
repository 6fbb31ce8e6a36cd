import Table from "cli-table3";
import { compile, createModel, type nn, tensor } from "../lib/index.js";
import { type Bench, digits, median, milliseconds } from "./report.js";
import { type HostStateDict, type HostTensor, type Network, tfjsResNet } from "./tfjs.js";

const pairs = 7;

/** Reproducible numbers in [low, high). */
function noise(length: number, low: number, high: number): Float32Array {
  let seed = 1;
  return Float32Array.from({ length }, () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return low + (seed / 2 ** 32) * (high - low);
  });
}

/** Gives batch norms statistics and factors as after a training, so that none is the identity; returns all weights. */
async function trainedLooking(model: nn.Module): Promise<HostStateDict> {
  const state = new Map<string, HostTensor>();
  for (const [name, { shape, dtype }] of Object.entries(model.stateDict())) {
    if (dtype !== "float32" || shape.length !== 1 || (!name.includes(".running_") && !/bn\d|downsample\.1/.test(name)))
      continue;
    const [low, high] = /mean$|bias$/.test(name) ? [-0.2, 0.2] : [0.7, 1.3];
    state.set(name, { shape, data: noise(shape[0], low, high) });
  }
  model.loadStateDict(Object.fromEntries([...state].map(([name, { shape, data }]) => [name, tensor(data, shape)])), {
    strict: false,
  });
  for (const [name, value] of Object.entries(model.stateDict()))
    if (value.dtype === "float32") state.set(name, { shape: value.shape, data: (await value.data()) as Float32Array });
  return state;
}

function largestDifference(a: Float32Array, b: Float32Array): number {
  return a.reduce((largest, value, i) => Math.max(largest, Math.abs(value - b[i])), 0);
}

/** Our reference executor and tfjs's pure-JavaScript backend, turn by turn; its wasm backend for orientation. */
export const reference: Bench = {
  title: "SE-ResNet-18, 224x224, batch 1: the reference executor and tfjs (pure JavaScript; wasm for orientation)",
  async run() {
    const model = createModel("seresnet18").eval();
    const state = await trainedLooking(model);
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
