import { readdir } from "node:fs/promises";
import { resolve } from "node:path";
import Table from "cli-table3";
import type { Command } from "commander";
import { loadClassifier } from "../classifier/source.js";
import { compile } from "../compile/compile.js";
import { type IdxDataset, loadIdxDataset } from "../data/idx.js";
import { remedies } from "../devices/remedies.js";
import { ArgumentError, expected } from "../errors.js";
import { reason, writeFileAtomic } from "../files.js";
import { drawContactSheet, hasFonts } from "./contact_sheet.js";
import { configureFonts } from "./fonts.js";
import { openLabelledImages } from "./labelled_images.js";
import { type Device, deviceOption, jsonOption, parseCount, parseCountUpTo } from "./options.js";
import { colours, percent, print, printJson, shout, warn, withProgress } from "./output.js";
import { predictAll } from "./predict.js";

interface Options {
  data: string;
  out: string;
  count: number;
  limit: number;
  device: Device;
  json?: boolean;
}

const batchSize = 100;
/** Beyond this the sheet is too tall to look at, and in the end to draw. */
const mostShown = 400;

export function addDemo(program: Command): void {
  program
    .command("demo")
    .description("Classify real test images of Fashion-MNIST and draw what came out.")
    .option("--data <folder>", "the dataset", "/usr/share/datasets/fashion-mnist")
    .option("--out <file>", "the image to write", "demo.png")
    .option("--count <count>", "how many images to show, at most 400", parseCountUpTo(mostShown), 48)
    .option("--limit <count>", "how many images to measure the accuracy on", parseCount, 1000)
    .addOption(deviceOption())
    .addOption(jsonOption())
    .addHelpText("after", "\nExample:\n  seresnet demo --out sheet.png --count 24")
    .action(demo);
}

async function demo({ data, out, count, limit, device, json }: Options): Promise<void> {
  const dataset = await openDataset(data);
  const classifier = await loadClassifier();
  const { classes, mean, std } = classifier.info;
  const labelled = await openLabelledImages(data, classifier, Math.max(count, limit));
  await using compiled = await compile(classifier.network, { device, normalize: { mean, std } });
  const images = labelled.labels.length;
  const { predictions, seconds } = await withProgress("demo", images, (advance) =>
    predictAll(compiled, labelled, classes, batchSize, advance),
  );
  const judged = predictions.map(({ label, probability, index }, i) => ({
    index: i,
    prediction: label,
    confidence: probability,
    truth: classes[labelled.labels[i]],
    correct: index === labelled.labels[i],
  }));
  const rightOf = (some: readonly { correct: boolean }[]) => some.filter(({ correct }) => correct).length;
  const accuracy = rightOf(judged) / images;
  const shown = judged.slice(0, count);
  const millisecondsPerImage = (seconds / images) * 1000;

  const { height, width } = dataset;
  configureFonts();
  if (!(await hasFonts())) warn("no fonts found, so the drawing has no text; try: apt-get install fonts-dejavu-core");
  const png = await drawContactSheet({
    tiles: shown.map((item) => ({
      ...item,
      pixels: dataset.images.subarray(item.index * height * width, (item.index + 1) * height * width),
    })),
    height,
    width,
    title: "SE-ResNet-20 on Fashion-MNIST",
    subtitle: `${rightOf(shown)} of the ${shown.length} test images shown are right; ${percent(accuracy)} of the first ${images.toLocaleString("en")}`,
  });
  await writeFileAtomic(out, [png]).catch((error: unknown) => {
    throw new ArgumentError(expected(out, "a file that can be written", reason(error)), { cause: error });
  });

  const name = compiled.device.name;
  if (json)
    return printJson({ images, accuracy, millisecondsPerImage, device: name, out: resolve(out), pictures: shown });
  const table = new Table({
    head: ["#", "prediction", "confidence", "truth"],
    colAligns: ["right", "left", "right", "left"],
    style: { head: [], border: [], compact: true },
  });
  for (const { index, prediction, confidence, truth, correct } of shown) {
    const row = [String(index), prediction, percent(confidence), truth];
    table.push(correct ? row : row.map((cell) => colours.red(cell)));
  }
  print(table.toString());
  print(`accuracy ${percent(accuracy)} on the first ${images} test images`);
  print(`${millisecondsPerImage.toFixed(2)} ms an image on ${name}, ${batchSize} at once`);
  print(`image    ${resolve(out)}`);
  if (compiled.device.slower) shout(compiled.device.slower);
}

async function openDataset(folder: string): Promise<IdxDataset> {
  const files = await readdir(folder).catch(() => []);
  if (!files.some((name) => name.startsWith("t10k-images")))
    throw new ArgumentError(`demo: no Fashion-MNIST test images in ${folder}; this brings them: ${remedies().dataset}`);
  return loadIdxDataset(folder, "test");
}
