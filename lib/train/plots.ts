import { Drawing, epochTicks } from "./drawing.js";
import type { EpochReport } from "./fit_options.js";

const colours = { training: "#8a94a6", validation: "#2563eb" };

/** Draws the plots of a training report, as SVG. */
export class Plots {
  readonly #drawing: Drawing;

  private constructor(drawing: Drawing) {
    this.#drawing = drawing;
  }

  static async load(): Promise<Plots> {
    return new Plots(await Drawing.load());
  }

  /** One line for training and, where it was judged, one for validation, over the epochs. */
  curves(label: string, history: readonly EpochReport[], of: CurveNames, isShare = false): string {
    const { lineY, dot } = this.#drawing.marks;
    const points = (["training", "validation"] as const).flatMap((split) =>
      history.flatMap((epoch) => {
        const value = epoch[of[split]];
        return value === undefined ? [] : [{ epoch: epoch.epoch, value, split }];
      }),
    );
    const channels = { x: "epoch", y: "value", z: "split", stroke: "split" };
    return this.#drawing.svg({
      height: 260,
      x: { label: "epoch", ticks: epochTicks(history.length), tickFormat: "d" },
      y: { label, grid: true, ...(isShare && { percent: true }) },
      color: { domain: Object.keys(colours), range: Object.values(colours), legend: false },
      marks: [lineY(points, { ...channels, strokeWidth: 2 }), dot(points, { ...channels, fill: "split", r: 2 })],
    });
  }

  /** The learning rate at the end of every epoch. */
  learningRate(history: readonly EpochReport[]): string {
    const { lineY } = this.#drawing.marks;
    return this.#drawing.svg({
      height: 200,
      x: { label: "epoch", ticks: epochTicks(history.length), tickFormat: "d" },
      y: { label: "learning rate at its end", grid: true },
      marks: [lineY(history, { x: "epoch", y: "lr", stroke: "#0f766e", strokeWidth: 2 })],
    });
  }

  /** Counts by truth (down) and prediction (across), shaded by their share of the row. */
  confusion(counts: readonly (readonly number[])[], classes: readonly string[]): string {
    const { cell, text } = this.#drawing.marks;
    const cells = counts.flatMap((row, truth) => {
      const total = Math.max(
        1,
        row.reduce((sum, count) => sum + count, 0),
      );
      return row.map((count, predicted) => ({ truth, predicted, count, share: count / total }));
    });
    const side = Math.max(22, Math.min(52, Math.floor(900 / classes.length)));
    const name = (index: number) => short(classes[index]);
    return this.#drawing.svg({
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
}

/** Which figures of an epoch a plot shows. */
interface CurveNames {
  readonly training: "loss" | "accuracy";
  readonly validation: "validationLoss" | "validationAccuracy";
}

function short(label: string): string {
  return label.length > 16 ? `${label.slice(0, 15)}…` : label;
}
