import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { canMakeUp, madeUpLibraries } from "./support/made_up.js";

// The calls of the CUDA runtime and of cuDNN against ones that are made up (native/test/runtime_made_up.cc, cudnn_made_up.cc).
// The objects are those of the addon built with the CUDA executor.
const root = join(__dirname, "..");
const objects = join(root, "build/cmake/CMakeFiles/seresnet.dir/native");
const cache = join(root, "build/cmake/CMakeCache.txt");
const folder = mkdtempSync(join(tmpdir(), "seresnet-runtime-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Why what is built of these sources cannot be linked. */
function whyNot(what: string, sources: readonly string[]): string | undefined {
  const missing = sources.find((name) => !existsSync(join(objects, `${name}.o`)));
  const old = sources.find(
    (name) => !missing && statSync(join(objects, `${name}.o`)).mtimeMs < statSync(join(root, "native", name)).mtimeMs,
  );
  const reason = missing
    ? `${missing}.o is not there: npm run build:native where nvcc is`
    : old && `${old} changed after the build`;
  if (reason) console.warn(`LEFT OUT ${what}: ${reason}`);
  return reason;
}

const cached = (name: string) =>
  new RegExp(`^${name}:\\w+=(.+)$`, "m").exec(readFileSync(cache, "utf8"))?.[1] as string;

/** Links a program of native/test with what is built of these sources. */
function link(program: string, sources: readonly string[]): string {
  const made = join(folder, program);
  const files = [join(root, `native/test/${program}.cc`), ...sources.map((name) => join(objects, `${name}.o`))];
  execFileSync(
    cached("CMAKE_CUDA_COMPILER"),
    ["-std=c++20", "-I", join(root, "native"), "-cudart", "none", "-o", made, ...files],
    {
      stdio: "pipe",
    },
  );
  return made;
}

const runtime = ["cuda/gpu/gpu.cc", "cuda/kernels/elementwise.cu", "runtime/errors.cc", "runtime/plan.cc"];

describe.skipIf(whyNot("the calls of the CUDA runtime", runtime))("calls of a CUDA runtime that fails", () => {
  let program: string;
  beforeAll(() => {
    program = link("runtime_made_up", runtime);
  });

  const said = (...words: string[]) => execFileSync(program, words, { encoding: "utf8" }).trim();

  it("leave nothing behind where nothing fails", () => {
    expect(said("everything")).toBe("nothing; last error 0, 0 graphs, 0 instances");
  });

  const throwing = [
    ...["GetDeviceCount", "GetDeviceProperties", "RuntimeGetVersion", "DriverGetVersion", "SetDevice", "MallocHost"],
    ...["StreamCreateWithFlags", "EventCreateWithFlags", "EventRecord", "StreamWaitEvent", "EventSynchronize"],
    ...[
      "StreamSynchronize",
      "EventElapsedTime",
      "MemcpyAsync",
      "MemsetAsync",
      "StreamBeginCapture",
      "StreamEndCapture",
    ],
    ...["GraphInstantiate", "GraphUpload", "GraphLaunch"],
  ];
  it.each(throwing)("cuda%s is named, and its failure is not found again as the last error", (name) => {
    expect(said("everything", `cuda${name}`)).toMatch(
      new RegExp(`^cuda${name}( \\w+ \\w+ \\w+)?: cudaErrorMadeUp: made up; last error 0, 0 graphs, 0 instances$`),
    );
  });

  it("a kernel that cannot be launched is named, and its failure is not found again", () => {
    expect(said("everything", "cudaLaunchKernelExC")).toBe(
      "fill: cudaErrorMadeUp: made up; last error 0, 0 graphs, 0 instances",
    );
    expect(said("everything", "cudaGetDevice")).toMatch(/^cudaGetDevice: .*; last error 0, 0 graphs, 0 instances$/);
  });

  it.each(["Malloc", "Free", "FreeHost", "StreamDestroy", "EventDestroy", "GraphDestroy", "GraphExecDestroy"])(
    "cuda%s fails without a word, and without a last error",
    (name) => {
      expect(said("everything", `cuda${name}`)).toMatch(/^nothing; last error 0, /);
    },
  );

  it("a capture whose work failed tells of the work, and destroys no graph that is not there", () => {
    expect(said("capture")).toBe("work: failed; last error 0, 0 graphs, 0 instances");
    expect(said("capture", "cudaStreamEndCapture")).toBe("work: failed; last error 0, 0 graphs, 0 instances");
  });
});

const engine = [
  ...["cuda/cudnn/cudnn_engine.cc", "cuda/cudnn/cudnn_graph.cc", "cuda/convolution/convolution.cc", "devices/cudnn.cc"],
  ...["errors", "library", "plan"].map((name) => `runtime/${name}.cc`),
];

describe.skipIf(whyNot("the calls of cuDNN", engine) ?? !canMakeUp)("calls of cuDNN for a device that is there", () => {
  it("name nothing that cuDNN 9.10 may lack: no version is asked for", () => {
    const header = readFileSync(join(cached("SERESNET_CUDNN_INCLUDE"), "cudnn_graph.h"), "utf8");
    const declared = [...header.matchAll(/\b(CUDNN_(ATTR|BACKEND)_\w+)(?: CUDNN_DEPRECATED_ENUM)?\s*=\s*(\d+)/g)];
    const names = new Map(declared.map(([, name, kind, number]) => [`${kind} ${number}`, name]));
    const numbers = new Map(declared.map(([, name, , number]) => [name, number]));
    const place = madeUpLibraries(folder).cudnnGraph(
      90600,
      `#include <stdio.h>
       #include <string.h>
       int cudnnCreate(void** made) { *made = ""; return 0; }
       int cudnnDestroy(void* handle) { return 0; }
       int cudnnSetStream(void* handle, void* stream) { return 0; }
       int cudnnBackendCreateDescriptor(int type, void** made) { printf("BACKEND %d\\n", type); *made = ""; return 0; }
       int cudnnBackendDestroyDescriptor(void* it) { return 0; }
       int cudnnBackendFinalize(void* it) { return 0; }
       int cudnnBackendSetAttribute(void* it, int name, int type, long count, const void* from) {
         printf("ATTR %d\\n", name);
         return 0;
       }
       int cudnnBackendGetAttribute(void* it, int name, int type, long most, long* count, void* to) {
         printf("ATTR %d\\n", name);
         const int notes = name == ${numbers.get("CUDNN_ATTR_ENGINE_NUMERICAL_NOTE")};
         const int json = name == ${numbers.get("CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION")};
         *count = notes ? 0 : json ? 2 : 1;
         if (json && most) memcpy(to, "{}", 2);
         return 0;
       }
       int cudnnBackendExecute(void* handle, void* plan, void* pack) { return 0; }`,
    );
    const words = [join(place, "libcudnn.so.9"), join(folder, "plans")];
    const said = execFileSync(link("cudnn_made_up", engine), words, { encoding: "utf8" }).trim().split("\n");
    const known = JSON.parse(readFileSync(join(__dirname, "fixtures/cudnn_names.json"), "utf8")).names as string[];
    expect([...new Set(said.map((line) => names.get(line)))].sort()).toEqual(
      known.filter((name) => /^CUDNN_(ATTR|BACKEND)_/.test(name)).sort(),
    );
  });
});
