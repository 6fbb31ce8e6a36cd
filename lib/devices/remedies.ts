import { existsSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../paths.js";

/** Whether this is a checkout, whose npm commands may be advised, or a package somebody installed. */
export const isCheckout = existsSync(join(packageRoot, "tsconfig.build.json"));

/** This system as npm names it, with the C library where that decides: `linux-x64`, `linux-x64-musl`, `darwin-arm64`. */
export function platformName(): string {
  const name = `${process.platform}-${process.arch}`;
  return process.platform === "linux" && !usesGlibc() ? `${name}-musl` : name;
}

function usesGlibc(): boolean {
  const { header } = process.report.getReport() as { header: { glibcVersionRuntime?: string } };
  return header.glibcVersionRuntime !== undefined;
}

/** The one platform that has packages with a prebuilt addon: `@seresnet/linux-x64` and `@seresnet/linux-x64-cuda13`. */
export const prebuiltPlatform = "linux-x64";

/** What mends what: the commands of a checkout, or those of a project that has the package installed. */
export interface Remedies {
  /** Builds the addon from source. */
  readonly build: string;
  /** Brings the device cpu. */
  readonly cpu: string;
  /** Brings the device cuda to a machine that has a GPU. */
  readonly cuda: string;
  /** Brings cuDNN. */
  readonly cudnn: string;
  /** Brings Fashion-MNIST. */
  readonly dataset: string;
}

let known: Remedies | undefined;

export function remedies(): Remedies {
  known ??= isCheckout ? ofCheckout : ofPackage(platformName() === prebuiltPlatform);
  return known;
}

const dataset = "apt-get install dataset-fashion-mnist";

const ofCheckout: Remedies = {
  build: "npm run build:native",
  cpu: "npm run setup && npm run build:native",
  cuda: "install the CUDA toolkit 13 so that nvcc is on the PATH, then: npm run build:native",
  cudnn: "npm run setup -- --cuda",
  dataset: `npm run setup (or ${dataset})`,
};

function ofPackage(hasPrebuilt: boolean): Remedies {
  const build = "npx seresnet build";
  return {
    build,
    cpu: hasPrebuilt
      ? `npm install @seresnet/${prebuiltPlatform}`
      : `install oneDNN, CMake and a C++ compiler, then: ${build}`,
    cuda: hasPrebuilt
      ? `npm install @seresnet/${prebuiltPlatform}-cuda13`
      : `install the CUDA toolkit 13, then: ${build}`,
    cudnn:
      "pip install nvidia-cudnn-cu13 nvidia-cublas nvidia-cuda-nvrtc, in a virtual environment named .venv or active",
    dataset,
  };
}

/** Puts the remedies into a text of the addon's, which knows them by name: `{build}`. */
export function withRemedies(text: string): string {
  return text.replace(/\{(build|cpu|cuda|cudnn)\}/g, (_, name: keyof Remedies) => remedies()[name]);
}
