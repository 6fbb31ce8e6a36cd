// Reads vitest's JSON reports for .ci/run.
//   node .ci/results.mjs skipped REPORT     the files of which a test was skipped, one a line
//   node .ci/results.mjs gpu REPORT         how many tests ran on a GPU
//   node .ci/results.mjs count REPORT...    "passed failed skipped" of all reports together: a test that passed somewhere and
//                                           failed nowhere has passed, one that ran nowhere is skipped
import { readFileSync } from "node:fs";

const [mode, ...paths] = process.argv.slice(2);
const runs = paths.flatMap((path) => JSON.parse(readFileSync(path, "utf8")).testResults);
const fileOf = ({ name }) => `test/${name.split("/test/").at(-1)}`;

if (mode === "skipped") {
  const some = runs.filter(({ assertionResults }) =>
    assertionResults.some(({ status }) => status === "skipped" || status === "pending"),
  );
  console.log([...new Set(some.map(fileOf))].join("\n"));
} else if (mode === "gpu") {
  const tests = runs
    .filter((run) => fileOf(run) === "test/cuda.test.ts")
    .flatMap(({ assertionResults }) => assertionResults);
  const ran = tests.filter(({ status }) => status === "passed").length;
  console.log(`GPU tests: ${ran} run, ${tests.length - ran} skipped`);
} else {
  const verdicts = new Map();
  const rank = { failed: 2, passed: 1 };
  for (const run of runs) {
    // a file that could not be loaded has failed without a test
    if (run.status === "failed" && run.assertionResults.length === 0) verdicts.set(fileOf(run), "failed");
    for (const { fullName, status } of run.assertionResults) {
      const test = `${fileOf(run)} ${fullName}`;
      const known = verdicts.get(test);
      if (!known || (rank[status] ?? 0) > (rank[known] ?? 0)) verdicts.set(test, status);
    }
  }
  const all = [...verdicts.values()];
  const count = (status) => all.filter((one) => one === status).length;
  console.log(count("passed"), count("failed"), all.length - count("passed") - count("failed"));
}
