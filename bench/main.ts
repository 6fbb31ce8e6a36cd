import { classifier } from "./classifier.js";
import { degradation } from "./degradation.js";
import { reference } from "./reference.js";
import { type Bench, save } from "./report.js";

/** Table of contents: every benchmark by name. */
const benches: Readonly<Record<string, Bench>> = { reference, classifier, degradation };

async function main([name, ...args]: readonly string[]): Promise<number> {
  if (name === undefined) {
    for (const [known, { title }] of Object.entries(benches)) console.log(`${known.padEnd(12)} ${title}`);
    return 0;
  }
  if (!Object.hasOwn(benches, name)) {
    console.error(`bench: expected one of ${Object.keys(benches).join(", ")}, got ${name}`);
    return 2;
  }
  const report = await benches[name].run(args);
  console.log(report.table);
  console.log(`written to ${save(name, report.figures)}`);
  return 0;
}

main(process.argv.slice(2)).then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  },
);
