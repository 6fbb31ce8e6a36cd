import { ArgumentError, expected } from "../lib/errors.js";
import {
  AdaptiveAvgPool2d,
  BatchNorm2d,
  Conv2d,
  Identity,
  Linear,
  MaxPool2d,
  Module,
  Sequential,
} from "../lib/nn/index.js";
import * as functional from "../lib/ops/functional.js";
import type { Tensor } from "../lib/tensor.js";
import {
  type GlobalPool,
  type ResNetOptions,
  type ResNetSettings,
  resNetDefaults,
  resolveOptions,
  type SEPlacement,
} from "./options.js";
import { atLeastFour, type HiddenChannels, nearestEight, SqueezeExcite } from "./squeeze_excite.js";

/** Everything a block needs to know besides its channels. */
export interface BlockSettings extends ResNetSettings {
  /** Step of this block: it divides height and width. */
  readonly step: number;
  readonly hiddenChannels: HiddenChannels;
}

/** A block's class: `new Block(inChannels, width, settings)` gives `width * expansion` channels. */
export interface BlockClass {
  readonly expansion: number;
  new (inChannels: number, width: number, settings: BlockSettings): Module;
}

export const conv3x3 = (inChannels: number, outChannels: number, stride = 1, groups = 1) =>
  new Conv2d(inChannels, outChannels, { kernelSize: 3, stride, padding: 1, groups, bias: false });

export const conv1x1 = (inChannels: number, outChannels: number, stride = 1) =>
  new Conv2d(inChannels, outChannels, { kernelSize: 1, stride, bias: false });

/** Shortcut A: every `step`-th row and column, and zeros for the channels the input lacks. It has no parameters. */
class ZeroPaddedIdentity extends Module {
  readonly #step: number;
  readonly #added: number;

  constructor(inChannels: number, outChannels: number, step: number) {
    super();
    this.#step = step;
    this.#added = outChannels - inChannels;
  }

  override forward(x: Tensor): Tensor {
    const strided = functional.slice(x, { starts: [0, 0, 0, 0], ends: x.shape, steps: [1, 1, this.#step, this.#step] });
    return functional.pad(strided, [0, 0, 0, 0], [0, this.#added, 0, 0]);
  }
}

/** What stands on the shortcut, or undefined for a plain identity. */
export function makeDownsample(inChannels: number, outChannels: number, { step, shortcut }: BlockSettings) {
  const fits = step === 1 && inChannels === outChannels;
  if (shortcut === "C" || (shortcut === "B" && !fits)) {
    return new Sequential(conv1x1(inChannels, outChannels, step), new BatchNorm2d(outChannels));
  }
  return fits ? undefined : new ZeroPaddedIdentity(inChannels, outChannels, step);
}

/** The SE unit of a block, or undefined. Before the branch it gates the input's channels, elsewhere the output's. */
export function makeSE(inChannels: number, outChannels: number, { se, reduction, hiddenChannels }: BlockSettings) {
  const channels = se === "pre" ? inChannels : outChannels;
  return se === "none" ? undefined : new SqueezeExcite(channels, hiddenChannels(channels, reduction));
}

/** `relu(branch(x) + shortcut(x))`, with an SE unit where `placement` says. */
export abstract class ResidualUnit extends Module {
  protected abstract readonly placement: SEPlacement;
  protected abstract readonly se: SqueezeExcite | undefined;
  protected abstract readonly downsample: Module | undefined;
  protected abstract branch(x: Tensor): Tensor;

  override forward(x: Tensor): Tensor {
    const gate = (at: SEPlacement, y: Tensor) => (this.se && this.placement === at ? this.se.forward(y) : y);
    const residual = gate("standard", this.branch(gate("pre", x)));
    const shortcut = gate("identity", this.downsample ? this.downsample.forward(x) : x);
    return gate("post", residual.add(shortcut).relu());
  }
}

/** Two 3x3 convolutions: the block of ResNet-18 and -34, and of the small-image networks. */
export class BasicBlock extends ResidualUnit {
  static readonly expansion = 1;
  readonly conv1: Conv2d;
  readonly bn1: BatchNorm2d;
  readonly conv2: Conv2d;
  readonly bn2: BatchNorm2d;
  readonly se: SqueezeExcite | undefined;
  readonly downsample: Module | undefined;
  protected readonly placement: SEPlacement;

  constructor(inChannels: number, width: number, settings: BlockSettings) {
    if (settings.groups !== 1 || settings.widthPerGroup !== 64) {
      const { groups, widthPerGroup } = settings;
      const got = `groups ${groups} and widthPerGroup ${widthPerGroup}`;
      throw new ArgumentError(expected("BasicBlock", "groups 1 and widthPerGroup 64", got));
    }
    super();
    this.conv1 = conv3x3(inChannels, width, settings.step);
    this.bn1 = new BatchNorm2d(width);
    this.conv2 = conv3x3(width, width);
    this.bn2 = new BatchNorm2d(width);
    this.se = makeSE(inChannels, width, settings);
    this.downsample = makeDownsample(inChannels, width, settings);
    this.placement = settings.se;
    if (settings.zeroInitResidual) this.bn2.weight?.fill(0);
  }

  protected override branch(x: Tensor): Tensor {
    const y = this.bn1.forward(this.conv1.forward(x)).relu();
    return this.bn2.forward(this.conv2.forward(y));
  }
}

/** 1x1 down, 3x3, 1x1 up: the block of ResNet-50 and deeper, and of the wide and grouped variants. */
export class Bottleneck extends ResidualUnit {
  static readonly expansion = 4;
  readonly conv1: Conv2d;
  readonly bn1: BatchNorm2d;
  readonly conv2: Conv2d;
  readonly bn2: BatchNorm2d;
  readonly conv3: Conv2d;
  readonly bn3: BatchNorm2d;
  readonly se: SqueezeExcite | undefined;
  readonly downsample: Module | undefined;
  protected readonly placement: SEPlacement;

  constructor(inChannels: number, width: number, settings: BlockSettings) {
    super();
    const { step, stride, groups } = settings;
    const middle = Math.floor((width * settings.widthPerGroup) / 64) * groups;
    const outChannels = width * Bottleneck.expansion;
    this.conv1 = conv1x1(inChannels, middle, stride === "1x1" ? step : 1);
    this.bn1 = new BatchNorm2d(middle);
    this.conv2 = conv3x3(middle, middle, stride === "3x3" ? step : 1, groups);
    this.bn2 = new BatchNorm2d(middle);
    this.conv3 = conv1x1(middle, outChannels);
    this.bn3 = new BatchNorm2d(outChannels);
    this.se = makeSE(inChannels, outChannels, settings);
    this.downsample = makeDownsample(inChannels, outChannels, settings);
    this.placement = settings.se;
    if (settings.zeroInitResidual) this.bn3.weight?.fill(0);
  }

  protected override branch(x: Tensor): Tensor {
    const y = this.bn1.forward(this.conv1.forward(x)).relu();
    const z = this.bn2.forward(this.conv2.forward(y)).relu();
    return this.bn3.forward(this.conv3.forward(z));
  }
}

/** A linear classifier, or nothing for no classes. */
export function makeClassifier(features: number, { numClasses }: { numClasses: number }): Linear | Identity {
  return numClasses === 0 ? new Identity() : new Linear(features, numClasses);
}

/** The largest value of each channel, or the mean of that and the channel's mean: [N, C, H, W] -> [N, C, 1, 1]. */
class MaxGlobalPool extends Module {
  constructor(readonly averaged: boolean) {
    super();
  }

  override forward(x: Tensor): Tensor {
    const largest = functional.maxPool2d(x, { kernelSize: [x.shape[2], x.shape[3]] });
    return this.averaged ? largest.add(x.mean([2, 3], { keepDims: true })).mul(0.5) : largest;
  }
}

export function makePool({ globalPool }: { globalPool: GlobalPool }): Module {
  return globalPool === "avg" ? new AdaptiveAvgPool2d(1) : new MaxGlobalPool(globalPool === "avgmax");
}

/** A stem, stages that each halve the size but the first, and a linear classifier over the channel means. */
export abstract class Network extends Module {
  /** The name `createModel` knows it by. */
  readonly modelName: string;
  /** The options in force: `createModel(modelName, options)` builds the same network. */
  readonly options: ResNetOptions;

  constructor(modelName: string, options: ResNetOptions) {
    super();
    this.modelName = modelName;
    this.options = options;
  }

  protected abstract readonly stages: readonly Sequential[];
  protected abstract readonly pool: Module;
  protected abstract readonly classifier: Module;
  protected abstract stem(x: Tensor): Tensor;

  /**
   * Compute what happens inside each block again in the backward pass, in place of keeping it (see
   * `functional.checkpoint`). Default false; `layer3.checkpoint = true` does the same for one stage.
   */
  get checkpoint(): boolean {
    return this.stages.every((stage) => stage.checkpoint);
  }

  set checkpoint(checkpoint: boolean) {
    for (const stage of this.stages) stage.checkpoint = checkpoint;
  }

  /** The stages' outputs, first to last: `[N, C, H, W]` each. */
  features(x: Tensor): Tensor[] {
    let y = this.stem(x);
    return this.stages.map((stage) => {
      y = stage.forward(y);
      return y;
    });
  }

  /** The last features, pooled as the options say: `[N, inChannels, H, W] -> [N, features]`. What the classifier reads. */
  embedding(x: Tensor): Tensor {
    return this.pool.forward(this.features(x)[this.stages.length - 1]).flatten(1);
  }

  /** `[N, inChannels, H, W] -> [N, numClasses]`, the logits; without a classifier the embedding. */
  override forward(x: Tensor): Tensor {
    return this.classifier.forward(this.embedding(x));
  }

  /** One stage: `blocks` blocks, of which the first takes the step and changes the channels. */
  protected _makeLayer(block: BlockClass, inChannels: number, width: number, blocks: number, settings: BlockSettings) {
    const outChannels = width * block.expansion;
    const rest = { ...settings, step: 1 };
    return new Sequential(
      new block(inChannels, width, settings),
      ...Array.from({ length: blocks - 1 }, () => new block(outChannels, width, rest)),
    );
  }
}

/** What makes a variant: `layers` counts the blocks of each stage; `defaults` are the options it takes. */
export interface Architecture {
  readonly block: BlockClass;
  readonly layers: readonly number[];
  /** "imagenet": 7x7 stride 2, then a pool, widths from 64. "cifar": 3x3, no pool, widths from 16. Default "imagenet". */
  readonly stem?: "imagenet" | "cifar";
  readonly defaults?: ResNetOptions;
}

const stems = {
  imagenet: { width: 64, kernelSize: 7, stride: 2, padding: 3, hiddenChannels: nearestEight },
  cifar: { width: 16, kernelSize: 3, stride: 1, padding: 1, hiddenChannels: atLeastFour },
};

/**
 * A residual network of three or four stages with torchvision's names, and timm's where it has SE units.
 * He et al. 2016 (arXiv:1512.03385), Xie et al. 2017 (1611.05431), Hu et al. 2018 (1709.01507).
 */
export class ResNet extends Network {
  readonly conv1: Conv2d;
  readonly bn1: BatchNorm2d;
  readonly maxpool: Module;
  readonly layer1: Sequential;
  readonly layer2: Sequential;
  readonly layer3: Sequential;
  readonly layer4: Sequential | undefined;
  readonly avgpool: Module;
  readonly fc: Linear | Identity;

  constructor(modelName: string, architecture: Architecture, options: ResNetOptions = {}) {
    const { block, layers, stem = "imagenet", defaults = resNetDefaults } = architecture;
    const resolved = resolveOptions(modelName, options, defaults);
    super(modelName, resolved);
    const { width, hiddenChannels, ...kernel } = stems[stem];
    const settings: ResNetSettings = { ...resNetDefaults, ...resolved };
    const stage = (index: number) => {
      const inChannels = index === 0 ? width : (width * block.expansion) << (index - 1);
      const blockSettings = { ...settings, hiddenChannels, step: index === 0 ? 1 : 2 };
      return this._makeLayer(block, inChannels, width << index, layers[index], blockSettings);
    };
    this.conv1 = new Conv2d(settings.inChannels, width, { ...kernel, bias: false });
    this.bn1 = new BatchNorm2d(width);
    this.maxpool = stem === "cifar" ? new Identity() : new MaxPool2d({ kernelSize: 3, stride: 2, padding: 1 });
    this.layer1 = stage(0);
    this.layer2 = stage(1);
    this.layer3 = stage(2);
    this.layer4 = layers.length > 3 ? stage(3) : undefined;
    this.avgpool = makePool(settings);
    this.fc = makeClassifier((width * block.expansion) << (layers.length - 1), settings);
  }

  protected override get stages(): Sequential[] {
    return [this.layer1, this.layer2, this.layer3, ...(this.layer4 ? [this.layer4] : [])];
  }

  protected override stem(x: Tensor): Tensor {
    return this.maxpool.forward(this.bn1.forward(this.conv1.forward(x)).relu());
  }

  protected override get pool(): Module {
    return this.avgpool;
  }

  protected override get classifier(): Module {
    return this.fc;
  }
}

/** What the registry holds: a network from its options. */
export type Variant = (name: string, options: ResNetOptions) => Network;

/** Four stages for images of about 224x224. */
export const resnet =
  (block: BlockClass, layers: readonly number[], defaults: ResNetOptions = {}): Variant =>
  (name, options) =>
    new ResNet(name, { block, layers, defaults: { ...resNetDefaults, ...defaults } }, options);

/** Three stages of `(depth - 2) / 6` basic blocks for images of about 32x32. */
export const cifar =
  (depth: number, defaults: ResNetOptions = {}): Variant =>
  (name, options) => {
    const layers = Array<number>(3).fill((depth - 2) / 6);
    const all = { ...resNetDefaults, numClasses: 10, ...defaults };
    return new ResNet(name, { block: BasicBlock, layers, stem: "cifar", defaults: all }, options);
  };

export const resnets = {
  resnet18: resnet(BasicBlock, [2, 2, 2, 2]),
  resnet34: resnet(BasicBlock, [3, 4, 6, 3]),
  resnet50: resnet(Bottleneck, [3, 4, 6, 3]),
  resnet101: resnet(Bottleneck, [3, 4, 23, 3]),
  resnet152: resnet(Bottleneck, [3, 8, 36, 3]),
  wide_resnet50_2: resnet(Bottleneck, [3, 4, 6, 3], { widthPerGroup: 128 }),
  wide_resnet101_2: resnet(Bottleneck, [3, 4, 23, 3], { widthPerGroup: 128 }),
  resnext50_32x4d: resnet(Bottleneck, [3, 4, 6, 3], { groups: 32, widthPerGroup: 4 }),
  resnext101_32x4d: resnet(Bottleneck, [3, 4, 23, 3], { groups: 32, widthPerGroup: 4 }),
  resnext101_32x8d: resnet(Bottleneck, [3, 4, 23, 3], { groups: 32, widthPerGroup: 8 }),
  resnext101_64x4d: resnet(Bottleneck, [3, 4, 23, 3], { groups: 64, widthPerGroup: 4 }),
  resnet14_cifar: cifar(14),
  resnet20_cifar: cifar(20),
  resnet32_cifar: cifar(32),
  resnet44_cifar: cifar(44),
  resnet56_cifar: cifar(56),
  resnet110_cifar: cifar(110),
};
