import { dirname, join } from "node:path";
import { expected, listed, WeightsError } from "../errors.js";
import { reason } from "../files.js";
import { unreadOf, withUnread } from "../nn/unread.js";
import type { Tensor } from "../tensor.js";
import { isObject, parseStrictJson, quoted } from "./json.js";
import { readSafetensors } from "./safetensors.js";

export const largestIndex = 100_000_000;

/**
 * The tensors of a model in several `.safetensors` files, from the bytes of the index beside them
 * (`model.safetensors.index.json`), whose `weight_map` says which file holds which tensor. Shards are read one by one.
 * Throws WeightsError for a damaged index, a shard outside the index's folder, and shards that are missing or differ
 * from the index.
 */
export async function readSharded(bytes: Uint8Array, path: string): Promise<Record<string, Tensor>> {
  const shards = parseIndex(bytes, path);
  const all: [string, Tensor][] = [];
  const unread = new Map<string, string>();
  for (const [shard, names] of shards) {
    const { tensors } = await readSafetensors(join(dirname(path), shard));
    for (const [name, why] of unreadOf(tensors)) unread.set(name, why);
    const missing = names.filter((name) => !Object.hasOwn(tensors, name) && !unread.has(name));
    if (missing.length > 0) fail(path, `${quotedList(missing)} in ${shard}`, "a file without");
    const wanted = new Set(names);
    const extra = Object.keys(tensors).filter((name) => !wanted.has(name));
    if (extra.length > 0) fail(path, `${shard} to hold what the index says`, `${quotedList(extra)} as well`);
    for (const entry of Object.entries(tensors)) all.push(entry);
  }
  return withUnread(Object.fromEntries(all), unread);
}

/** The names of the files an index speaks of. Throws WeightsError for a damaged index. */
export function shardNames(bytes: Uint8Array, path: string): string[] {
  return [...parseIndex(bytes, path).keys()];
}

function fail(path: string, what: string, got: string): never {
  throw new WeightsError(expected(path, what, got));
}

function quotedList(names: readonly string[]): string {
  return listed(names.map((name) => quoted(name)));
}

/** For each shard, the tensors it should hold. */
function parseIndex(bytes: Uint8Array, path: string): Map<string, string[]> {
  if (bytes.length > largestIndex) fail(path, `an index of at most ${largestIndex} bytes`, `${bytes.length}`);
  let index: unknown;
  try {
    index = parseStrictJson(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    const got = reason(error).replace(/\s+/g, " ").slice(0, 160);
    throw new WeightsError(expected(path, "an index of shards in JSON without repeated keys", got), { cause: error });
  }
  const map = isObject(index) ? index.weight_map : undefined;
  if (!isObject(map)) fail(path, "an index of shards with a weight_map", isObject(index) ? "none" : quoted(index));
  const shards = new Map<string, string[]>();
  for (const [name, shard] of Object.entries(map)) {
    if (typeof shard !== "string" || !/^[^/\\:\0]+\.safetensors$/.test(shard) || shard.startsWith("."))
      fail(path, `tensor ${quoted(name)} in a .safetensors file beside the index`, quoted(shard));
    const names = shards.get(shard) ?? [];
    names.push(name);
    shards.set(shard, names);
  }
  if (shards.size === 0) fail(path, "an index with at least one tensor", "an empty weight_map");
  return shards;
}
