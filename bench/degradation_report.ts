import { Drawing, epochTicks } from "../lib/train/drawing.js";
import { page, percent, section, table } from "../lib/train/html.js";
import type { Budget, Curve, Probe } from "./degradation.js";

/** What a report tells of. */
export interface DegradationSource {
  readonly device: string;
  readonly budget: Budget;
  readonly curves: readonly Curve[];
  readonly gradients: readonly Probe[];
}

/** Plain networks in warm colours, residual ones in cold; the deeper, the darker. */
const colours: Readonly<Record<string, string>> = {
  plain20_cifar: "#f59e0b",
  plain56_cifar: "#b91c1c",
  resnet20_cifar: "#60a5fa",
  resnet56_cifar: "#1d4ed8",
  seresnet20_cifar: "#0f766e",
};

/** The experiment as one HTML file: He et al. 2016, figures 1 and 6, and Glorot & Bengio 2010, figures 6 and 7. */
export async function degradationReport({ device, budget, curves, gradients }: DegradationSource): Promise<string> {
  const drawing = await Drawing.load();
  return page({
    title: "seresnet: what residual networks are for",
    heading: "What residual networks are for",
    facts: [
      `Fashion-MNIST, ${budget.images} images, ${budget.epochs} epochs in batches of ${budget.batch}, the same for every network`,
      device,
    ],
    sections: [
      section("Training error by depth", errorPlot(drawing, curves) + errorTable(curves), lesson(curves)),
      section("Gradient by layer", gradientPlot(drawing, gradients) + gradientTable(gradients), gradientText),
    ],
  });
}

const last = (values: readonly number[]) => values[values.length - 1];

/** What came out, in words that follow the figures. */
function lesson(curves: readonly Curve[]): string {
  const error = Object.fromEntries(curves.map(({ name, trainingError }) => [name, last(trainingError)]));
  const compared = (deep: string, shallow: string) => {
    const worse = error[deep] > error[shallow];
    return `with 56 layers ${percent(error[deep], 1)}, ${worse ? "more" : "not more"} than the ${percent(error[shallow], 1)} with 20`;
  };
  return `<p>Training error of plain networks: ${compared("plain56_cifar", "plain20_cifar")}. Of residual networks: ${compared("resnet56_cifar", "resnet20_cifar")}.</p>`;
}

function errorPlot(drawing: Drawing, curves: readonly Curve[]): string {
  const points = curves.flatMap(({ name, trainingError }) =>
    trainingError.map((error, epoch) => ({ name, epoch: epoch + 1, error })),
  );
  const ends = curves.map(({ name, trainingError }) => ({
    name,
    epoch: trainingError.length,
    error: last(trainingError),
  }));
  const channels = { x: "epoch", y: "error", z: "name", stroke: "name" };
  return drawing.svg({
    height: 340,
    marginRight: 120,
    x: { label: "epoch", ticks: epochTicks(points.length / curves.length), tickFormat: "d" },
    y: { label: "training error (%)", percent: true, grid: true, zero: true },
    color: { domain: Object.keys(colours), range: Object.values(colours), legend: false },
    marks: [
      drawing.marks.lineY(points, { ...channels, strokeWidth: 2 }),
      drawing.marks.text(ends, { x: "epoch", y: "error", text: "name", fill: "name", textAnchor: "start", dx: 6 }),
    ],
  });
}

function errorTable(curves: readonly Curve[]): string {
  return table(
    ["network", "training error", "training loss", "test error"],
    curves.map(({ name, trainingError, loss, testError }) => [
      name,
      percent(last(trainingError), 1),
      last(loss).toFixed(3),
      percent(testError, 1),
    ]),
  );
}

const gradientText =
  "<p>Norm of the loss's gradient by the weights of each layer, first layer left, at the first step (grey) and the last (blue). What falls by powers of ten towards the left has vanished before it came to the first layers.</p>";

function gradientPlot(drawing: Drawing, gradients: readonly Probe[]): string {
  const points = gradients.flatMap(({ name, first, last }) =>
    (["first", "last"] as const).flatMap((step) =>
      // a gradient of 0 has no place on a scale of powers
      (step === "first" ? first : last).map((norm, layer) => ({
        name,
        step,
        layer: layer + 1,
        norm: norm || undefined,
      })),
    ),
  );
  return drawing.svg({
    width: 860,
    height: 130 * gradients.length,
    marginRight: 210,
    x: { label: "layer", tickFormat: "d" },
    y: { label: "gradient norm", type: "log", grid: true, ticks: 4, tickFormat: ".0e" },
    fy: { label: null, domain: gradients.map(({ name }) => name) },
    color: { domain: ["first", "last"], range: ["#8a94a6", "#2563eb"], legend: false },
    marks: [
      drawing.marks.frame({ stroke: "#dde1e7" }),
      drawing.marks.lineY(points, { x: "layer", y: "norm", fy: "name", z: "step", stroke: "step", strokeWidth: 2 }),
    ],
  });
}

function gradientTable(gradients: readonly Probe[]): string {
  return table(
    ["20 layers", "first / last layer, first step", "the same, last step", "loss, first step", "loss, last step"],
    gradients.map(({ name, ratio, loss }) => [
      name,
      ratio.first.toExponential(1),
      ratio.last.toExponential(1),
      loss.first.toFixed(3),
      loss.last.toFixed(3),
    ]),
  );
}
