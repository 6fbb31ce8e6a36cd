import { BatchNorm2d, type Conv2d, Module } from "../lib/nn/index.js";
import type { Tensor } from "../lib/tensor.js";
import type { ResNetOptions } from "./options.js";
import { type BlockSettings, conv3x3, ResNet, type Variant } from "./resnet.js";

/** Two 3x3 convolutions and nothing beside them: what the paper compares residual blocks with. */
export class PlainBlock extends Module {
  static readonly expansion = 1;
  readonly conv1: Conv2d;
  readonly bn1: BatchNorm2d;
  readonly conv2: Conv2d;
  readonly bn2: BatchNorm2d;

  constructor(inChannels: number, width: number, { step }: BlockSettings) {
    super();
    this.conv1 = conv3x3(inChannels, width, step);
    this.bn1 = new BatchNorm2d(width);
    this.conv2 = conv3x3(width, width);
    this.bn2 = new BatchNorm2d(width);
  }

  override forward(x: Tensor): Tensor {
    const y = this.bn1.forward(this.conv1.forward(x)).relu();
    return this.bn2.forward(this.conv2.forward(y)).relu();
  }
}

const plain =
  (layers: readonly number[]): Variant =>
  (name, options) =>
    new ResNet(
      name,
      { block: PlainBlock, layers, defaults: { numClasses: 1000, inChannels: 3, globalPool: "avg" } },
      options,
    );

const plainCifar =
  (depth: number): Variant =>
  (name, options) => {
    const layers = Array<number>(3).fill((depth - 2) / 6);
    const defaults: ResNetOptions = { numClasses: 10, inChannels: 3, globalPool: "avg" };
    return new ResNet(name, { block: PlainBlock, layers, stem: "cifar", defaults }, options);
  };

export const plains = {
  plain18: plain([2, 2, 2, 2]),
  plain34: plain([3, 4, 6, 3]),
  plain20_cifar: plainCifar(20),
  plain32_cifar: plainCifar(32),
  plain44_cifar: plainCifar(44),
  plain56_cifar: plainCifar(56),
  plain110_cifar: plainCifar(110),
};
