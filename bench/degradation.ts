import Table from "cli-table3";
import { type IdxDataset, loadIdxDataset } from "../lib/data/idx.js";
import { resolveDevice } from "../lib/devices/resolve.js";
import { createModel, functional, nn, optim, type Tensor, tensor } from "../lib/index.js";
import { degradationReport } from "./degradation_report.js";
import { ProbeNet, probes } from "./probe_net.js";
import { type Bench, digits } from "./report.js";

const networks = ["plain20_cifar", "plain56_cifar", "resnet20_cifar", "resnet56_cifar", "seresnet20_cifar"] as const;

/** How much is done: the same for every network. */
export interface Budget {
  readonly images: number;
  readonly epochs: number;
  readonly batch: number;
  /** Steps between the first and the last look at the gradients. */
  readonly probeSteps: number;
}

const budgets: Readonly<Record<string, Budget>> = {
  quick: { images: 1024, epochs: 2, batch: 64, probeSteps: 10 },
  medium: { images: 12_800, epochs: 6, batch: 64, probeSteps: 200 },
  full: { images: 60_000, epochs: 40, batch: 128, probeSteps: 500 },
};
const probeDepth = 20;
const dataset = "/usr/share/datasets/fashion-mnist";

interface Batch {
  readonly x: Tensor;
  readonly target: Tensor;
}

/** Batches in an order drawn from `seed`, images normalised to mean 0 and deviation 1; a last short one is left out. */
function* batches(data: IdxDataset, { images, batch }: Budget, seed: number): Generator<Batch> {
  const order = shuffled(Math.min(images, data.count), seed);
  const size = data.height * data.width;
  for (let start = 0; start + batch <= order.length; start += batch) {
    const pixels = new Float32Array(batch * size);
    const labels = new Int32Array(batch);
    for (let i = 0; i < batch; i++) {
      const from = order[start + i];
      labels[i] = data.labels[from];
      for (let p = 0; p < size; p++) pixels[i * size + p] = (data.images[from * size + p] / 255 - 0.286) / 0.353;
    }
    yield { x: tensor(pixels, [batch, 1, data.height, data.width]), target: tensor(labels) };
  }
}

/** 0 … count - 1 in an order drawn from `seed` (Fisher and Yates, a linear congruential generator). */
function shuffled(count: number, seed: number): Uint32Array {
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  let state = (seed * 2654435761 + 1) >>> 0;
  for (let i = count - 1; i > 0; i--) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const j = Math.floor((state / 2 ** 32) * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

/** Training loss and error by epoch, as the network met the images (He et al. 2016, figure 1). */
export interface Curve {
  readonly name: string;
  readonly loss: number[];
  readonly trainingError: number[];
  readonly testError: number;
}

async function train(name: string, train: IdxDataset, test: IdxDataset, budget: Budget): Promise<Curve> {
  const model = createModel(name, { inChannels: 1, numClasses: 10, seed: 1 });
  const steps = Math.floor(budget.images / budget.batch) * budget.epochs;
  const schedule = optim.cosineSchedule({ lr: 0.05, totalSteps: steps, warmupSteps: Math.ceil(steps / 10) });
  const sgd = new optim.SGD(model.parameters(), { momentum: 0.9, weightDecay: 1e-4 });
  const curve = { name, loss: [] as number[], trainingError: [] as number[] };
  let step = 0;
  for (let epoch = 0; epoch < budget.epochs; epoch++) {
    let [loss, wrong, seen] = [0, 0, 0];
    for (const { x, target } of batches(train, budget, epoch)) {
      sgd.lr = schedule(step++);
      sgd.zeroGrad();
      const logits = model.forward(x);
      const batchLoss = functional.crossEntropy(logits, target);
      batchLoss.backward();
      const answers = logits.data();
      sgd.step();
      loss += (await batchLoss.item()) * budget.batch;
      wrong += mistakes((await answers) as Float32Array, (await target.data()) as Int32Array);
      seen += budget.batch;
    }
    curve.loss.push(digits(loss / seen));
    curve.trainingError.push(digits(wrong / seen));
    console.error(`${name}: epoch ${epoch + 1} of ${budget.epochs}, training error ${percent(wrong / seen)}`);
  }
  model.eval();
  let [wrong, seen] = [0, 0];
  for (const { x, target } of batches(test, { ...budget, images: Math.min(budget.images, test.count) }, 0)) {
    wrong += mistakes((await model.forward(x).data()) as Float32Array, (await target.data()) as Int32Array);
    seen += budget.batch;
  }
  return { ...curve, testError: digits(wrong / seen) };
}

function mistakes(logits: Float32Array, targets: Int32Array): number {
  const classes = logits.length / targets.length;
  return targets.reduce((count, target, i) => {
    const row = logits.subarray(i * classes, (i + 1) * classes);
    return count + (row.indexOf(row.reduce((a, b) => Math.max(a, b))) === target ? 0 : 1);
  }, 0);
}

/** Norm of the loss's gradient by each layer's weights, first layer first, at the first and the last step. */
export interface Probe {
  readonly name: string;
  readonly layers: string[];
  readonly first: number[];
  readonly last: number[];
  readonly loss: { readonly first: number; readonly last: number };
  /** Norm at the first layer over that at the last convolution: far below 1, the gradient vanished. */
  readonly ratio: { readonly first: number; readonly last: number };
}

async function probe(name: string, data: IdxDataset, budget: Budget): Promise<Probe> {
  nn.manualSeed(1);
  const model = new ProbeNet(probeDepth, probes[name]);
  const sgd = new optim.SGD(model.parameters(), { lr: 0.01, momentum: 0.9 });
  const layers = model.layers();
  const seen: { norms: number[]; loss: number }[] = [];
  let step = 0;
  for (let epoch = 0; step < budget.probeSteps; epoch++)
    for (const { x, target } of batches(data, budget, epoch)) {
      if (step === budget.probeSteps) break;
      sgd.zeroGrad();
      const loss = functional.crossEntropy(model.forward(x), target);
      loss.backward();
      const isLast = ++step === budget.probeSteps;
      if (step === 1 || isLast) {
        const sums = layers.map(([layer, { grad }]) => {
          if (!grad) throw new Error(`${name}: ${layer} has no gradient`);
          return grad.mul(grad).sum().item();
        });
        const [value, ...squares] = await Promise.all([loss.item(), ...sums]);
        seen.push({ norms: squares.map((square) => digits(Math.sqrt(square))), loss: digits(value) });
      }
      sgd.step();
      await loss.item();
    }
  const [first, last] = [seen[0], seen[seen.length - 1]];
  const ratio = ({ norms }: { norms: number[] }) => digits(norms[0] / norms[norms.length - 2], 3);
  return {
    name,
    layers: layers.map(([layer]) => layer),
    first: first.norms,
    last: last.norms,
    loss: { first: first.loss, last: last.loss },
    ratio: { first: ratio(first), last: ratio(last) },
  };
}

/** What residual networks are for: He et al. 2016, figures 1 and 6, and Glorot & Bengio 2010 on the gradients. */
export const degradation: Bench = {
  title: "what residual networks are for: training error by depth, and gradients by layer (--quick, --full)",
  async run(args = []) {
    const size = args.includes("--full") ? "full" : args.includes("--quick") ? "quick" : "medium";
    const budget = budgets[size];
    const [training, test] = await Promise.all([loadIdxDataset(dataset, "train"), loadIdxDataset(dataset, "test")]);
    const curves: Curve[] = [];
    for (const name of networks) curves.push(await train(name, training, test, budget));
    const gradients: Probe[] = [];
    for (const name of Object.keys(probes)) gradients.push(await probe(name, training, budget));
    const device = resolveDevice("auto").description;
    return {
      page: await degradationReport({ device, budget, curves, gradients }),
      table: `${depthTable(curves)}\n${gradientTable(gradients)}`,
      figures: { dataset: "Fashion-MNIST", device, size, budget, curves, gradients },
    };
  },
};

const percent = (share: number) => `${(100 * share).toFixed(1)} %`;

function depthTable(curves: readonly Curve[]): string {
  const table = new Table({
    head: ["network", "training error, last epoch", "training loss", "test error"],
    style: { head: [], border: [] },
  });
  for (const { name, trainingError, loss, testError } of curves)
    table.push([name, percent(trainingError[trainingError.length - 1]), loss[loss.length - 1], percent(testError)]);
  return table.toString();
}

function gradientTable(gradients: readonly Probe[]): string {
  const table = new Table({
    head: [`${probeDepth} layers`, "first / last conv, step 1", "the same, last step", "loss, first to last step"],
    style: { head: [], border: [] },
  });
  for (const { name, ratio, loss } of gradients)
    table.push([name, ratio.first, ratio.last, `${loss.first} to ${loss.last}`]);
  return table.toString();
}
