import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type Case, rooflineShare, type Target } from "./cuda_table.js";
import { digits } from "./report.js";

/*
 * The end of a call of test/gpu_kit/gpu.sh: what the results in a folder say, in as many lines as a screen shows.
 *   node dist/bench/gpu_report.js OUT [PARITY.json]
 */

interface Assertion {
  readonly status: string;
  readonly fullName: string;
  readonly failureMessages?: readonly string[];
}

const json = (file: string) => JSON.parse(readFileSync(file, "utf8"));
const percent = (share: number | undefined) =>
  share === undefined ? "" : `, ${digits(100 * share, 3)} % of this card's bound`;
/** Of whatever there is most of, so many. */
const most = { failures: 6, kernels: 6 };

function parity(file: string): string[] {
  const all: Assertion[] = json(file).testResults.flatMap(
    (one: { assertionResults: Assertion[] }) => one.assertionResults,
  );
  const failed = all.filter(({ status }) => status === "failed");
  const passed = all.filter(({ status }) => status === "passed").length;
  const lines = failed.slice(0, most.failures).map(({ fullName, failureMessages }) => {
    const [first = ""] = (failureMessages?.[0] ?? "").split("\n");
    return `  ${fullName.slice(-70)}: ${first.slice(0, 80)}`;
  });
  if (failed.length > most.failures) lines.push(`  and ${failed.length - most.failures} more, in log.txt`);
  return [
    `parity: ${passed} passed, ${failed.length} failed, ${all.length - passed - failed.length} skipped`,
    ...lines,
  ];
}

interface Figures {
  readonly device: { readonly description: string };
  readonly commit: string;
  readonly cases: readonly Case[];
  readonly flops: Readonly<Record<string, number>>;
  readonly targets: readonly Target[];
  readonly versions: Readonly<Record<string, unknown>>;
}

function speed({ device, commit, cases, flops, targets, versions }: Figures): string[] {
  const copied = cases.find(({ kernels }) => kernels)?.kernels?.copied;
  const rates = Object.entries(flops).map(([dtype, rate]) => `${digits(rate / 1e12, 3)} TFLOP/s in ${dtype}`);
  const lines = [
    `${device.description}; commit ${commit}`,
    ...Object.entries(versions).map(([name, found]) => `  ${name}: ${JSON.stringify(found)}`.slice(0, 150)),
    `this card, measured now: a copy moves ${copied ? digits(copied / 1e9, 3) : "?"} GB/s; products ${rates.join(", ")}`,
  ];
  for (const one of cases)
    for (const { contender, resident, failed, differs } of one.rows) {
      const what = `  ${one.model} ${one.dtype} batch ${one.batch} ${contender}: `;
      const share = contender === "seresnet" ? percent(rooflineShare(one)) : "";
      lines.push(
        failed || !resident
          ? `${what}${failed ?? "not timed"}`.slice(0, 150)
          : `${what}${resident.imagesPerSecond} images/s, ${resident.milliseconds} ms, alone ${resident.latency} ms${share}, differs by ${differs}`,
      );
    }
  for (const { what, got, wanted } of targets) lines.push(`target: ${what}: ${got}, wanted ${wanted}`);
  const kernels = [...(cases[0]?.kernels?.kernels ?? [])].sort((a, b) => b.milliseconds - a.milliseconds);
  for (const { layer, op, implementation, milliseconds, bytes, bound } of kernels.slice(0, most.kernels)) {
    const share = bound
      ? `, ${digits((100 * bound.milliseconds) / milliseconds, 3)} % of its bound by ${bound.by}`
      : "";
    const speed = `${digits(milliseconds, 3)} ms, ${digits(bytes / milliseconds / 1e6, 3)} GB/s`;
    lines.push(`  kernel ${layer} ${op} ${implementation}: ${speed}${share}`);
  }
  return lines;
}

interface Training {
  readonly results: readonly {
    readonly model: string;
    readonly dtype: string;
    readonly batch: number;
    readonly rows: readonly {
      readonly runtime: string;
      readonly imagesPerSecond: number;
      readonly milliseconds: number;
    }[];
  }[];
  readonly failures: readonly string[];
}

function training({ results, failures }: Training): string[] {
  return [
    ...results.flatMap(({ model, dtype, batch, rows }) =>
      rows.map(
        ({ runtime, imagesPerSecond, milliseconds }) =>
          `  training ${model} ${dtype} batch ${batch} ${runtime}: ${imagesPerSecond} images/s, ${milliseconds} ms a step`,
      ),
    ),
    ...failures.map((failure) => `  training: ${failure}`.slice(0, 150)),
  ];
}

const [folder, tests] = process.argv.slice(2);
const lines = tests && existsSync(tests) ? parity(tests) : [];
for (const name of readdirSync(folder)) {
  if (/^cuda(-sim)?\.json$/.test(name)) lines.push(...speed(json(join(folder, name))));
  if (/^training-.*\.json$/.test(name)) lines.push(...training(json(join(folder, name))));
}
for (const line of lines) console.log(line.slice(0, 160));
