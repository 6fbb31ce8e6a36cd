import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";

// The device "cpu" is written for oneDNN 2.x and 3.x. Whichever the addon is built with, its sources must compile with
// both: here with headers of 3.x, which a newer system has, and which PyTorch's wheel brings along.

const root = join(__dirname, "..");

/** Folders that may hold `oneapi/dnnl`; SERESNET_ONEDNN3 names another. */
function* folders(): Iterable<string> {
  if (process.env.SERESNET_ONEDNN3) yield process.env.SERESNET_ONEDNN3;
  for (const python of [join(root, "build/python"), join(root, ".venv"), process.env.VIRTUAL_ENV]) {
    const lib = python && join(python, "lib");
    if (!lib || !existsSync(lib)) continue;
    for (const name of readdirSync(lib)) yield join(lib, name, "site-packages/torch/include");
  }
  yield* ["/usr/local/include", "/usr/include"];
}

function versionIn(folder: string): string | undefined {
  const file = join(folder, "oneapi/dnnl/dnnl_version.h");
  if (!existsSync(file)) return undefined;
  const text = readFileSync(file, "utf8");
  return ["MAJOR", "MINOR"].map((part) => new RegExp(`DNNL_VERSION_${part} (\\d+)`).exec(text)?.[1]).join(".");
}

const headers = [...folders()].find((folder) => versionIn(folder)?.startsWith("3."));
const compiles = (...flags: string[]) =>
  spawnSync("c++", ["-std=c++20", "-fsyntax-only", ...flags, "-x", "c++", "-"], { input: "#include <latch>\n" });
const able = compiles("-fopenmp").status === 0;
if (!headers || !able)
  console.warn(
    `onednn3.test: LEFT OUT: ${able ? "no headers of oneDNN 3.x here (SERESNET_ONEDNN3 may name their folder)" : "no C++20 compiler with OpenMP"}; whether native/cpu compiles with 3.x is not checked`,
  );

test.runIf(headers && able)(
  `native/cpu compiles with oneDNN ${headers ? versionIn(headers) : "3"}`,
  async () => {
    const folder = join(root, "native/cpu");
    // simd_kernels.cc knows no oneDNN, and is compiled with flags of its own
    const sources = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter(
      (name) => name.endsWith(".cc") && !name.endsWith("simd_kernels.cc"),
    );
    expect(sources.length).toBeGreaterThan(20);
    const failures: string[] = [];
    const compileSome = async () => {
      for (let source = sources.pop(); source !== undefined; source = sources.pop()) {
        const flags = [
          "-std=c++20",
          "-fsyntax-only",
          "-fopenmp",
          "-Wall",
          "-Wextra",
          "-Werror=deprecated-declarations",
        ];
        const child = spawn("c++", [
          ...flags,
          "-I",
          join(root, "native"),
          "-isystem",
          headers as string,
          join(folder, source),
        ]);
        let text = "";
        child.stderr.on("data", (data) => {
          text += data;
        });
        const [code] = await once(child, "close");
        if (code !== 0 || /warning:/.test(text)) failures.push(`${source}: ${text.slice(0, 2000)}`);
      }
    };
    await Promise.all(Array.from({ length: Math.min(availableParallelism(), 4) }, compileSome));
    expect(failures).toEqual([]);
  },
  600_000,
);
