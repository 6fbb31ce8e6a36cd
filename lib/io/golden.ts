import { extname } from "node:path";
import { expected, WeightsError } from "../errors.js";
import { readRegularFile, reason } from "../files.js";
import type { Tensor } from "../tensor.js";
import { parseNpz } from "./torch/npz.js";
import { loadWeights } from "./weights.js";

const largestGolden = 2 ** 31;

/**
 * Tensors by name that some other program computed: numpy's `.npz` (`numpy.savez`), or a file that `loadWeights` reads.
 * Throws WeightsError for one that is missing, truncated or damaged, and for arrays of an .npz that take more than
 * `mostUnpacked` bytes together, default 1 GiB.
 */
export async function loadGolden(path: string, mostUnpacked?: number): Promise<Record<string, Tensor>> {
  if (extname(path).toLowerCase() !== ".npz") return loadWeights(path);
  let bytes: Uint8Array;
  try {
    bytes = await readRegularFile(path, largestGolden);
  } catch (error) {
    throw new WeightsError(expected(path, "an .npz file", reason(error)), { cause: error });
  }
  return parseNpz(bytes, path, mostUnpacked);
}
