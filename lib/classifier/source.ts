import { readdir, stat } from "node:fs/promises";
import { dirname, extname, join } from "node:path";
import { createModel, type ModelOptions, type Network } from "../../models/index.js";
import { isFloat } from "../dtype.js";
import { ArgumentError, expected, listed, shown, WeightsError } from "../errors.js";
import { reason } from "../files.js";
import { imagenetMean, imagenetStd, largestSize, type PreprocessOptions } from "../image/preprocess.js";
import { type Checkpoint, type CheckpointInfo, readCheckpoint } from "../io/checkpoint.js";
import { fetchFromHub, isHubSource, weightsFiles } from "../io/hub/hub.js";
import type { HubOptions } from "../io/hub/options.js";
import { takeNetwork } from "../io/names.js";
import { readLines } from "../io/text.js";
import { loadWeights } from "../io/weights.js";
import { defaultWeights, imagenetLabelsFile } from "../paths.js";
import type { Tensor } from "../tensor.js";
import { adaptWeights, fitHint, onlyFit } from "./adapt.js";
import { checkAsked, checkSaid, mostChannels, mostClasses } from "./counts.js";
import { readTimmConfig, type TimmConfig } from "./timm_config.js";

export interface ClassifierOptions {
  /**
   * A file that `loadWeights` reads, a folder with one, or `hf:owner/name[@revision]` on the Hugging Face hub.
   * Default: the checkpoint that ships with the package.
   */
  weights?: string;
  /** The model's name, for weights that do not say what they are. */
  model?: string;
  /** Options of the model that its weights do not tell, such as `{ shortcut: "A" }`; what `createModel` takes. */
  modelOptions?: Omit<ModelOptions, "numClasses" | "inChannels" | "seed">;
  /** The labels in the order of the outputs, or a file with one a line. */
  labels?: string | readonly string[];
  /** Refuse weights with NaN or infinite numbers. */
  strict?: boolean;
  /** Input channels, where they should differ from the weights': the stem is adapted (`adaptWeights`). */
  inChannels?: number;
  /** Classes, where they should differ from the weights': the classifier begins anew, untrained. */
  numClasses?: number;
  /** Told how far the download of `hf:` weights is. */
  onProgress?: HubOptions["onProgress"];
}

/** A network with its weights, and all it takes to feed it and to read its answer. */
export interface Classifier {
  network: Network;
  info: CheckpointInfo;
  /** The file the weights came from. */
  weights: string;
  /** What was changed in them because `inChannels` or `numClasses` asked for it. */
  changes: readonly string[];
}

type Weights = Readonly<Record<string, Tensor>>;

/**
 * Loads a network with its preprocessing and labels: from the checkpoint's own metadata, else from timm's config.json
 * beside it, else from `model` and the shapes of the weights; weights that fit exactly one network are that network's.
 * Throws WeightsError, or ArgumentError for an unknown model and labels that do not fit.
 */
export async function loadClassifier(options: ClassifierOptions = {}): Promise<Classifier> {
  const { model, labels, strict = false } = options;
  checkAsked("inChannels", options.inChannels, 1, mostChannels);
  checkAsked("numClasses", options.numClasses, 0, mostClasses);
  const source = options.weights ?? defaultWeights;
  const file = isHubSource(source) ? await fetchFromHub(source, options) : await findWeights(source);
  const checkpoint = await readSource(file);
  if (strict) await refuseNonFinite(checkpoint.weights, file);
  const described = checkpoint.info ?? (await describeForeign(checkpoint.weights, file, model));
  const info = withRequest(described, options);
  if (model !== undefined && model !== info.model) {
    createModel(model); // an unknown name is the clearer complaint
    const hint = options.weights === undefined ? " (--weights names other weights)" : "";
    throw new WeightsError(expected(file, `weights of ${model}`, `weights of ${info.model}${hint}`));
  }
  const network = createModel(info.model, info.options as ModelOptions);
  const isAsked = options.inChannels !== undefined || options.numClasses !== undefined;
  const { weights, changes } = isAsked
    ? await adaptWeights(checkpoint.weights, network)
    : { weights: checkpoint.weights, changes: [] };
  const beside =
    checkpoint.leftOut.length > 0 ? [`left out, lying beside the network: ${listed(checkpoint.leftOut)}`] : [];
  loadInto(network, weights, file);
  const outputs = network.options.numClasses;
  if (outputs !== info.classes.length)
    throw new WeightsError(expected(file, `a label for each of ${outputs} outputs`, `${info.classes.length}`));
  const classes = labels === undefined ? info.classes : await readLabels(labels, info.classes.length);
  return { network: network.eval(), info: { ...info, classes }, weights: file, changes: [...beside, ...changes] };
}

/** A checkpoint of ours as it is; other programs' weights under the names that our networks have. */
async function readSource(
  file: string,
): Promise<Pick<Checkpoint, "info" | "weights"> & { leftOut: readonly string[] }> {
  const isSafetensors = extname(file).toLowerCase() === ".safetensors";
  const { info, weights } = isSafetensors
    ? await readCheckpoint(file)
    : { info: undefined, weights: await loadWeights(file) };
  if (info) return { info, weights, leftOut: [] };
  return { info, ...takeNetwork(weights, file) };
}

/** The description with the input channels and classes that were asked for. */
function withRequest(
  info: CheckpointInfo,
  { inChannels, numClasses, modelOptions }: ClassifierOptions,
): CheckpointInfo {
  const options: Record<string, unknown> = { ...info.options, ...modelOptions };
  const changed = { ...info, options };
  const [channels, height, width] = info.inputSize;
  if (inChannels !== undefined && inChannels !== channels) {
    changed.options.inChannels = inChannels;
    changed.inputSize = [inChannels, height, width];
    changed.mean = forChannels(info.mean, inChannels);
    changed.std = forChannels(info.std, inChannels);
  }
  if (numClasses !== undefined && numClasses !== info.classes.length) {
    changed.options.numClasses = numClasses;
    changed.classes = numbered(numClasses);
  }
  return changed;
}

function numbered(count: number): string[] {
  return Array.from({ length: count }, (_, index) => `class ${index}`);
}

/** How images become this network's input. Throws WeightsError for an input that images cannot become. */
export function preprocessingOf({ info, weights }: Classifier): PreprocessOptions {
  const [channels, height, width] = info.inputSize;
  if ((channels !== 1 && channels !== 3) || height !== width || height > largestSize)
    throw new WeightsError(
      expected(
        weights,
        `an inputSize of 1 or 3 channels and equal sides of at most ${largestSize}`,
        `[${info.inputSize.join(", ")}]`,
      ),
    );
  const { mean, std, interpolation, cropPct, cropMode } = info;
  return { size: height, channels, mean, std, interpolation, cropPct, ...(cropMode && { cropMode }) };
}

async function findWeights(path: string): Promise<string> {
  const info = await stat(path).catch((error: unknown) => {
    throw new WeightsError(expected(path, "a weights file or a folder with one", reason(error)), { cause: error });
  });
  if (!info.isDirectory()) return path;
  const names = await readdir(path);
  const known = weightsFiles.find((name) => names.includes(name));
  if (known !== undefined) return join(path, known);
  const all = names.filter((name) => /\.(safetensors|pth|pt)$/.test(name)).sort();
  const safe = all.filter((name) => name.endsWith(".safetensors"));
  const files = safe.length > 0 ? safe : all;
  if (files.length === 1) return join(path, files[0]);
  const got = files.length === 0 ? "a folder without" : `a folder with ${listed(files)}`;
  throw new WeightsError(expected(path, "model.safetensors, or one .safetensors, .pth or .pt file alone", got));
}

async function refuseNonFinite(weights: Weights, file: string): Promise<void> {
  for (const [name, weight] of Object.entries(weights)) {
    if (!isFloat(weight.dtype)) continue;
    const values = (await weight.data()) as Float32Array;
    const at = values.findIndex((value) => !Number.isFinite(value));
    if (at >= 0)
      throw new WeightsError(
        expected(file, `finite numbers in tensor ${JSON.stringify(name)}`, `${values[at]} at element ${at}`),
      );
  }
}

/** What weights are that carry no metadata of ours. */
async function describeForeign(weights: Weights, file: string, named: string | undefined): Promise<CheckpointInfo> {
  const config = await readTimmConfig(join(dirname(file), "config.json"));
  const fit = named === undefined && config?.model === undefined ? onlyFit(weights) : undefined;
  const model = named ?? config?.model ?? fit?.model;
  if (model === undefined)
    throw new WeightsError(
      expected(file, "--model NAME or timm's config.json to say what the weights are", `neither${fitHint(weights)}`),
    );
  const classifier = weights["fc.weight"] ?? weights["last_linear.weight"];
  const stem = weights["conv1.weight"] ?? weights["layer0.conv1.weight"];
  const defaults = createModel(model).options;
  const { inChannels: saidChannels, numClasses: saidClasses, ...options } = config?.options ?? {};
  // weights without any matrix are a backbone, unless somebody says how many classes there are
  const hasMatrix = Object.values(weights).some(({ shape }) => shape.length === 2);
  const assumed = hasMatrix ? (defaults.numClasses ?? 1000) : 0;
  const numClasses = config?.numClasses ?? saidClasses ?? classifier?.shape[0] ?? assumed;
  const inChannels = saidChannels ?? stem?.shape[1] ?? config?.inputSize?.[0] ?? 3;
  checkSaid(file, "classes", numClasses, classifier?.shape[0], mostClasses);
  checkSaid(file, "input channels", inChannels, stem?.shape[1], mostChannels);
  const isSmall = model.endsWith("_cifar");
  const size = isSmall ? 32 : 224;
  const classes = await labelsOf(config?.labelNames, numClasses);
  const [, height, width] = config?.inputSize ?? [inChannels, size, size];
  const inputSize: [number, number, number] = [inChannels, height, width];
  // timm's statistics are of three channels, whatever the network's
  const statistic = (given: readonly number[] | undefined, usual: readonly number[]) =>
    given && given.length !== 1 && given.length !== 3 ? given : forChannels(given ?? usual, inChannels);
  const [mean, std] = [statistic(config?.mean, imagenetMean), statistic(config?.std, imagenetStd)].map((all) => [
    ...all,
  ]);
  const facts: readonly [name: string, list: readonly unknown[], length: number][] = [
    ["label_names", classes, numClasses],
    ["mean", mean, inChannels],
    ["std", std, inChannels],
  ];
  for (const [name, list, length] of facts)
    if (list.length !== length)
      throw new WeightsError(expected(file, `${length} values of ${name} in its config.json`, `${list.length}`));
  const { interpolation = "bilinear", cropPct = isSmall ? 1 : 0.875, cropMode } = config ?? {};
  const info = {
    model,
    options: { ...options, ...(fit?.shortcut && { shortcut: fit.shortcut }), numClasses, inChannels },
    classes,
    inputSize,
    mean,
    std,
    interpolation,
    cropPct,
  };
  return cropMode === undefined ? info : { ...info, cropMode };
}

/** What `info` says of a model's weights where nobody says more: labels, and the usual preprocessing of its images. */
export async function usualInfo(model: Network): Promise<CheckpointInfo> {
  return describeForeign(model.stateDict(), model.modelName, model.modelName);
}

/** One label for each class: what timm's config says, else ImageNet's for 1000, else numbers. */
async function labelsOf(named: TimmConfig["labelNames"], numClasses: number): Promise<string[]> {
  if (Array.isArray(named)) return [...named];
  const others = numClasses === 1000 && !named ? await imagenetLabels() : numbered(numClasses);
  return others.map((label, index) => (named as Record<string, string> | undefined)?.[index] ?? label);
}

/** ImageNet-1k's labels: what 1000 classes are unless somebody says otherwise. */
async function imagenetLabels(): Promise<string[]> {
  return readLines(imagenetLabelsFile);
}

/** Statistics of three channels for a network of another count: their mean for each. */
function forChannels(statistic: readonly number[], channels: number): number[] {
  if (channels === statistic.length) return [...statistic];
  return new Array<number>(channels).fill(statistic.reduce((sum, value) => sum + value, 0) / statistic.length);
}

function loadInto(network: Network, weights: Weights, file: string): void {
  try {
    network.loadStateDict(weights);
  } catch (error) {
    if (!(error instanceof WeightsError)) throw error;
    const { missingKeys, unexpectedKeys, mismatched } = error;
    const faults = error.message.replace(/^loadStateDict: /, "");
    throw new WeightsError(
      `${file}: the weights are not those of ${network.modelName}${fitHint(weights, network)}: ${faults}`,
      {
        cause: error,
        missingKeys,
        unexpectedKeys,
        mismatched,
      },
    );
  }
}

async function readLabels(source: string | readonly string[], count: number): Promise<string[]> {
  if (typeof source !== "string") {
    if (!Array.isArray(source) || source.length !== count || !source.every((label) => typeof label === "string"))
      throw new ArgumentError(expected("labels", `${count} labels, as the model has outputs`, shown(source)));
    return [...source];
  }
  const path = source;
  let labels: string[];
  try {
    labels = await readLines(path);
  } catch (error) {
    throw new ArgumentError(expected(path, "a file of labels", reason(error)), { cause: error });
  }
  if (labels.length !== count)
    throw new ArgumentError(
      expected(path, `${count} labels, one a line, as the model has outputs`, `${labels.length}`),
    );
  return labels;
}
