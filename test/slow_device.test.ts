import { execFile } from "node:child_process";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { writeIdx } from "./support/idx.js";

const run = promisify(execFile);
const root = join(__dirname, "..");

const cli = join(root, "dist/lib/cli/main.js");

/** What a program of this package prints where there is no addon; `SERESNET_ADDON=none` is a machine that has none. */
async function program(code: string, env: NodeJS.ProcessEnv = {}) {
  const clean = { ...process.env, SERESNET_ADDON: "none", SERESNET_DEVICE: "", ...env };
  const { stdout, stderr } = await run(process.execPath, ["-e", code], { cwd: root, env: clean });
  return { stdout, stderr };
}

const warning =
  /^\(node:\d+\) \[SERESNET_REFERENCE\] SeresnetWarning: computing on the device reference, which takes about thirty times as long as the native addon, because the native addon is switched off: SERESNET_ADDON=none; remedy: unset SERESNET_ADDON\n/;
const twice = `
  const { compile, nn, tensor } = require("seresnet");
  const once = async () => (await compile(new nn.ReLU())).run(tensor([-1, 1]));
  const main = () => once().then(once).then(() => tensor([1]).add(1).item());`;

describe("where auto has to take the reference", () => {
  it("says so once a process: how much slower, why, and what helps", async () => {
    const { stdout, stderr } = await program(`${twice} main().then(console.log)`);
    expect(stdout).toBe("2\n");
    expect(stderr).toMatch(warning);
    expect(stderr.match(/SeresnetWarning/g)).toHaveLength(1);
  });

  it("does not repeat it in worker threads, and programs can catch it", async () => {
    const { stdout } = await program(`
      process.removeAllListeners("warning");
      process.on("warning", ({ name, code }) => console.log(name, code));
      const { Worker } = require("node:worker_threads");
      const source = ${JSON.stringify(`${twice} main().then(() => console.log("worker is done"))`)};
      ${twice}
      main().then(() => new Worker(source, { eval: true }));`);
    expect(stdout).toBe("SeresnetWarning SERESNET_REFERENCE\nworker is done\n");
  });

  it("is silent where the reference was asked for, by name or by SERESNET_DEVICE", async () => {
    const asked = await program(
      `const { compile, nn, tensor } = require("seresnet");
       compile(new nn.ReLU(), { device: "reference" }).then((c) => c.run(tensor([-1, 1])));`,
    );
    expect(asked.stderr).toBe("");
    expect((await program(`${twice} main()`, { SERESNET_DEVICE: "reference" })).stderr).toBe("");
  });

  it("the demo repeats it at its end, and draws without a home or fontconfig's configuration", async () => {
    const folder = await mkdtemp(join(tmpdir(), "seresnet-demo-"));
    await writeIdx(folder, { train: 1, test: 4, side: 28 });
    const out = join(folder, "demo.png");
    const env = { ...process.env, SERESNET_ADDON: "none", SERESNET_DEVICE: "", HOME: "/proc/none", XDG_CACHE_HOME: "" };
    const { stderr } = await run(process.execPath, [cli, "demo", "--data", folder, "--out", out], { env });
    const line = /^seresnet: computing on the device reference, .*; remedy: unset SERESNET_ADDON$/;
    expect(
      stderr
        .trim()
        .split("\n")
        .filter((one) => !one.includes("no fonts found")),
    ).toEqual([expect.stringMatching(line), expect.stringMatching(line)]);
    expect((await stat(out)).size).toBeGreaterThan(1000);
    await rm(folder, { recursive: true });
  });

  it("the command line says it in one line", async () => {
    const image = join(root, "test/fixtures/images/chelsea.png");
    const env = { ...process.env, SERESNET_ADDON: "none", SERESNET_DEVICE: "" };
    const { stdout, stderr } = await run(process.execPath, [cli, "classify", image, "--json"], { env });
    expect(JSON.parse(stdout).device).toBe("reference");
    const lines = stderr.split("\n").filter((line) => line.includes("the device reference"));
    expect(lines).toEqual([expect.stringMatching(/^seresnet: computing on .*; remedy: unset SERESNET_ADDON$/)]);
  });
});
