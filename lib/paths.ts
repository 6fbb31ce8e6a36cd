import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { homedir } from "node:os";
import { dirname, isAbsolute, join } from "node:path";
import { expected, SeresnetError } from "./errors.js";

/** Where the process works; undefined where that folder has been removed. */
function workingFolder(): string | undefined {
  try {
    return process.cwd();
  } catch {
    return undefined;
  }
}

/** `path` from where the process works; as it is where that folder has been removed, in which nothing can be found. */
export function absolute(path: string): string {
  return isAbsolute(path) ? path : join(workingFolder() ?? "", path);
}

/** Where the user's programs keep what can be made again (XDG_CACHE_HOME, or `.cache` at home); undefined for a user without a home. */
export function userCache(): string | undefined {
  if (process.env.XDG_CACHE_HOME) return process.env.XDG_CACHE_HOME;
  try {
    return join(homedir(), ".cache");
  } catch {
    return undefined; // neither HOME nor the system's list of users names one
  }
}

/** The package's own folder. */
export const packageRoot = findPackage();

/**
 * This file runs as dist/lib/paths.js; where a bundler has put it into another file, the package is looked for as that file
 * would look for it. Where it is not installed either, weights and worker threads are missed by whoever needs them
 * (`packageFile`).
 */
function findPackage(): string {
  const here = typeof __dirname === "string" ? __dirname : (workingFolder() ?? "/");
  const own = join(here, "..", "..");
  if (existsSync(join(own, "dist", "lib", "paths.js"))) return own;
  try {
    return dirname(createRequire(join(here, "bundle.js")).resolve("seresnet/package.json"));
  } catch {
    return own; // packageFile says so
  }
}

/**
 * A file of the package, by its parts. Throws SeresnetError, which says what a bundler should be told, where it is not there.
 */
export function packageFile(...parts: readonly string[]): string {
  const file = join(packageRoot, ...parts);
  if (!existsSync(file))
    throw new SeresnetError(
      "ERR_BUNDLED",
      expected(
        "seresnet",
        `its file ${join(...parts)} (a bundler should leave it outside: --external:seresnet)`,
        `none in ${packageRoot}`,
      ),
    );
  return file;
}

/** The checkpoint used where no weights are named. */
export const defaultWeights = join(packageRoot, "models", "weights", "seresnet20_cifar_fashion.safetensors");

/** What it was trained on, for those who did not ask for it. */
export const defaultWeightsNote =
  "no weights were named, so the network that ships with seresnet was taken: it knows ten kinds of clothes, light on a black background (Fashion-MNIST), and nothing else; --weights FILE, a folder or hf:owner/name (such as hf:timm/seresnet50.a1_in1k) names another";

/** The labels of ImageNet-1k, one a line: torchvision's list (BSD 3-clause, the licence is beside it). */
export const imagenetLabelsFile = join(packageRoot, "models", "labels", "imagenet1k.txt");

/** WordNet's names of the same classes in the same order, as ImageNet's own folders are called (n01440764 …). */
export const imagenetWnidsFile = join(packageRoot, "models", "labels", "imagenet1k_wnids.txt");

export function packageVersion(): string {
  const manifest = JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8")) as { version: string };
  return manifest.version;
}
