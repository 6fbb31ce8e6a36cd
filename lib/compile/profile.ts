import type { DeviceName, StepProfile } from "../devices/executor.js";

/** Where the time of one run went, kernel by kernel. Its text form is a table. */
export class Profile {
  constructor(
    readonly device: DeviceName,
    /** In the order in which they ran. */
    readonly steps: readonly StepProfile[],
  ) {}

  /** From the start of the first kernel to the end of the last. */
  get milliseconds(): number {
    const [first] = this.steps;
    return this.steps.reduce((end, step) => Math.max(end, step.start + step.milliseconds), 0) - (first?.start ?? 0);
  }

  /** Read and written by all kernels together. */
  get bytes(): number {
    return this.steps.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** The table for people. */
  toString(): string {
    const total = this.milliseconds;
    const row = (names: readonly string[], milliseconds: number, bytes: number) => [
      ...names,
      milliseconds.toFixed(3),
      `${((milliseconds / total) * 100 || 0).toFixed(1)}%`,
      (bytes / 1e6).toFixed(2),
      (bytes / 1e6 / milliseconds || 0).toFixed(1),
    ];
    const table = [
      ["layer", "operation", "implementation", "ms", "share", "MB", "GB/s"],
      ...this.steps.map((s) => row([s.layer, s.op, s.implementation], s.milliseconds, s.bytes)),
      row([this.device, `${this.steps.length} kernels`, ""], total, this.bytes),
    ];
    const widths = table[0].map((_, column) => Math.max(...table.map((cells) => cells[column].length)));
    const line = (cells: readonly string[]) =>
      cells
        .map((cell, i) => (i < 3 ? cell.padEnd(widths[i]) : cell.padStart(widths[i])))
        .join("  ")
        .trimEnd();
    return table.map(line).join("\n");
  }

  /**
   * The run as a trace: a JSON text for chrome://tracing or https://ui.perfetto.dev
   * (the "Trace Event Format", complete events; times in microseconds).
   */
  chromeTrace(): string {
    const place = { pid: 1, tid: 1 };
    const name = (kind: string, value: string) => ({ name: kind, ph: "M", ...place, args: { name: value } });
    const events = this.steps.map(({ op, layer, implementation, start, milliseconds, bytes }) => ({
      name: layer || op,
      cat: op,
      ph: "X",
      ts: start * 1000,
      dur: milliseconds * 1000,
      ...place,
      args: { op, layer, implementation, bytes },
    }));
    const traceEvents = [name("process_name", "seresnet"), name("thread_name", this.device), ...events];
    return JSON.stringify({ displayTimeUnit: "ms", traceEvents });
  }
}
