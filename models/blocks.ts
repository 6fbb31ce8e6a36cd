import { ArgumentError, expected } from "../lib/errors.js";
import { BatchNorm2d, Conv2d, Linear, Module, ReLU, Sequential, Sigmoid } from "../lib/nn/index.js";
import { checkOptions, type OptionNames } from "../lib/options.js";
import type { Tensor } from "../lib/tensor.js";

export interface ResidualBlockOptions {
  /** Kernel of both convolutions. Default 3. */
  readonly kernelSize?: number;
  /** Padding of both convolutions. Default 1, which keeps the size under a 3x3 kernel. */
  readonly padding?: number;
}

const residualNames: OptionNames<ResidualBlockOptions> = { kernelSize: true, padding: true };

/** A 1x1 projection and batch norm: what makes the input's channels fit the output's. */
const projection = (inChannels: number, outChannels: number) =>
  new Sequential(new Conv2d(inChannels, outChannels, { kernelSize: 1 }), new BatchNorm2d(outChannels));

/**
 * Two convolutions beside a projected shortcut: `relu(block(x) + shortcut(x))`, `[N, in, H, W] -> [N, out, H, W]`.
 * The kernel and padding must keep the size, else the addition throws ShapeError.
 */
export class ResidualBlock extends Module {
  readonly shortcut: Sequential;
  readonly block: Sequential;

  constructor(inChannels: number, middleChannels: number, outChannels: number, options: ResidualBlockOptions = {}) {
    super();
    const { kernelSize = 3, padding = 1 } = checkOptions("ResidualBlock", options, residualNames);
    this.shortcut = projection(inChannels, outChannels);
    this.block = new Sequential(
      new Conv2d(inChannels, middleChannels, { kernelSize, padding }),
      new BatchNorm2d(middleChannels),
      new ReLU(),
      new Conv2d(middleChannels, outChannels, { kernelSize, padding }),
      new BatchNorm2d(outChannels),
    );
  }

  override forward(x: Tensor): Tensor {
    return this.block.forward(x).add(this.shortcut.forward(x)).relu();
  }
}

export interface SEBlockOptions {
  /** The squeeze keeps `floor(outChannels / reduction)` channels. Default 16. */
  readonly reduction?: number;
}

const seNames: OptionNames<SEBlockOptions> = { reduction: true };

/**
 * A residual block whose channels are scaled by a learned gate, beside a second shortcut:
 * `block(x) * se(mean(block(x))) + shortcut(x)`, `[N, in, H, W] -> [N, out, H, W]`.
 * Throws ArgumentError when `reduction` leaves no channel.
 */
export class SEBlock extends Module {
  readonly block: ResidualBlock;
  readonly shortcut: Sequential;
  readonly se: Sequential;

  constructor(inChannels: number, middleChannels: number, outChannels: number, options: SEBlockOptions = {}) {
    super();
    const { reduction = 16 } = checkOptions("SEBlock", options, seNames);
    const squeezed = Math.floor(outChannels / reduction);
    if (!(reduction > 0 && squeezed >= 1)) {
      throw new ArgumentError(expected("SEBlock", `reduction in 1..${outChannels}`, String(reduction)));
    }
    this.block = new ResidualBlock(inChannels, middleChannels, outChannels);
    this.shortcut = projection(inChannels, outChannels);
    this.se = new Sequential(
      new Linear(outChannels, squeezed),
      new ReLU(),
      new Linear(squeezed, outChannels),
      new Sigmoid(),
    );
  }

  override forward(x: Tensor): Tensor {
    const residual = this.block.forward(x);
    const [batch, channels] = residual.shape;
    const gate = this.se.forward(residual.mean([2, 3])).reshape([batch, channels, 1, 1]);
    return residual.mul(gate).add(this.shortcut.forward(x));
  }
}
