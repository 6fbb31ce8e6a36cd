import { expect, it } from "vitest";
import { degradationReport } from "../dist/bench/degradation_report.js";

const curve = (name: string, ...trainingError: number[]) => ({
  name,
  trainingError,
  loss: trainingError,
  testError: 0.5,
});
const budget = { images: 640, epochs: 2, batch: 64, probeSteps: 1 };

it("the degradation report says what came out, and draws it", async () => {
  const curves = [
    curve("plain20_cifar", 0.5, 0.3),
    curve("plain56_cifar", 0.8, 0.6),
    curve("resnet20_cifar", 0.4, 0.2),
    curve("resnet56_cifar", 0.5, 0.1),
    curve("seresnet20_cifar", 0.4, 0.2),
  ];
  const gradients = [
    {
      name: "sigmoid, no norm, plain",
      layers: ["conv1", "conv2", "fc"],
      first: [1e-12, 0, 1],
      last: [1e-6, 1e-3, 1],
      loss: { first: 2.3, last: 2.2 },
      ratio: { first: 1e-12, last: 1e-6 },
    },
  ];
  const html = await degradationReport({ device: "CPU <2>", budget, curves, gradients });
  expect(html).toContain("plain networks: with 56 layers 60.0 %, more than the 30.0 % with 20");
  expect(html).toContain("residual networks: with 56 layers 10.0 %, not more than the 20.0 % with 20");
  expect(html).toContain("CPU &lt;2&gt;");
  expect(html.match(/<svg/g)).toHaveLength(2);
  expect(html).not.toMatch(/NaN|undefined|<script|https?:(?!\/\/www\.w3\.org)/);
});
