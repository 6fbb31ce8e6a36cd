import {
  BatchNorm2d,
  Conv2d,
  type Identity,
  type Linear,
  MaxPool2d,
  type Module,
  ReLU,
  Sequential,
} from "../lib/nn/index.js";
import type { Tensor } from "../lib/tensor.js";
import { type ResNetOptions, resNetDefaults, resolveOptions, type SEPlacement } from "./options.js";
import {
  BasicBlock,
  type BlockClass,
  type BlockSettings,
  Bottleneck,
  cifar,
  conv1x1,
  conv3x3,
  makeClassifier,
  makeDownsample,
  makePool,
  makeSE,
  Network,
  ResidualUnit,
  resnet,
  type Variant,
} from "./resnet.js";
import { roundedDown, type SqueezeExcite } from "./squeeze_excite.js";

/** timm's legacy basic block: unlike `BasicBlock` it has a ReLU between its last batch norm and the SE unit. */
class LegacyBasicBlock extends ResidualUnit {
  static readonly expansion = 1;
  readonly conv1: Conv2d;
  readonly bn1: BatchNorm2d;
  readonly conv2: Conv2d;
  readonly bn2: BatchNorm2d;
  readonly se_module: SqueezeExcite | undefined;
  readonly downsample: Module | undefined;
  protected readonly placement: SEPlacement = "standard";

  constructor(inChannels: number, width: number, settings: BlockSettings) {
    super();
    this.conv1 = conv3x3(inChannels, width, settings.step);
    this.bn1 = new BatchNorm2d(width);
    this.conv2 = conv3x3(width, width);
    this.bn2 = new BatchNorm2d(width);
    this.se_module = makeSE(inChannels, width, settings);
    this.downsample = makeDownsample(inChannels, width, settings);
    if (settings.zeroInitResidual) this.bn2.weight?.fill(0);
  }

  protected override get se(): SqueezeExcite | undefined {
    return this.se_module;
  }

  protected override branch(x: Tensor): Tensor {
    const y = this.bn1.forward(this.conv1.forward(x)).relu();
    return this.bn2.forward(this.conv2.forward(y)).relu();
  }
}

/** timm's legacy bottleneck: the stride is in the first 1x1, as in the Caffe original. */
class LegacyBottleneck extends ResidualUnit {
  static readonly expansion = 4;
  readonly conv1: Conv2d;
  readonly bn1: BatchNorm2d;
  readonly conv2: Conv2d;
  readonly bn2: BatchNorm2d;
  readonly conv3: Conv2d;
  readonly bn3: BatchNorm2d;
  readonly se_module: SqueezeExcite | undefined;
  readonly downsample: Module | undefined;
  protected readonly placement: SEPlacement = "standard";

  constructor(inChannels: number, width: number, settings: BlockSettings) {
    super();
    const outChannels = width * LegacyBottleneck.expansion;
    this.conv1 = conv1x1(inChannels, width, settings.step);
    this.bn1 = new BatchNorm2d(width);
    this.conv2 = conv3x3(width, width);
    this.bn2 = new BatchNorm2d(width);
    this.conv3 = conv1x1(width, outChannels);
    this.bn3 = new BatchNorm2d(outChannels);
    this.se_module = makeSE(inChannels, outChannels, settings);
    this.downsample = makeDownsample(inChannels, outChannels, settings);
    if (settings.zeroInitResidual) this.bn3.weight?.fill(0);
  }

  protected override get se(): SqueezeExcite | undefined {
    return this.se_module;
  }

  protected override branch(x: Tensor): Tensor {
    const y = this.bn1.forward(this.conv1.forward(x)).relu();
    const z = this.bn2.forward(this.conv2.forward(y)).relu();
    return this.bn3.forward(this.conv3.forward(z));
  }
}

const legacyDefaults: ResNetOptions = {
  numClasses: 1000,
  inChannels: 3,
  reduction: 16,
  zeroInitResidual: false,
  globalPool: "avg",
};

/** The SENet authors' networks as timm's `legacy_seresnet…` keep them: their names, ceil-mode pool and strides. */
export class LegacySEResNet extends Network {
  readonly layer0: Sequential;
  readonly pool0: MaxPool2d;
  readonly layer1: Sequential;
  readonly layer2: Sequential;
  readonly layer3: Sequential;
  readonly layer4: Sequential;
  readonly avg_pool: Module;
  readonly last_linear: Linear | Identity;

  constructor(modelName: string, block: BlockClass, layers: readonly number[], options: ResNetOptions = {}) {
    const resolved = resolveOptions(modelName, options, legacyDefaults);
    super(modelName, resolved);
    const settings = { ...resNetDefaults, ...resolved, se: "standard" as const, hiddenChannels: roundedDown };
    const stage = (index: number) => {
      const inChannels = index === 0 ? 64 : (64 * block.expansion) << (index - 1);
      const blockSettings = { ...settings, step: index === 0 ? 1 : 2 };
      return this._makeLayer(block, inChannels, 64 << index, layers[index], blockSettings);
    };
    this.layer0 = new Sequential({
      conv1: new Conv2d(settings.inChannels, 64, { kernelSize: 7, stride: 2, padding: 3, bias: false }),
      bn1: new BatchNorm2d(64),
      relu1: new ReLU(),
    });
    this.pool0 = new MaxPool2d({ kernelSize: 3, stride: 2, ceilMode: true });
    this.layer1 = stage(0);
    this.layer2 = stage(1);
    this.layer3 = stage(2);
    this.layer4 = stage(3);
    this.avg_pool = makePool(settings);
    this.last_linear = makeClassifier(512 * block.expansion, settings);
  }

  protected override get stages(): Sequential[] {
    return [this.layer1, this.layer2, this.layer3, this.layer4];
  }

  protected override stem(x: Tensor): Tensor {
    return this.pool0.forward(this.layer0.forward(x));
  }

  protected override get pool(): Module {
    return this.avg_pool;
  }

  protected override get classifier(): Module {
    return this.last_linear;
  }
}

const se = { se: "standard" } as const;
const legacy =
  (block: BlockClass, layers: readonly number[]): Variant =>
  (name, options) =>
    new LegacySEResNet(name, block, layers, options);

export const seResnets = {
  seresnet18: resnet(BasicBlock, [2, 2, 2, 2], se),
  seresnet34: resnet(BasicBlock, [3, 4, 6, 3], se),
  seresnet50: resnet(Bottleneck, [3, 4, 6, 3], se),
  seresnet101: resnet(Bottleneck, [3, 4, 23, 3], se),
  seresnet152: resnet(Bottleneck, [3, 8, 36, 3], se),
  seresnext50_32x4d: resnet(Bottleneck, [3, 4, 6, 3], { ...se, groups: 32, widthPerGroup: 4 }),
  seresnext101_32x4d: resnet(Bottleneck, [3, 4, 23, 3], { ...se, groups: 32, widthPerGroup: 4 }),
  seresnext101_32x8d: resnet(Bottleneck, [3, 4, 23, 3], { ...se, groups: 32, widthPerGroup: 8 }),
  seresnext101_64x4d: resnet(Bottleneck, [3, 4, 23, 3], { ...se, groups: 64, widthPerGroup: 4 }),
  legacy_seresnet18: legacy(LegacyBasicBlock, [2, 2, 2, 2]),
  legacy_seresnet34: legacy(LegacyBasicBlock, [3, 4, 6, 3]),
  legacy_seresnet50: legacy(LegacyBottleneck, [3, 4, 6, 3]),
  legacy_seresnet101: legacy(LegacyBottleneck, [3, 4, 23, 3]),
  legacy_seresnet152: legacy(LegacyBottleneck, [3, 8, 36, 3]),
  seresnet14_cifar: cifar(14, se),
  seresnet20_cifar: cifar(20, se),
  seresnet32_cifar: cifar(32, se),
  seresnet44_cifar: cifar(44, se),
  seresnet56_cifar: cifar(56, se),
  seresnet110_cifar: cifar(110, se),
};
