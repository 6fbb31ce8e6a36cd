import { nn, type Tensor } from "../lib/index.js";
import { conv1x1, conv3x3 } from "../models/resnet.js";

/** What is varied when gradients are followed through the layers. */
export interface ProbeOptions {
  readonly activation: "relu" | "sigmoid";
  readonly batchNorm: boolean;
  readonly residual: boolean;
}

/** Every combination, by name. */
export const probes: Readonly<Record<string, ProbeOptions>> = Object.fromEntries(
  (["relu", "sigmoid"] as const).flatMap((activation) =>
    [true, false].flatMap((batchNorm) =>
      [false, true].map((residual) => [
        `${activation}, ${batchNorm ? "batch norm" : "no norm"}, ${residual ? "residual" : "plain"}`,
        { activation, batchNorm, residual },
      ]),
    ),
  ),
);

/** Convolution, batch norm where asked for, activation where one follows. */
class Layer extends nn.Module {
  readonly conv: nn.Conv2d;
  readonly bn: nn.BatchNorm2d | undefined;
  readonly activation: nn.Module | undefined;

  constructor(conv: nn.Conv2d, { activation, batchNorm }: ProbeOptions, activated: boolean) {
    super();
    this.conv = conv;
    this.bn = batchNorm ? new nn.BatchNorm2d(conv.weight.shape[0]) : undefined;
    this.activation = activated ? activationNamed(activation) : undefined;
  }

  override forward(x: Tensor): Tensor {
    const y = this.conv.forward(x);
    const z = this.bn ? this.bn.forward(y) : y;
    return this.activation ? this.activation.forward(z) : z;
  }
}

class Block extends nn.Module {
  readonly first: Layer;
  readonly second: Layer;
  readonly shortcut: Layer | undefined;
  readonly activation: nn.Module;
  readonly #residual: boolean;

  constructor(inChannels: number, outChannels: number, stride: number, options: ProbeOptions) {
    super();
    this.first = new Layer(conv3x3(inChannels, outChannels, stride), options, true);
    this.second = new Layer(conv3x3(outChannels, outChannels), options, false);
    const fits = stride === 1 && inChannels === outChannels;
    this.shortcut =
      options.residual && !fits ? new Layer(conv1x1(inChannels, outChannels, stride), options, false) : undefined;
    this.activation = activationNamed(options.activation);
    this.#residual = options.residual;
  }

  override forward(x: Tensor): Tensor {
    const y = this.second.forward(this.first.forward(x));
    if (!this.#residual) return this.activation.forward(y);
    return this.activation.forward(y.add(this.shortcut ? this.shortcut.forward(x) : x));
  }
}

const activationNamed = (name: ProbeOptions["activation"]) => (name === "relu" ? new nn.ReLU() : new nn.Sigmoid());

/**
 * The small-image family (He et al. 2016, section 4.2: three stages of 16, 32 and 64 channels, `depth` layers with
 * weights), where activation, batch norm and shortcuts are chosen: `[N, 1, H, W] -> [N, 10]`.
 */
export class ProbeNet extends nn.Module {
  readonly stem: Layer;
  readonly blocks: nn.Sequential;
  readonly pool = new nn.AdaptiveAvgPool2d(1);
  readonly fc = new nn.Linear(64, 10);

  constructor(depth: number, options: ProbeOptions) {
    super();
    this.stem = new Layer(conv3x3(1, 16), options, true);
    const perStage = (depth - 2) / 6;
    const widths = [16, 32, 64].flatMap((width) => Array<number>(perStage).fill(width));
    this.blocks = new nn.Sequential(
      ...widths.map((width, i) => {
        const before = widths[i - 1] ?? 16;
        return new Block(before, width, width > before ? 2 : 1, options);
      }),
    );
  }

  override forward(x: Tensor): Tensor {
    return this.fc.forward(this.pool.forward(this.blocks.forward(this.stem.forward(x))).flatten(1));
  }

  /** The weights of the layers on the main path, first to last: `depth` of them. */
  layers(): [string, Tensor][] {
    return [...this.namedParameters()].filter(
      ([name]) => (name.endsWith("conv.weight") || name === "fc.weight") && !name.includes("shortcut"),
    );
  }
}
