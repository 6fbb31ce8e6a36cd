// Fine-tunes a trained network on class folders: node fine-tune.mjs [FOLDER]
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { adaptWeights, createModel, data, fit, ImageClassifier, loadWeights, optim, saveCheckpoint } from "seresnet";

const folder = process.argv[2] ?? fileURLToPath(new URL("clothes", import.meta.url));
const dataset = await data.openImageFolder(folder); // a folder for each class
const { train, validation = train } = data.splitDataset(dataset, 0.25);

// the network that ships, with a new classifier for these classes
const trained = await ImageClassifier.load();
const { preprocessing } = trained;
const { size = 28, mean = [0.5], std = [0.5] } = preprocessing;
const model = createModel("seresnet20_cifar", { inChannels: 1, numClasses: dataset.classes.length });
const { weights, changes } = await adaptWeights(await loadWeights(trained.weights), model);
model.loadStateDict(weights);
console.log(changes.join("\n"));
await trained.dispose();

const loading = { batchSize: 6, size, channels: /** @type {const} */ (1), cropPct: 1, workers: 1 };
const epochs = 4;
await fit(model, new data.DataLoader(train, { ...loading, shuffle: true }), {
  epochs,
  optimizer: new optim.SGD(model.parameters(), { lr: 0.02, momentum: 0.9 }),
  normalize: { mean: [...mean], std: [...std] },
  validation: new data.DataLoader(validation, loading),
  onEpoch: ({ epoch, loss, validationAccuracy = 0 }) =>
    console.log(
      `epoch ${epoch} of ${epochs}: loss ${loss.toFixed(2)}, right ${(100 * validationAccuracy).toFixed(0)} %`,
    ),
});

const file = join(await mkdtemp(join(tmpdir(), "seresnet-")), "clothes.safetensors");
await saveCheckpoint(file, model.eval(), { labels: dataset.classes, preprocessing });
const tuned = await ImageClassifier.load(file); // weights, labels and preprocessing in one file
const [best] = await tuned.classify(fileURLToPath(new URL("clothes/shoes/boot2.png", import.meta.url)), { topK: 1 });
console.log(`boot2.png: ${best.label}`);
await tuned.dispose();
