import { classifier } from "./classifier.js";
import { cpu } from "./cpu.js";
import { cuda } from "./cuda.js";
import { degradation } from "./degradation.js";
import { photosBench as photos } from "./photos.js";
import { reference } from "./reference.js";
import { type Bench, NotHere, save } from "./report.js";
import { training } from "./training.js";

/** Table of contents: every benchmark by name; the first is the default. */
const benches: Readonly<Record<string, Bench>> = { cpu, cuda, reference, classifier, photos, training, degradation };

async function main(words: readonly string[]): Promise<number> {
  const [name, ...args] = words[0]?.startsWith("-") === false ? words : ["cpu", ...words];
  if (args.includes("--help")) {
    for (const [known, { title }] of Object.entries(benches)) console.log(`${known.padEnd(12)} ${title}`);
    return 0;
  }
  if (!Object.hasOwn(benches, name)) {
    console.error(`bench: expected one of ${Object.keys(benches).join(", ")}, got ${name}`);
    return 2;
  }
  const report = await benches[name].run(args);
  console.log(report.table);
  console.log(`written to ${save(report.name ?? name, report).join(" and ")}`);
  for (const failure of report.failures ?? []) console.error(`bench: ${failure}`);
  return report.failures?.length ? 1 : 0;
}

main(process.argv.slice(2)).then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = error instanceof NotHere ? 3 : 1;
  },
);
