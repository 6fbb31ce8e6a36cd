import { type Command, Option } from "commander";
import { ImageClassifier } from "../classifier/image_classifier.js";
import type { Prediction } from "../classifier/prediction.js";
import type { ClassifierOptions } from "../classifier/source.js";
import { clipped, listed } from "../errors.js";
import { defaultWeightsNote } from "../paths.js";
import { findNamedImages } from "./images.js";
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
import {
  colours,
  harmless,
  percent,
  print,
  printJson,
  reportError,
  warn,
  withDownloadBar,
  withProgress,
} from "./output.js";

interface Options extends ClassifierOptions {
  top: number;
  device: Device;
  dtype: ComputeType;
  draft?: boolean;
  json?: boolean;
  jsonl?: boolean;
}

/** What became of one image. */
type Result = { image: string; predictions: Prediction[] } | { image: string; error: string };

const batchSize = 16;

export function addClassify(program: Command): void {
  program
    .command("classify")
    .description("Name what is on images, with probabilities.")
    .argument("<image...>", "files (JPEG, PNG, WebP, GIF, TIFF, AVIF), folders, patterns in quotes, - for stdin")
    .addOption(weightsOption())
    .addOption(modelOption())
    .addOption(modelOptionsOption())
    .addOption(inChannelsOption())
    .option("--labels <file>", "labels, one a line, in place of the model's own")
    .option("--top <count>", "how many classes to name", parseCount, 5)
    .addOption(deviceOption())
    .addOption(dtypeOption())
    .option("--draft", "decode large JPEGs at a smaller scale: three times as fast, samples differ by 1 to 2 of 255")
    .option("--strict", "refuse weights that hold NaN or infinite numbers")
    .addOption(jsonOption())
    .addOption(new Option("--jsonl", "print data alone, a line of JSON an image as they come").conflicts("json"))
    .addHelpText(
      "after",
      `
One image gets a table, several a line each. What cannot be read is named, the others are classified all the same, and
the exit status is 1.
The default network knows clothes as Fashion-MNIST shows them: light on a black background. Images are made grey for it, but
never inverted: negate a dark-on-white photograph first.

Examples:
  seresnet classify boot.png
  seresnet classify *.jpg --weights resnet50.safetensors --model resnet50 --labels imagenet.txt --top 3
  seresnet classify photos "more/**/*.png" --weights resnet50.safetensors --model resnet50 --jsonl > answers.jsonl
  seresnet classify - --weights resnet50.safetensors --model resnet50 < cat.jpg
  seresnet classify cat.jpg --weights hf:timm/seresnet50.a1_in1k
  seresnet classify cat.jpg --weights folder-with-timm-config --json`,
    )
    .action(classify);
}

async function classify(named: string[], { top, json, jsonl, weights: source, ...options }: Options): Promise<void> {
  const { images, remarks } = await findNamedImages(named);
  for (const remark of remarks) warn(remark);
  await using classifier = await withDownloadBar((onProgress) =>
    ImageClassifier.load(source, { ...options, onProgress, maxBatch: batchSize }),
  );
  const note = source === undefined ? defaultWeightsNote : undefined;
  if (note) warn(note);
  for (const change of classifier.changes) warn(`adapted: ${change}`);
  const results: Result[] = [];
  const tell = (result: Result) => {
    results.push(result);
    if (jsonl) print(JSON.stringify(result));
    else if (!json && "predictions" in result) print(images.length > 1 ? describeInLine(result) : describe(result));
  };
  // by place: two arguments may name the same file
  const sources = images.map(({ source: image }) => image);
  await withProgress(
    "classify",
    images.length,
    async (advance) => {
      for await (const result of classifier.classifyEach(sources, { topK: top })) {
        const image = images[results.length].name;
        if ("error" in result) reportError(result.error);
        tell("error" in result ? { image, error: result.error.message } : { image, predictions: result.predictions });
        advance(results.length);
      }
    },
    !json,
  );
  const { model, weights, device } = classifier;
  if (json) printJson({ model, weights, note, device: device.name, dtype: options.dtype, results });
  const bad = results.filter((result) => "error" in result).map(({ image }) => image);
  if (bad.length > 0) process.exitCode = 1;
  if (bad.length > 0 && images.length > 1)
    warn(
      `${bad.length} of ${images.length} images could not be classified: ${listed(bad.map((name) => clipped(name)))}`,
    );
}

function describeInLine({ image, predictions }: { image: string; predictions: readonly Prediction[] }): string {
  const named = predictions.map(({ label, probability }) => `${label} ${percent(probability, 2)}`);
  return harmless(`${image}  ${named.join(", ")}`);
}

function describe({ image, predictions }: { image: string; predictions: readonly Prediction[] }): string {
  const lines = predictions.map(({ label, probability }, place) => {
    const line = `${percent(probability, 2).padStart(10)}  ${harmless(label)}`;
    return place === 0 ? colours.bold(line) : line;
  });
  return [harmless(image), ...lines].join("\n");
}
