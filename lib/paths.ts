import { readFileSync } from "node:fs";
import { join } from "node:path";

/** The package's own folder: this file runs as dist/lib/paths.js. */
export const packageRoot = join(__dirname, "..", "..");

/** The checkpoint used where no weights are named. */
export const defaultWeights = join(packageRoot, "models", "weights", "seresnet14_cifar_fashion.safetensors");

export function packageVersion(): string {
  const manifest = JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8")) as { version: string };
  return manifest.version;
}
