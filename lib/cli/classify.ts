import type { Command } from "commander";
import { type CompiledModel, compile } from "../compile.js";
import { SeresnetError } from "../errors.js";
import { loadImage, type PreprocessOptions } from "../image/preprocess.js";
import type { Tensor } from "../tensor.js";
import { type ClassifierOptions, loadClassifier, preprocessingOf } from "./classifier.js";
import {
  type ComputeType,
  type Device,
  deviceOption,
  dtypeOption,
  jsonOption,
  modelOption,
  parseCount,
  weightsOption,
} from "./options.js";
import { colours, percent, print, printJson, reportError } from "./output.js";
import { stack } from "./pictures.js";
import { type Prediction, rank, runBatch } from "./predict.js";

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
  seresnet classify cat.jpg --weights folder-with-timm-config --json`,
    )
    .action(classify);
}

async function classify(paths: string[], options: Options): Promise<void> {
  const { device, dtype, top, json } = options;
  const classifier = await loadClassifier(options);
  const preprocessing = preprocessingOf(classifier);
  await using compiled = await compile(classifier.network, { device, dtype });
  const results: Result[] = [];
  for (let at = 0; at < paths.length; at += batchSize) {
    const batch = await classifyBatch(compiled, paths.slice(at, at + batchSize), preprocessing, (logits) =>
      rank(logits, classifier.info.classes, top),
    );
    results.push(...batch);
    if (!json) for (const result of batch) if ("predictions" in result) print(describe(result));
  }
  const { model } = classifier.info;
  if (json) printJson({ model, weights: classifier.weights, device: compiled.device.name, dtype, results });
  if (results.some((result) => "error" in result)) process.exitCode = 1;
}

/** Pictures that cannot be read are told of and left out; the others are classified as one batch. */
async function classifyBatch(
  compiled: CompiledModel,
  paths: readonly string[],
  preprocessing: PreprocessOptions,
  interpret: (logits: ArrayLike<number>) => Prediction[],
): Promise<Result[]> {
  const loaded = await Promise.all(paths.map((path) => loadImage(path, preprocessing).catch(tellOf)));
  const inputs = loaded.filter((input): input is Tensor => !(input instanceof SeresnetError));
  const logits = inputs.length > 0 ? await runBatch(compiled, await stack(inputs)) : [];
  let next = 0;
  return loaded.map((input, i) =>
    input instanceof SeresnetError
      ? { image: paths[i], error: input.message }
      : { image: paths[i], predictions: interpret(logits[next++]) },
  );
}

function tellOf(error: unknown): SeresnetError {
  if (!(error instanceof SeresnetError)) throw error;
  reportError(error);
  return error;
}

function describe({ image, predictions }: { image: string; predictions: readonly Prediction[] }): string {
  const lines = predictions.map(({ label, probability }, place) => {
    const line = `${percent(probability, 2).padStart(10)}  ${label}`;
    return place === 0 ? colours.bold(line) : line;
  });
  return [image, ...lines].join("\n");
}
