import { stat } from "node:fs/promises";
import { extname } from "node:path";
import { expected, WeightsError } from "../errors.js";
import type { Tensor } from "../tensor.js";
import { reason } from "./files.js";
import { readSafetensors } from "./safetensors.js";

/**
 * Reads a weights file into a state dict, name by name: `.safetensors`.
 * Throws WeightsError for a missing or damaged file, a folder, and formats that are not read.
 */
export async function loadWeights(path: string): Promise<Record<string, Tensor>> {
  if (typeof path !== "string" || path === "")
    throw new WeightsError(expected("loadWeights", "the path of a weights file", JSON.stringify(path) ?? "nothing"));
  const extension = extname(path).toLowerCase();
  if (extension !== ".safetensors") {
    // a missing file is missing, whatever its name would have meant
    const info = await stat(path).catch((error: unknown) => {
      throw new WeightsError(expected(path, "a weights file", reason(error)), { cause: error });
    });
    if (info.isDirectory()) throw new WeightsError(expected(path, "a weights file", "a folder"));
    const pickled = [".pth", ".pt", ".bin", ".ckpt"].includes(extension);
    const got = pickled
      ? `${extension} (convert it with safetensors.torch.save_file in Python)`
      : extension || "no extension";
    throw new WeightsError(expected(path, "a .safetensors file", got));
  }
  return (await readSafetensors(path)).tensors;
}
