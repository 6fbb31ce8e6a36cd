import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createModel, summary } from "seresnet";
import { afterAll, describe, expect, it } from "vitest";
import type { ConvolutionQuery, ConvolutionSupport } from "#lib/devices/native/addon.js";
import { cudnnCandidates, nativeVersions } from "#lib/devices/native/addon.js";
import { canMakeUp, madeUpLibraries } from "./support/made_up.js";

// cuDNN plans convolutions for an H200 that is not there, from its properties. This proves support, not numbers.
// SERESNET_CUDNN_PLANS=all asks for three networks at batch 1 and 128; otherwise ResNet-50 at batch 128 stands for them.

const folder = mkdtempSync(join(tmpdir(), "seresnet-cudnn-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const whole = process.env.SERESNET_CUDNN_PLANS === "all";
const cudnn = cudnnCandidates().find((file) => {
  try {
    return file.includes("/") && readFileSync(file).length > 0;
  } catch {
    return false;
  }
});
const canCompile = spawnSync("cc", ["--version"]).status === 0;
const lacking = [
  !nativeVersions()?.cudnn || !nativeVersions()?.cuda ? "the addon was built without CUDA's or cuDNN's headers" : "",
  cudnn ? "" : "there is no cuDNN in a folder (npm run setup -- --cuda)",
  canCompile ? "" : "there is no C compiler for the stubs of libcuda and libcublasLt",
].filter(Boolean);
if (lacking.length > 0) console.warn(`cuDNN plans are NOT tested: ${lacking.join("; ")}`);

/** Names with a prefix that cuDNN's libraries look up in others at run time. */
function lookedUp(place: string, pattern: RegExp): string[] {
  const names = new Set<string>();
  for (const file of readdirSync(place).filter((name) => name.endsWith(".so.9")))
    for (const [, name] of readFileSync(join(place, file)).toString("latin1").matchAll(pattern)) names.add(name);
  return [...names];
}

/** Libraries that say there is no device, for cuDNN to open: it plans without calling what needs one. */
function makeStubs(place: string): void {
  const build = (library: string, lines: readonly string[]) => {
    const source = join(folder, `${library}.c`);
    writeFileSync(source, lines.join("\n"));
    execFileSync("cc", ["-w", "-shared", "-fPIC", `-Wl,-soname,${library}`, "-o", join(folder, library), source]);
  };
  const blas = lookedUp(place, /\0(cublasLt[A-Z]\w*)(?=\0)/g).filter((name) => name !== "cublasLtGetVersion");
  build("libcublasLt.so.13", [
    "unsigned long cublasLtGetVersion(void) { return 130200; }",
    ...blas.map((name) => `int ${name}(void) { return 1; }`),
  ]);
  const own = ["cuDriverGetVersion", "cuGetProcAddress", "cuGetProcAddress_v2"];
  const driver = lookedUp(place, /\0(cu[A-Z]\w*)(?=\0)/g).filter((name) => !own.includes(name));
  build("libcuda.so.1", [
    "#define _GNU_SOURCE\n#include <dlfcn.h>",
    "int cuDriverGetVersion(int* v) { *v = 13000; return 0; }",
    "int cuGetProcAddress(const char* n, void** p, int v, unsigned long f) { *p = dlsym(RTLD_DEFAULT, n); return *p ? 0 : 500; }",
    "int cuGetProcAddress_v2(const char* n, void** p, int v, unsigned long f, int* s) { *p = dlsym(RTLD_DEFAULT, n); if (s) *s = *p ? 0 : 1; return *p ? 0 : 500; }",
    ...driver.map((name) => `int ${name}(void) { return 100; }`),
  ]);
}

type Layer = Pick<ConvolutionQuery, "input" | "weight" | "stride" | "padding">;

/** The distinct convolutions of a network, as its plan has them. */
async function layersOf(name: string): Promise<Layer[]> {
  const { convolutionsOf } = await import("./support/convolutions.js");
  const all = convolutionsOf(createModel(name), [1, 3, 224, 224]);
  expect(all.length).toBeGreaterThanOrEqual(20);
  expect(summary(createModel(name), [1, 3, 224, 224]).layers.length).toBeGreaterThanOrEqual(all.length);
  return [...new Map(all.map((layer) => [JSON.stringify(layer), layer])).values()];
}

/** Asks in a process of its own: cuDNN aborts where something is wrong. */
function ask(queries: readonly ConvolutionQuery[]): ConvolutionSupport[] {
  const asked = join(folder, "queries.json");
  const properties = join(__dirname, "fixtures", "h200_device_properties.json");
  writeFileSync(asked, JSON.stringify(queries));
  const script = `const fs = require("node:fs");
    const { cudnnSupport } = require(${JSON.stringify(join(__dirname, "..", "dist", "lib", "devices", "native", "addon.js"))});
    const read = (file) => fs.readFileSync(file, "utf8");
    const [cudnn, properties, queries] = process.argv.slice(1);
    process.stdout.write(JSON.stringify(cudnnSupport(cudnn, read(properties), JSON.parse(read(queries)))));`;
  const child = spawnSync(process.execPath, ["-e", script, cudnn as string, properties, asked], {
    encoding: "utf8",
    maxBuffer: 1 << 26,
    env: { ...process.env, LD_LIBRARY_PATH: `${folder}:${process.env.LD_LIBRARY_PATH ?? ""}` },
  });
  expect(child.signal, child.stderr).toBeNull();
  expect(child.status, child.stderr).toBe(0);
  return JSON.parse(child.stdout);
}

it("nothing is used that cuDNN 9.10 lacks, except where its version is asked for", () => {
  const folders = ["cuda/cudnn", "devices"].map((name) => join(__dirname, "..", "native", name));
  const { names } = JSON.parse(readFileSync(join(__dirname, "fixtures", "cudnn_names.json"), "utf8"));
  const known = new Set<string>(names);
  const files = folders.flatMap((folder) =>
    readdirSync(folder).flatMap((name) => (/^cudnn_\w+\.(cc|h)$/.test(name) ? [join(folder, name)] : [])),
  );
  const used = files.flatMap((file) => readFileSync(file, "utf8").match(/\bCUDNN_[A-Z]+_\w+/g) ?? []);
  expect(used.length).toBeGreaterThan(100);
  // cudnnSupport asks for 9.11 before it plans for a device that is not there
  const newer = [...new Set(used)].filter((name) => !known.has(name) && !/^SERESNET_/.test(name));
  expect(newer.sort()).toEqual([
    "CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION",
    "CUDNN_ATTR_ENGINEHEUR_DEVICEPROP",
    "CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP",
    "CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR",
  ]);
});

it.skipIf(!nativeVersions()?.cudnn || !nativeVersions()?.cuda || !canMakeUp)(
  "a cuDNN that is too old for plans without a device says which is needed and which is there",
  () => {
    const place = madeUpLibraries(folder).cudnnGraph(91002);
    const script = `const { cudnnSupport } = require(${JSON.stringify(join(__dirname, "../dist/lib/devices/native/addon.js"))});
      try { cudnnSupport(process.argv[1], "{}", []); } catch (error) { console.log(error.message); }`;
    const child = spawnSync(process.execPath, ["-e", script, join(place, "libcudnn.so.9")], { encoding: "utf8" });
    expect(child.stdout, child.stderr).toBe("cudnnSupport: expected cuDNN 9.11, got 9.10.2\n");
  },
);

const dtypes = ["float32", "tf32", "float16", "bfloat16"] as const;
const fused = { bias: true, relu: true };

describe.skipIf(lacking.length > 0)("cuDNN plans for an H200 that is not there", () => {
  it("are there for every layer, dtype and epilogue", { timeout: 600_000 }, async () => {
    makeStubs(dirname(cudnn as string));
    const names = whole ? ["resnet18", "resnet50", "seresnet50"] : ["resnet50"];
    const layers = new Map<string, Layer>();
    for (const name of names) for (const layer of await layersOf(name)) layers.set(JSON.stringify(layer), layer);
    const queries: ConvolutionQuery[] = [];
    for (const layer of layers.values())
      for (const batch of whole ? [1, 128] : [128])
        for (const dtype of dtypes) {
          const [, ...image] = layer.input;
          const query = { ...layer, input: [batch, ...image], dtype };
          queries.push(query, { ...query, ...fused }, { ...query, ...fused, residual: true });
        }
    const answers = ask(queries);
    expect(answers).toHaveLength(queries.length);
    const configurations = answers.map((answer) => answer.configurations);
    const milliseconds = answers.reduce((sum, answer) => sum + answer.milliseconds, 0);
    console.info(
      `cuDNN ${nativeVersions()?.cudnn?.compiled}: ${answers.length} convolutions of ${layers.size} layers (${names}) planned for an H200, ` +
        `${Math.min(...configurations)} to ${Math.max(...configurations)} engine configurations each, ${(milliseconds / 1000).toFixed(1)} s`,
    );
    const without = answers.filter(({ plan }) => plan === "").map(({ convolution }) => convolution);
    expect(without).toEqual([]);
  });

  it("are there for products of matrices that begin wherever they do in a tensor", { timeout: 600_000 }, () => {
    makeStubs(dirname(cudnn as string));
    const queries: ConvolutionQuery[] = [];
    for (const dtype of dtypes)
      for (const [rows, depth, columns] of [
        [3, 5, 7],
        [64, 48, 40],
        [17, 64, 33],
      ])
        for (const alignment of [
          [16, 16, 16],
          [4, 16, 4],
          [2, 16, 2],
          [16, 16, 8],
        ] as const) {
          if (Math.min(...alignment) < (/16/.test(dtype) ? 2 : 4)) continue; // a number is not cut
          const product = {
            input: [rows, depth, 1, 1],
            weight: [columns, depth, 1, 1],
            stride: [1, 1],
            padding: [0, 0],
          };
          queries.push({ ...product, dtype, alignment });
        }
    const answers = ask(queries);
    expect(answers.filter(({ plan }) => plan === "").map(({ convolution }) => convolution)).toEqual([]);
    // what is promised is part of what is asked, and of the plan's key
    expect(new Set(answers.map(({ convolution }) => convolution)).size).toBe(queries.length);
  });

  it("say what is wrong with a question", () => {
    expect(() => ask([{ input: [1, 2], weight: [], stride: [], padding: [], dtype: "float16" }])).toThrow(
      "expected input to be 4 integers",
    );
  });
});
