import Table from "cli-table3";
import type { Command } from "commander";
import type { Prediction } from "../classifier/prediction.js";
import { type ClassifierOptions, loadClassifier } from "../classifier/source.js";
import { compile } from "../compile/compile.js";
import { ArgumentError, expected } from "../errors.js";
import { defaultWeightsNote } from "../paths.js";
import { openLabelledImages } from "./labelled_images.js";
import {
  type ComputeType,
  type Device,
  deviceOption,
  dtypeOption,
  inChannelsOption,
  jsonOption,
  modelOption,
  modelOptionsOption,
  parseCount,
  weightsOption,
} from "./options.js";
import { harmless, percent, print, printJson, warn, withDownloadBar, withProgress } from "./output.js";
import { predictAll } from "./predict.js";

interface Options extends ClassifierOptions {
  device: Device;
  dtype: ComputeType;
  batch: number;
  limit?: number;
  json?: boolean;
}

export function addEvaluate(program: Command): void {
  program
    .command("evaluate")
    .description("Measure accuracy on labelled images.")
    .argument(
      "<data>",
      "a folder with IDX test files (MNIST's layout), or one of class folders, or the one that train took",
    )
    .addOption(weightsOption())
    .addOption(modelOption())
    .addOption(modelOptionsOption())
    .addOption(inChannelsOption())
    .option("--labels <file>", "labels, one a line, in place of the model's own")
    .addOption(deviceOption())
    .addOption(dtypeOption())
    .option("--batch <count>", "images computed at once", parseCount, 128)
    .option("--limit <count>", "stop after this many images (class folders: spread over all classes)", parseCount)
    .option("--strict", "refuse weights that hold NaN or infinite numbers")
    .addOption(jsonOption())
    .addHelpText(
      "after",
      `
Examples:
  seresnet evaluate /usr/share/datasets/fashion-mnist --limit 1000
  seresnet evaluate flowers/val --weights flowers.safetensors --json`,
    )
    .action(evaluate);
}

async function evaluate(data: string, options: Options): Promise<void> {
  const { device, dtype, batch, limit = Number.POSITIVE_INFINITY, json } = options;
  const classifier = await withDownloadBar((onProgress) => loadClassifier({ ...options, onProgress }));
  for (const change of classifier.changes) warn(`adapted: ${change}`);
  const labelled = await openLabelledImages(data, classifier, limit);
  const note = options.weights === undefined ? defaultWeightsNote : undefined;
  if (note) warn(note);
  const { classes, mean, std, model } = classifier.info;
  await using compiled = await compile(classifier.network, { device, dtype, normalize: { mean, std } });
  const { predictions, places, skipped, seconds } = await withProgress("evaluate", labelled.labels.length, (advance) =>
    predictAll(compiled, labelled, classes, batch, advance),
  );
  for (const why of skipped) warn(`${why}: skipped`);
  const images = predictions.length;
  if (images === 0) throw new ArgumentError(expected(data, "images that can be read", `${skipped.length} that cannot`));
  const truths = places.map((place) => labelled.labels[place]);
  const perClass = countByClass(predictions, truths, classes);
  const correct = perClass.reduce((sum, { correct }) => sum + correct, 0);
  const result = {
    images,
    skipped: skipped.length,
    correct,
    accuracy: correct / images,
    model,
    weights: classifier.weights,
    note,
    device: compiled.device.name,
    dtype,
    seconds,
    imagesPerSecond: images / seconds,
    perClass,
  };
  if (json) return printJson(result);
  const table = new Table({
    head: ["class", "images", "right", "accuracy"],
    colAligns: ["left", "right", "right", "right"],
    style: { head: [], border: [], compact: true },
  });
  for (const { label, images, correct, accuracy } of perClass)
    table.push([harmless(label), images, correct, accuracy === null ? "" : percent(accuracy)]);
  print(table.toString());
  const left = skipped.length > 0 ? `; ${skipped.length} could not be read` : "";
  print(`accuracy ${percent(result.accuracy, 2)}: ${correct} of ${images} images${left}`);
  print(`${seconds.toFixed(1)} s on ${result.device}, ${result.imagesPerSecond.toFixed(1)} images a second`);
}

interface ClassCount {
  label: string;
  images: number;
  correct: number;
  /** null for a class that no image is of. */
  accuracy: number | null;
}

function countByClass(
  predictions: readonly Prediction[],
  labels: readonly number[],
  classes: readonly string[],
): ClassCount[] {
  const counts = classes.map((label) => ({ label, images: 0, correct: 0 }));
  for (const [i, truth] of labels.entries()) {
    counts[truth].images++;
    if (predictions[i].index === truth) counts[truth].correct++;
  }
  return counts.map((count) => ({ ...count, accuracy: count.images > 0 ? count.correct / count.images : null }));
}
