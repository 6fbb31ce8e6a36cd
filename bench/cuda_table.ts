import Table from "cli-table3";
import type { Contender } from "./cuda_child.js";
import type { Dtype, Feed, Kernels } from "./cuda_runner.js";
import { digits } from "./report.js";

/** What a contender takes with one kind of input: medians of the rounds. */
interface Speed {
  /** Milliseconds of a run by itself. */
  readonly latency: number;
  /** Milliseconds of a run among others. */
  readonly milliseconds: number;
  readonly imagesPerSecond: number;
  /** `milliseconds` of each round. */
  readonly rounds: readonly number[];
}

/** One contender in one case; times are there unless it `failed`. */
export interface Row extends Partial<Readonly<Record<Feed, Speed>>> {
  readonly contender: Contender;
  readonly failed?: string;
  /** Relative error of the logits from the reference's. */
  readonly differs?: number;
  readonly ready?: number;
  readonly peakBytes?: number;
}

export interface Case {
  readonly model: string;
  readonly dtype: Dtype;
  readonly batch: number;
  /** Ours first. */
  readonly rows: readonly Row[];
  readonly kernels?: Kernels;
}

const style = { head: [], border: [], compact: true };
const percent = (share: number) => `${digits(100 * share, 3)} %`;

/** Share of what the device can do at most: the least time of the kernels / the time of a run. */
export function rooflineShare({ rows: [ours], kernels }: Case): number | undefined {
  const least = kernels?.leastMilliseconds;
  return least === undefined || !ours.resident ? undefined : least / ours.resident.milliseconds;
}

export function table(cases: readonly Case[]): string {
  const head = [
    "",
    "dtype",
    "batch",
    "",
    "images/s",
    "ms",
    "alone ms",
    "floats in",
    "pixels in",
    "roofline",
    "MB",
    "differs",
  ];
  const all = new Table({ head, style });
  for (const one of cases) {
    const share = rooflineShare(one);
    for (const [i, { contender, failed, resident, float32, uint8, peakBytes, differs }] of one.rows.entries())
      all.push([
        ...(i === 0 ? [one.model, one.dtype, one.batch] : ["", "", ""]),
        contender,
        ...(failed !== undefined
          ? [{ content: failed, colSpan: 8 }]
          : [
              resident?.imagesPerSecond ?? "",
              resident?.milliseconds ?? "",
              resident?.latency ?? "",
              float32?.imagesPerSecond ?? "",
              uint8?.imagesPerSecond ?? "",
              i === 0 && share !== undefined ? percent(share) : "",
              peakBytes ? digits(peakBytes / 1e6, 3) : "",
              differs ?? "",
            ]),
      ]);
  }
  const note =
    "images/s, ms and alone: the input is on the device (ours float32 N,C,H,W, PyTorch's in its dtype and channels-last), " +
    "times of the device's events, medians of the rounds; floats in, pixels in: images/s from the host's memory and back, " +
    "pixels normalised on the device; MB: device memory at its peak";
  return `${all}\n${note}`;
}

/** The kernels of a case that take most, as many as fit a screen, and what all of one kind take: each with its bound. */
export function kernelsTable({ model, dtype, batch, kernels: found }: Case, most = 25): string {
  if (!found) return "";
  const { kernels, copied, notReplayed } = found;
  const head = ["ms", "MB", "GB/s", "TFLOP/s", "bound by", "bound, ms", "share of it"];
  const row = (all: Kernels["kernels"]) => {
    const sum = (of: (kernel: Kernels["kernels"][number]) => number) =>
      all.reduce((total, kernel) => total + of(kernel), 0);
    const [milliseconds, bytes, flops] = [sum((k) => k.milliseconds), sum((k) => k.bytes), sum((k) => k.flops)];
    const least = sum(({ bound }) => bound?.milliseconds ?? 0);
    const by = new Set(all.map(({ bound }) => bound?.by ?? ""));
    return [
      digits(milliseconds, 3),
      digits(bytes / 1e6, 3),
      digits(bytes / milliseconds / 1e6, 3),
      flops > 0 ? digits(flops / milliseconds / 1e9, 3) : "",
      [...by].join(", "),
      digits(least, 3),
      percent(least / milliseconds),
    ];
  };
  const each = new Table({ head: ["layer", "kernel", ...head], style });
  const name = ({ op, implementation }: { op: string; implementation: string }) => `${op} ${implementation}`.trim();
  const longest = [...kernels].sort((a, b) => b.milliseconds - a.milliseconds).slice(0, most);
  for (const kernel of longest) each.push([kernel.layer, name(kernel), ...row([kernel])]);
  const kinds = new Table({ head: ["kernels of one kind", "", ...head], style });
  const together = new Map<string, (typeof kernels)[number][]>();
  for (const kernel of kernels) together.set(name(kernel), [...(together.get(name(kernel)) ?? []), kernel]);
  const totals = [...together].map(([kind, all]) => [kind, all.length, ...row(all)] as const);
  for (const line of totals.sort((a, b) => Number(b[2]) - Number(a[2]))) kinds.push([...line]);
  kinds.push(["all", kernels.length, ...row(kernels)]);
  const title = `${model} ${dtype} batch ${batch}: ${longest.length} of ${kernels.length} kernels, caches flushed before each`;
  const replayed = notReplayed ? `\nNOT REPLAYED: runs are given kernel by kernel: ${notReplayed}` : "";
  return `${title}; a copy moves ${digits(copied / 1e9, 3)} GB/s\n${each}\n${kinds}${replayed}`;
}

export interface Target {
  readonly what: string;
  readonly got: number;
  readonly wanted: string;
}

/** What the project wants, for the cases that were measured: of a card what that card can do, whichever it is. */
export function targets(cases: readonly Case[]): Target[] {
  const find = (model: string, batch: number) =>
    cases.find((one) => one.model === model && one.dtype === "float16" && one.batch === batch);
  const rowOf = (one: Case | undefined, contender: Contender) => one?.rows.find((row) => row.contender === contender);
  const [large, small, plain] = [find("seresnet50", 128), find("seresnet50", 1), find("resnet50", 128)];
  const ours = rowOf(large, "seresnet")?.resident;
  const compiled = rowOf(large, "torch compile")?.resident;
  const without = rowOf(plain, "seresnet")?.resident;
  const alone = rowOf(small, "seresnet")?.resident;
  const theirs = rowOf(small, "torch compile")?.resident;
  const share = large && rooflineShare(large);
  const found: (Target | undefined | false)[] = [
    share !== undefined && {
      what: "SE-ResNet-50 float16 batch 128, % of this card's own bound",
      got: digits(100 * share, 3),
      wanted: "at least 70",
    },
    ours &&
      compiled && {
        what: "the same / torch.compile's",
        got: digits(compiled.milliseconds / ours.milliseconds, 3),
        wanted: "at least 1.3",
      },
    alone &&
      theirs && {
        what: "batch 1, latency / torch.compile's",
        got: digits(alone.latency / theirs.latency, 3),
        wanted: "at most 0.7",
      },
    ours &&
      without && {
        what: "what SE costs over ResNet-50, %",
        got: digits(100 * (ours.milliseconds / without.milliseconds - 1), 3),
        wanted: "under 6",
      },
  ];
  return found.filter((target) => target !== undefined && target !== false);
}
