import { constants } from "node:buffer";
import { extname } from "node:path";
import { ArgumentError, expected, shown, WeightsError } from "../errors.js";
import { isLfsPointer, lfsPointer, readRegularFile, reason, withRegularFile } from "../files.js";
import { checkOptions, type OptionNames } from "../options.js";
import { integer } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { fetchFromHub, isHubSource } from "./hub/hub.js";
import { type HubOptions, hubNames } from "./hub/options.js";
import { quoted } from "./json.js";
import { mostHeader, parseSafetensors, readSafetensors } from "./safetensors.js";
import { readSharded } from "./sharded.js";
import { parseTorch } from "./torch/state_dict.js";

export interface LoadWeightsOptions extends HubOptions {
  /** What a safetensors file's header may take, in bytes: default 16 MiB, at most 100 MB. */
  readonly maxHeaderBytes?: number;
}

const loadNames: OptionNames<LoadWeightsOptions> = { ...hubNames, maxHeaderBytes: true };

/**
 * Reads a weights file into a state dict, name by name. What a file is, its content says, not its name:
 *
 * - `.safetensors`, and the `.safetensors.index.json` of a model in several such files (all of them are read);
 * - PyTorch's `.pth` and `.pt`, as `torch.save(model.state_dict(), path)` writes them, now or before PyTorch 1.6. Nothing
 *   in the file is run;
 * - `hf:owner/name[@revision]`: the weights of a model on the Hugging Face hub, through its cache.
 *
 * Tensors are row-major copies, whatever their strides and storage were. float16 and bfloat16 keep their dtype; float64
 * becomes float32. Tensors of a dtype we have not, and empty ones, are left out: `loadStateDict` names them where it misses
 * them. Of a `.pth` file that holds more than weights, the one dict of tensors is read; of several the one under
 * `state_dict`, `model` or `model_state_dict`, of weights and their average (`…_ema`) the average; values that are no
 * tensors are left out, and objects of other programs' classes are passed over: nothing of them is made or run.
 * A prefix `module.`, `model.` or `_orig_mod.` goes when every name in a `.pth` file has it, else all names stay. Names in
 * a `.safetensors` file stay as they are, so that what `saveSafetensors` wrote comes back; `ImageClassifier`, the commands
 * and `adaptWeights` take wrappers and prefixes off those too.
 *
 * @throws WeightsError for a missing, truncated or damaged file, a folder, formats that are not read, a whole
 *   module or other objects in the place of tensors, and a file without any tensor
 */
export async function loadWeights(source: string, options: LoadWeightsOptions = {}): Promise<Record<string, Tensor>> {
  const { maxHeaderBytes } = checkOptions("loadWeights", options, loadNames);
  if (maxHeaderBytes !== undefined && integer("loadWeights", "maxHeaderBytes", maxHeaderBytes, 1) > mostHeader)
    throw new ArgumentError(
      expected("loadWeights", `maxHeaderBytes to be at most ${mostHeader}`, shown(maxHeaderBytes)),
    );
  if (typeof source !== "string" || source === "")
    throw new WeightsError(expected("loadWeights", "the path of a weights file", JSON.stringify(source) ?? "nothing"));
  const path = isHubSource(source) ? await fetchFromHub(source, options) : source;
  const extension = extname(path).toLowerCase();
  let tensors: Record<string, Tensor>;
  try {
    tensors = await read(path, extension, maxHeaderBytes);
  } catch (error) {
    const what = extension === ".safetensors" ? "a safetensors file" : "a weights file";
    if (error instanceof WeightsError) throw error;
    throw new WeightsError(expected(path, what, reason(error)), { cause: error });
  }
  if (Object.keys(tensors).length === 0) throw new WeightsError(expected(path, "at least one tensor", "none"));
  return tensors;
}

async function read(path: string, extension: string, maxHeader?: number): Promise<Record<string, Tensor>> {
  const start = new Uint8Array(9);
  await withRegularFile(path, ({ size, read }) => read([start.subarray(0, size)], 0));
  if (isSafetensors(start)) return (await readSafetensors(path, maxHeader)).tensors;
  const bytes = await readRegularFile(path, constants.MAX_LENGTH);
  if (isTorch(bytes)) return parseTorch(bytes, path);
  // nothing known by its content: the name says which complaint helps
  if (extension === ".safetensors") return parseSafetensors(bytes, path, maxHeader).tensors;
  if (extension === ".json" || bytes[0] === 0x7b) return readSharded(bytes, path);
  const isTorchName = [".pth", ".pt", ".bin", ".ckpt"].includes(extension);
  const what = isTorchName ? "a file that torch.save wrote" : "a .safetensors file";
  throw new WeightsError(expected(path, what, isTorchName ? looks(bytes) : extension || "no extension"));
}

/** For people who have an empty download, a page of a website or another program's file in place of the weights. */
function looks(bytes: Uint8Array): string {
  if (bytes.length === 0) return "an empty file";
  if (isLfsPointer(bytes)) return lfsPointer;
  return `one that begins ${quoted(Buffer.from(bytes.subarray(0, 16)).toString("latin1"))}`;
}

/** Eight bytes of header length, far below 4 GiB, and a JSON object. */
function isSafetensors(bytes: Uint8Array): boolean {
  return bytes[8] === 0x7b && bytes.subarray(4, 8).every((byte) => byte === 0);
}

/** A zip file (an empty one too), or a pickle of protocol 2 or later. */
function isTorch(bytes: Uint8Array): boolean {
  const isZip = bytes[0] === 0x50 && bytes[1] === 0x4b && (bytes[2] === 3 || bytes[2] === 5);
  return isZip || (bytes[0] === 0x80 && bytes[1] >= 2 && bytes[1] <= 5);
}
