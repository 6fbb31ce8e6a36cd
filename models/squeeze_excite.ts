import { Conv2d, Module } from "../lib/nn/index.js";
import type { Tensor } from "../lib/tensor.js";

/** How many channels the squeeze keeps, from the channels and the reduction. */
export type HiddenChannels = (channels: number, reduction: number) => number;

/** timm's rule: the nearest multiple of 8, at least 8. */
export const nearestEight: HiddenChannels = (channels, reduction) =>
  Math.max(8, 8 * Math.floor(Math.floor(channels / reduction + 4) / 8));

/** The rule of the small-image networks: at least 4. */
export const atLeastFour: HiddenChannels = (channels, reduction) => Math.max(4, Math.floor(channels / reduction));

/** The rule of the original SENet, and of timm's `legacy_` models: rounded down. */
export const roundedDown: HiddenChannels = (channels, reduction) => Math.max(1, Math.floor(channels / reduction));

/**
 * Squeeze and excitation (Hu et al. 2018): every channel of `x` times a gate in (0, 1) computed from all channel means.
 * `[N, channels, H, W] -> [N, channels, H, W]`; fc1 and fc2 are 1x1 convolutions with bias, as in timm.
 */
export class SqueezeExcite extends Module {
  readonly fc1: Conv2d;
  readonly fc2: Conv2d;

  constructor(channels: number, hidden: number) {
    super();
    this.fc1 = new Conv2d(channels, hidden, { kernelSize: 1 });
    this.fc2 = new Conv2d(hidden, channels, { kernelSize: 1 });
  }

  override forward(x: Tensor): Tensor {
    const squeezed = this.fc1.forward(x.mean([2, 3], { keepDims: true })).relu();
    return x.mul(this.fc2.forward(squeezed).sigmoid());
  }
}
