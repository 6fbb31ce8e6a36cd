type Plot = typeof import("@observablehq/plot");
type PlotOptions = import("@observablehq/plot").PlotOptions;

/** Plot's marks, and a way to draw them as SVG text. Plot and linkedom are loaded when the first one is drawn. */
export class Drawing {
  readonly marks: Plot;
  readonly #document: PlotOptions["document"];

  private constructor(marks: Plot, document: PlotOptions["document"]) {
    this.marks = marks;
    this.#document = document;
  }

  static async load(): Promise<Drawing> {
    const [plot, { parseHTML }] = await Promise.all([import("@observablehq/plot"), import("linkedom")]);
    return new Drawing(plot, parseHTML("<html><body></body></html>").document);
  }

  svg(options: PlotOptions): string {
    const figure = this.marks.plot({
      width: 560,
      marginLeft: 56,
      style: { fontSize: "12px", background: "none" },
      ...options,
      document: this.#document,
    });
    figure.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    return figure.outerHTML;
  }
}

/** Whole epochs only, and not more than a dozen of them. */
export function epochTicks(epochs: number): number[] {
  const step = Math.ceil(epochs / 12);
  return Array.from({ length: Math.floor(epochs / step) }, (_, i) => (i + 1) * step);
}
