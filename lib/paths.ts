import { readFileSync } from "node:fs";
import { join } from "node:path";

/** The package's own folder: this file runs as dist/lib/paths.js. */
export const packageRoot = join(__dirname, "..", "..");

/** The checkpoint used where no weights are named. */
export const defaultWeights = join(packageRoot, "models", "weights", "seresnet20_cifar_fashion.safetensors");

/** The labels of ImageNet-1k, one a line: torchvision's list (BSD 3-clause, the licence is beside it). */
export const imagenetLabelsFile = join(packageRoot, "models", "labels", "imagenet1k.txt");

/** WordNet's names of the same classes in the same order, as ImageNet's own folders are called (n01440764 …). */
export const imagenetWnidsFile = join(packageRoot, "models", "labels", "imagenet1k_wnids.txt");

export function packageVersion(): string {
  const manifest = JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8")) as { version: string };
  return manifest.version;
}
