import { spawnSync } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Whether libraries can be made up here, in place of a driver and of cuDNN. */
export const canMakeUp = process.platform === "linux" && spawnSync("cc", ["--version"]).status === 0;

/** The functions of cuDNN that native/cuda calls. */
const calls = [
  ...["GetErrorString", "GetLastErrorString", "Create", "Destroy", "SetStream"],
  ...["CreateDescriptor", "DestroyDescriptor", "Finalize", "SetAttribute", "GetAttribute", "Execute"].map(
    (name) => `Backend${name}`,
  ),
].map((name) => `cudnn${name}`);

/** What makes up libraries under `folder`; each returns the folder of its own that goes into LD_LIBRARY_PATH. */
export function madeUpLibraries(folder: string) {
  /** Builds a library from C, in a folder of its own if none is given. */
  const library = (name: string, source: string, place = mkdtempSync(join(folder, "library-"))): string => {
    writeFileSync(join(place, "source.c"), source);
    const build = spawnSync("cc", ["-shared", "-fPIC", "-o", join(place, name), join(place, "source.c")]);
    if (build.status !== 0) throw new Error(`${name} could not be made up: ${build.stderr}`);
    return place;
  };
  const driver = ({ version = 13000, init = 0, count = 1, major = 9, minor = 0 }) =>
    library(
      "libcuda.so.1",
      `#include <string.h>
       int cuInit(unsigned f) { return ${init}; }
       int cuDriverGetVersion(int* v) { *v = ${version}; return 0; }
       int cuDeviceGetCount(int* n) { *n = ${count}; return 0; }
       int cuDeviceGet(int* d, int i) { *d = i; return 0; }
       int cuDeviceGetName(char* s, int n, int d) { strncpy(s, "NVIDIA Made-up", n); return 0; }
       int cuDeviceGetAttribute(int* v, int a, int d) { *v = a == 75 ? ${major} : ${minor}; return 0; }
       int cuDeviceTotalMem_v2(unsigned long* b, int d) { *b = 80ul << 30; return 0; }
       int cuGetErrorName(int e, const char** s) { *s = "CUDA_ERROR_MADE_UP"; return 0; }`,
    );
  /** As the real one: libcudnn aborts the process unless its parts are there. */
  const cudnn = (version: number, file = "libcudnn.so.9", parts = true) => {
    const place = library(file, "#include <stdlib.h>\nunsigned long cudnnGetVersion(void) { abort(); }");
    if (parts) library("libcudnn_graph.so.9", `unsigned long cudnnGetVersion(void) { return ${version}; }`, place);
    return place;
  };
  /**
   * What convolutions need of cuDNN and of its companion, in the folder of both. Calls of which the C source has nothing fail.
   */
  const cudnnGraph = (version: number, source = "") => {
    const place = library(
      "libcudnn_graph.so.9",
      `unsigned long cudnnGetVersion(void) { return ${version}; }
       ${source}
       ${calls
         .filter((name) => !source.includes(`${name}(`))
         .map((name) => `int ${name}(void) { return 1; }`)
         .join("\n")}`,
    );
    return library("libcublasLt.so.13", "int nothing;", place);
  };
  return { library, driver, cudnn, cudnnGraph };
}
