// A custom block (a gated depthwise convolution, then a pointwise one), a network of it, and a training loop by hand.
import { functional, nn, optim, summary, tensor } from "seresnet";
import { SqueezeExcite } from "seresnet/models";

class DepthwiseBlock extends nn.Module {
  /** @param {number} channels */
  constructor(channels) {
    super();
    this.depthwise = new nn.Conv2d(channels, channels, { kernelSize: 3, padding: 1, groups: channels, bias: false });
    this.bn = new nn.BatchNorm2d(channels);
    this.se = new SqueezeExcite(channels, 4);
    this.pointwise = new nn.Conv2d(channels, channels, { kernelSize: 1 });
  }

  /** @param {import("seresnet").Tensor} x */
  forward(x) {
    const y = this.se.forward(this.bn.forward(this.depthwise.forward(x)).relu());
    return this.pointwise.forward(y).add(x);
  }
}

class Network extends nn.Module {
  stem = new nn.Conv2d(1, 16, { kernelSize: 3, stride: 2, padding: 1 });
  blocks = new nn.Sequential(new DepthwiseBlock(16), new DepthwiseBlock(16));
  fc = new nn.Linear(16, 2);

  /** @param {import("seresnet").Tensor} x */
  forward(x) {
    return this.fc.forward(this.blocks.forward(this.stem.forward(x)).mean([2, 3]));
  }
}

const model = new Network();
console.log(Object.keys(model.stateDict()).slice(0, 3).join(" ")); // names as PyTorch would have them
console.log(summary(model, [1, 1, 16, 16]).parameters, "parameters");

// two classes of noise: fine-grained and coarse
const pixels = Float32Array.from({ length: 16 * 256 }, (_, i) => ((i >> 8) % 2 ? Math.sin(i * i) : Math.sin(i / 40)));
const labels = tensor(Int32Array.from({ length: 16 }, (_, i) => i % 2));
const optimizer = new optim.AdamW(model.parameters(), { lr: 0.01 });
for (let step = 1; step <= 20; step++) {
  const loss = functional.crossEntropy(model.forward(tensor(pixels, [16, 1, 16, 16])), labels);
  optimizer.zeroGrad();
  loss.backward();
  optimizer.step();
  if (step % 10 === 0) console.log(`step ${step}: loss ${(await loss.item()).toFixed(2)}`);
}
