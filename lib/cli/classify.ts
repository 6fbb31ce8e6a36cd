import type { Command } from "commander";
import { ImageClassifier } from "../classifier/image_classifier.js";
import type { Prediction } from "../classifier/prediction.js";
import type { ClassifierOptions } from "../classifier/source.js";
import { defaultWeightsNote } from "../paths.js";
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
import { colours, harmless, percent, print, printJson, reportError, warn, withDownloadBar } from "./output.js";

interface Options extends ClassifierOptions {
  top: number;
  device: Device;
  dtype: ComputeType;
  json?: boolean;
}

/** What became of one picture. */
type Result = { image: string; predictions: Prediction[] } | { image: string; error: string };

const batchSize = 16;

export function addClassify(program: Command): void {
  program
    .command("classify")
    .description("Name what is on pictures, with probabilities.")
    .argument("<image...>", "picture files: JPEG, PNG, WebP, GIF, TIFF, AVIF")
    .addOption(weightsOption())
    .addOption(modelOption())
    .addOption(modelOptionsOption())
    .addOption(inChannelsOption())
    .option("--labels <file>", "labels, one a line, in place of the model's own")
    .option("--top <count>", "how many classes to name", parseCount, 5)
    .addOption(deviceOption())
    .addOption(dtypeOption())
    .option("--strict", "refuse weights that hold NaN or infinite numbers")
    .addOption(jsonOption())
    .addHelpText(
      "after",
      `
The default network knows clothes as Fashion-MNIST shows them: light on a black ground. Pictures are made grey for it, but
never inverted: negate a dark-on-white photograph first.

Examples:
  seresnet classify boot.png
  seresnet classify *.jpg --weights resnet50.safetensors --model resnet50 --labels imagenet.txt --top 3
  seresnet classify cat.jpg --weights hf:timm/seresnet50.a1_in1k
  seresnet classify cat.jpg --weights folder-with-timm-config --json`,
    )
    .action(classify);
}

async function classify(paths: string[], { top, json, weights: source, ...options }: Options): Promise<void> {
  await using classifier = await withDownloadBar((onProgress) =>
    ImageClassifier.load(source, { ...options, onProgress, maxBatch: batchSize }),
  );
  const note = source === undefined ? defaultWeightsNote : undefined;
  if (note) warn(note);
  for (const change of classifier.changes) warn(`adapted: ${change}`);
  const results: Result[] = [];
  for await (const result of classifier.classifyEach(paths, { topK: top })) {
    if ("error" in result) {
      reportError(result.error);
      results.push({ image: result.image, error: result.error.message });
    } else {
      results.push(result);
      if (!json) print(describe(result));
    }
  }
  const { model, weights, device } = classifier;
  if (json) printJson({ model, weights, note, device: device.name, dtype: options.dtype, results });
  if (results.some((result) => "error" in result)) process.exitCode = 1;
}

function describe({ image, predictions }: { image: string; predictions: readonly Prediction[] }): string {
  const lines = predictions.map(({ label, probability }, place) => {
    const line = `${percent(probability, 2).padStart(10)}  ${harmless(label)}`;
    return place === 0 ? colours.bold(line) : line;
  });
  return [harmless(image), ...lines].join("\n");
}
