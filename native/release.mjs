// Makes a release of what is committed: node native/release.mjs VERSION OUT
//   writes the version into package.json and its lock, and the version and the day into the changelog's first heading,
//   runs the checks, the API site and the tests, packs the tarballs into OUT, then commits and tags.
// Where a step fails, nothing has changed. It publishes nothing: npm publish OUT/TARBALL, and git push --follow-tags, do.
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const changelog = join(root, "CHANGELOG.md");
const written = ["package.json", "package-lock.json", "CHANGELOG.md"];
const heading = /^## (\d+\.\d+\.\d+\S*) \(unreleased\)$/m;

class Refusal extends Error {}

/** Runs a command in the checkout; its output is for people unless it is asked for. */
function run(command, args, output = "inherit") {
  return execFileSync(command, args, { cwd: root, encoding: "utf8", stdio: ["ignore", output, "inherit"] });
}
const git = (...args) => run("git", args, "pipe").trim();

function check(version) {
  if (!/^\d+\.\d+\.\d+(-[\w.]+)?$/.test(version ?? ""))
    throw new Refusal(`expected a version such as 1.2.3, got ${version ?? "none"}`);
  const changed = git("status", "--porcelain");
  if (changed) throw new Refusal(`expected all to be committed, got changes in ${changed.split("\n").length} files`);
  if (git("tag", "--list", `v${version}`))
    throw new Refusal(`expected a new version, got v${version}, which is tagged`);
  const text = readFileSync(changelog, "utf8");
  const entries = text.split(/^## /m)[1] ?? "";
  if (!heading.test(text) || !/^- /m.test(entries) || !entries.split("\n")[0].endsWith("(unreleased)"))
    throw new Refusal(
      "expected CHANGELOG.md to begin with what is unreleased: ## VERSION (unreleased), and its entries",
    );
}

function release(version, out) {
  check(version);
  try {
    run("npm", ["version", version, "--no-git-tag-version", "--allow-same-version", "--ignore-scripts"], "pipe");
    const day = new Date().toISOString().slice(0, 10);
    writeFileSync(changelog, readFileSync(changelog, "utf8").replace(heading, `## ${version} (${day})`));
    for (const script of ["check", "docs", "test"]) run("npm", ["run", script]);
    run(process.execPath, [join(root, "native", "pack.mjs"), resolve(out), "--release"]);
  } catch (error) {
    git("checkout", "--", ...written);
    throw error;
  }
  git("commit", "--quiet", "--message", version, "--", ...written);
  git("tag", "--annotate", "--message", version, `v${version}`);
  console.log(`release: ${version} is committed and tagged; the tarballs are in ${resolve(out)}`);
}

const [version, out] = process.argv.slice(2);
if (out === undefined) {
  console.error("usage: node native/release.mjs VERSION OUT");
  process.exit(2);
}
try {
  release(version, out);
} catch (error) {
  const [line] = error.message.split("\n");
  console.error(`release: ${error instanceof Refusal ? line : `${line}: nothing was released`}`);
  process.exit(1);
}
