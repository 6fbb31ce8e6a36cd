import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

// The release script in a repository of its own, whose checks and packer write down that they ran.
const hasGit = spawnSync("git", ["--version"]).status === 0;
if (!hasGit) console.warn("LEFT OUT the release script: there is no git");

describe.skipIf(!hasGit)("the release script", () => {
  let folder: string;
  let scripts: Record<string, string>;
  const git = (...args: string[]) => execFileSync("git", args, { cwd: folder, encoding: "utf8" }).trim();
  const release = (...args: string[]) =>
    spawnSync(process.execPath, ["native/release.mjs", ...args], { cwd: folder, encoding: "utf8" });
  const write = (name: string, text: string) => writeFileSync(join(folder, name), text);
  const read = (name: string) => readFileSync(join(folder, name), "utf8");
  const commit = () => {
    write("package.json", JSON.stringify({ name: "made-up", version: "0.1.0", scripts }, undefined, 2));
    git("add", "--all");
    git("commit", "--quiet", "--message", "start");
  };

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "seresnet-release-"));
    mkdirSync(join(folder, "native"));
    cpSync("native/release.mjs", join(folder, "native/release.mjs"));
    write("native/pack.mjs", `import { mkdirSync } from "node:fs"; mkdirSync(process.argv[2]);`);
    write("package-lock.json", JSON.stringify({ name: "made-up", version: "0.1.0", lockfileVersion: 3, packages: {} }));
    write("CHANGELOG.md", "# Changelog\n\n## 0.1.0 (unreleased)\n\n- a thing\n");
    scripts = Object.fromEntries(["check", "docs", "test"].map((name) => [name, `echo ${name} ran`]));
    git("init", "--quiet");
    git("config", "user.email", "a@b.c");
    git("config", "user.name", "a");
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  test("a release is checked, packed, committed and tagged", () => {
    commit();
    const out = join(folder, "..", `${folder.split("/").at(-1)}-out`);
    try {
      const { status, stdout, stderr } = release("0.2.0", out);
      expect([status, stderr]).toEqual([0, ""]);
      for (const name of ["check", "docs", "test"]) expect(stdout).toContain(`${name} ran`);
      expect(existsSync(out)).toBe(true);
      expect(JSON.parse(read("package.json")).version).toBe("0.2.0");
      expect(JSON.parse(read("package-lock.json")).version).toBe("0.2.0");
      expect(read("CHANGELOG.md")).toMatch(/^# Changelog\n\n## 0\.2\.0 \(\d{4}-\d\d-\d\d\)\n\n- a thing\n$/);
      expect([git("describe", "--exact-match"), git("status", "--porcelain")]).toEqual(["v0.2.0", ""]);
    } finally {
      rmSync(out, { recursive: true, force: true });
    }
  });

  test("where a step fails, nothing has changed", () => {
    scripts.test = "echo it is broken >&2; exit 1";
    commit();
    const { status, stderr } = release("0.2.0", join(folder, "out"));
    expect([status, stderr]).toEqual([1, expect.stringMatching(/nothing was released\n$/)]);
    expect([git("status", "--porcelain"), git("tag"), existsSync(join(folder, "out"))]).toEqual(["", "", false]);
  });

  test("what is not ready is refused in one sentence", () => {
    commit();
    const refusal = (...args: string[]) => release(...args).stderr.trim();
    expect(release("0.2.0").status).toBe(2);
    expect(refusal("two", "out")).toBe("release: expected a version such as 1.2.3, got two");
    write("CHANGELOG.md", "# Changelog\n\n## 0.1.0 (2026-01-01)\n\n- a thing\n");
    expect(refusal("0.2.0", "out")).toBe("release: expected all to be committed, got changes in 1 files");
    git("commit", "--all", "--quiet", "--message", "released");
    expect(refusal("0.2.0", "out")).toMatch(/^release: expected CHANGELOG.md to begin with what is unreleased/);
    git("tag", "v0.2.0");
    expect(refusal("0.2.0", "out")).toBe("release: expected a new version, got v0.2.0, which is tagged");
  });
});
