import { stat } from "node:fs/promises";
import type { Command } from "commander";
import { createModel, listModels, type Network } from "../../models/index.js";
import { mostClasses } from "../classifier/counts.js";
import { type ClassifierOptions, loadClassifier } from "../classifier/source.js";
import { ArgumentError, expected } from "../errors.js";
import type { CheckpointInfo } from "../io/checkpoint.js";
import { exportOnnx } from "../io/onnx/export.js";
import { formatShape } from "../shape.js";
import { usualInput } from "./models.js";
import {
  inChannelsOption,
  jsonOption,
  modelOption,
  modelOptionsOption,
  parseCount,
  parseCountUpTo,
  parseInputShape,
} from "./options.js";
import { print, printJson, warn } from "./output.js";

interface Options {
  onnx: string;
  model?: string;
  labels?: string;
  input?: number[];
  classes?: number;
  modelOptions?: ClassifierOptions["modelOptions"];
  inChannels?: number;
  fold: boolean;
  preprocess?: boolean;
  fixedBatch?: boolean;
  fixedSize?: boolean;
  opset?: number;
  json?: boolean;
}

export function addExport(program: Command): void {
  program
    .command("export")
    .description("Write a network as an ONNX file, for other runtimes.")
    .argument(
      "<model|file>",
      "weights as classify takes them, or a name that `seresnet models` lists (weights drawn anew)",
    )
    .requiredOption("--onnx <file>", "the file to write")
    .addOption(modelOption())
    .addOption(modelOptionsOption())
    .option("--labels <file>", "labels, one a line, in place of the checkpoint's own")
    .option("--input <shape>", "N,C,H,W (default: one image of the model's size)", parseInputShape)
    .option(
      "--classes <count>",
      "outputs of the classifier; where weights have others, it begins anew",
      parseCountUpTo(mostClasses),
    )
    .addOption(inChannelsOption())
    .option("--no-fold", "keep batch norms apart from the convolutions before them")
    .option("--preprocess", "take uint8 pixels and normalise them inside the file, as the checkpoint says")
    .option("--fixed-batch", "take exactly N images at a time instead of any number")
    .option("--fixed-size", "take images of exactly this size, where the network would take any")
    .option("--opset <version>", "of ONNX's operators, 9 to 21: what the runtime knows", parseCount, 17)
    .addOption(jsonOption())
    .addHelpText(
      "after",
      `
The file has one input, "input", and one output, "output": the logits. What a checkpoint says of its labels and
preprocessing goes into the file's metadata, entry "seresnet".

Examples:
  seresnet export seresnet50.safetensors --model seresnet50 --onnx seresnet50.onnx
  seresnet export folder-with-timm-config --preprocess --onnx classifier.onnx
  seresnet export resnet18 --input 1,3,160,160 --onnx resnet18.onnx`,
    )
    .action(exportModel);
}

async function exportModel(source: string, options: Options): Promise<void> {
  const { onnx, fold, preprocess, fixedBatch = false, fixedSize, opset, json } = options;
  const { network, info, changes } = await find(source, options);
  for (const change of changes) warn(`adapted: ${change}`);
  if (preprocess && !info)
    throw new ArgumentError(
      expected("export", "weights with --preprocess, which says how", `the model name ${source}`),
    );
  const { modelName } = network;
  const input = options.input ?? [1, ...(info?.inputSize ?? usualInput(modelName, options.inChannels))];
  await exportOnnx(network, onnx, {
    inputShape: input,
    folded: fold,
    dynamicBatch: !fixedBatch,
    dynamicSize: fixedSize ? false : "auto",
    opset,
    normalize: preprocess && info ? { mean: info.mean, std: info.std } : undefined,
    metadata: info && { seresnet: JSON.stringify(info) },
  });
  if (!info) warn(`${source} is a model's name: ${onnx} holds weights drawn anew, not trained ones`);
  const { size } = await stat(onnx);
  const dtype = preprocess ? "uint8" : "float32";
  if (json)
    return printJson({ file: onnx, bytes: size, model: modelName, input, dtype, folded: fold, fixedBatch, opset });
  const shape = formatShape([fixedBatch ? input[0] : "N", ...input.slice(1)]);
  print(`${onnx}: ${modelName}, ${(size / 1e6).toFixed(1)} MB, input ${dtype} ${shape}`);
}

interface Found {
  network: Network;
  /** What a checkpoint says about itself. */
  info?: CheckpointInfo;
  /** What `--classes` and `--in-channels` changed in weights. */
  changes: readonly string[];
}

async function find(
  source: string,
  { model, labels, classes, inChannels, modelOptions, input }: Options,
): Promise<Found> {
  const isName = (listModels() as string[]).includes(source) || !/[./\\:]/.test(source);
  if (isName && !(await stat(source).catch(() => undefined)))
    return {
      network: createModel(source, { ...modelOptions, numClasses: classes, inChannels: inChannels ?? input?.[1] }),
      changes: [],
    };
  return loadClassifier({ weights: source, model, labels, numClasses: classes, inChannels, modelOptions });
}
