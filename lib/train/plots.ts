import type { EpochReport } from "./fit.js";

type Plot = typeof import("@observablehq/plot");
type PlotOptions = import("@observablehq/plot").PlotOptions;
type PlotDocument = PlotOptions["document"];

const width = 560;
const colours = { training: "#8a94a6", validation: "#2563eb" };

/** Draws the plots of a report, as SVG. Plot and linkedom are loaded when the first one is drawn. */
export class Plots {
  readonly #plot: Plot;
  readonly #document: PlotDocument;

  private constructor(plot: Plot, document: PlotDocument) {
    this.#plot = plot;
    this.#document = document;
  }

  static async load(): Promise<Plots> {
    const [plot, { parseHTML }] = await Promise.all([import("@observablehq/plot"), import("linkedom")]);
    return new Plots(plot, parseHTML("<html><body></body></html>").document);
  }

  /** One line for training and, where it was judged, one for validation, over the epochs. */
  curves(label: string, history: readonly EpochReport[], of: CurveNames, isShare = false): string {
    const { lineY, dot } = this.#plot;
    const points = (["training", "validation"] as const).flatMap((split) =>
      history.flatMap((epoch) => {
        const value = epoch[of[split]];
        return value === undefined ? [] : [{ epoch: epoch.epoch, value, split }];
      }),
    );
    const channels = { x: "epoch", y: "value", z: "split", stroke: "split" };
    return this.#draw({
      height: 260,
      x: { label: "epoch", ticks: ticks(history.length), tickFormat: "d" },
      y: { label, grid: true, ...(isShare && { percent: true }) },
      color: { domain: Object.keys(colours), range: Object.values(colours), legend: false },
      marks: [lineY(points, { ...channels, strokeWidth: 2 }), dot(points, { ...channels, fill: "split", r: 2 })],
    });
  }

  /** The learning rate at the end of every epoch. */
  learningRate(history: readonly EpochReport[]): string {
    const { lineY } = this.#plot;
    return this.#draw({
      height: 200,
      x: { label: "epoch", ticks: ticks(history.length), tickFormat: "d" },
      y: { label: "learning rate at its end", grid: true },
      marks: [lineY(history, { x: "epoch", y: "lr", stroke: "#0f766e", strokeWidth: 2 })],
    });
  }

  /** Counts by truth (down) and prediction (across), shaded by their share of the row. */
  confusion(counts: readonly (readonly number[])[], classes: readonly string[]): string {
    const { cell, text } = this.#plot;
    const cells = counts.flatMap((row, truth) => {
      const total = Math.max(
        1,
        row.reduce((sum, count) => sum + count, 0),
      );
      return row.map((count, predicted) => ({ truth, predicted, count, share: count / total }));
    });
    const side = Math.max(22, Math.min(52, Math.floor(900 / classes.length)));
    const name = (index: number) => short(classes[index]);
    return this.#draw({
      width: side * classes.length + 190,
      height: side * classes.length + 130,
      marginLeft: 130,
      marginTop: 100,
      x: { label: "predicted", axis: "top", tickFormat: name, tickRotate: -40, domain: [...classes.keys()] },
      y: { label: "truth", tickFormat: name, domain: [...classes.keys()] },
      color: { type: "sqrt", scheme: "blues", domain: [0, 1] },
      marks: [
        cell(cells, { x: "predicted", y: "truth", fill: "share", inset: 0.5 }),
        ...[true, false].map((dark) =>
          text(
            cells.filter(({ count, share }) => count > 0 && share > 0.4 === dark),
            { x: "predicted", y: "truth", text: "count", fill: dark ? "white" : "black" },
          ),
        ),
      ],
    });
  }

  #draw(options: PlotOptions): string {
    const figure = this.#plot.plot({
      width,
      marginLeft: 56,
      style: { fontSize: "12px", background: "none" },
      ...options,
      document: this.#document,
    });
    figure.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    return figure.outerHTML;
  }
}

/** Which figures of an epoch a plot shows. */
interface CurveNames {
  readonly training: "loss" | "accuracy";
  readonly validation: "validationLoss" | "validationAccuracy";
}

/** Whole epochs only, and not more than a dozen of them. */
function ticks(epochs: number): number[] {
  const step = Math.ceil(epochs / 12);
  return Array.from({ length: Math.floor(epochs / step) }, (_, i) => (i + 1) * step);
}

function short(label: string): string {
  return label.length > 16 ? `${label.slice(0, 15)}…` : label;
}
