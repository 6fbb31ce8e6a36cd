import { mkdir, readlink, rm, stat, symlink } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { ArgumentError, expected, SeresnetError, shown, WeightsError } from "../../errors.js";
import { readRegularFile, reason, writeFileAtomic } from "../../files.js";
import { userCache } from "../../paths.js";
import { largestIndex, shardNames } from "../sharded.js";
import { readTextFile } from "../text.js";
import { type BlobSource, downloadBlob, hubClient } from "./download.js";
import { withFileLock } from "./file_lock.js";
import type { HubOptions } from "./options.js";

/** What `hf:owner/name@revision` names. */
interface Address {
  readonly source: string;
  readonly repo: string;
  readonly revision: string;
}

/** Weights in the order we like them; the first that a repository or a folder has is taken. */
export const weightsFiles = ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"];
const config = "config.json";
const metadataTimeout = 30_000;
const commit = /^[0-9a-f]{40}$/;

export function isHubSource(source: string): boolean {
  return source.startsWith("hf:");
}

/**
 * The weights file of a model on the Hugging Face hub, in the cache that Python's huggingface_hub uses (`HF_HOME`,
 * `HF_HUB_CACHE`), downloaded if it is not there yet, with its config.json beside it. `HF_ENDPOINT` names another hub,
 * `HF_TOKEN` (or the file `token` in `HF_HOME`) opens private models, and under `HF_HUB_OFFLINE=1` nothing is asked of
 * the network. A download that broke off goes on where it was; every file is checked against the hub's checksum before
 * it enters the cache. Of several that want one file at a time, in this process or others, one downloads it.
 *
 * @param source `hf:owner/name`, with `@revision` for a branch, tag or commit (default main)
 * @throws WeightsError: not there, no access, unreachable, not cached while offline, damaged
 */
export async function fetchFromHub(source: string, options: HubOptions = {}): Promise<string> {
  const address = parseAddress(source);
  const storage = join(cacheFolder(source), hubClient().getRepoFolderName({ name: address.repo, type: "model" }));
  const cached = await findCached(storage, address.revision);
  if (isOffline()) {
    if (cached) return cached;
    throw new WeightsError(expected(source, `a copy in ${storage} while HF_HUB_OFFLINE is set`, "none"));
  }
  if (cached && commit.test(address.revision)) return cached; // what a commit holds never changes
  try {
    return await download(address, storage, options);
  } catch (error) {
    if (error instanceof SeresnetError) throw error;
    if ((error as NodeJS.ErrnoException).path !== undefined)
      throw new WeightsError(expected(source, `a cache that can be written in ${storage}`, reason(error)), {
        cause: error,
      });
    const hint = cached ? " (HF_HUB_OFFLINE=1 takes the copy in the cache)" : "";
    throw new WeightsError(expected(source, "weights on the hub", explain(error) + hint), { cause: error });
  }
}

function cacheFolder(source: string): string {
  try {
    return hubClient().getHFHubCachePath();
  } catch (error) {
    const what = "a folder for the cache, named by HF_HUB_CACHE, HF_HOME or HOME";
    throw new WeightsError(expected(source, what, "a user without a home"), { cause: error });
  }
}

function parseAddress(source: string): Address {
  const [, repo, revision = "main"] = /^hf:([^@]*)(?:@(.+))?$/s.exec(source) ?? [];
  const names = repo?.split("/") ?? [];
  const isName = (name: string) => /^[A-Za-z0-9_][\w.-]*$/.test(name) && !name.includes("..");
  if (names.length !== 2 || !names.every(isName) || !revision.split("/").every(isName))
    throw new ArgumentError(expected("weights", "hf:owner/name or hf:owner/name@revision", shown(source)));
  return { source, repo, revision };
}

function isOffline(): boolean {
  return ["1", "ON", "YES", "TRUE"].includes((process.env.HF_HUB_OFFLINE ?? "").toUpperCase());
}

/** The weights file of a revision in the cache; undefined when it or a part of it is not there. */
async function findCached(storage: string, revision: string): Promise<string | undefined> {
  const known = commit.test(revision) ? revision : await readTextFile(join(storage, "refs", revision)).catch(() => "");
  if (!commit.test(known.trim())) return undefined;
  const snapshot = join(storage, "snapshots", known.trim());
  for (const name of weightsFiles) {
    const path = join(snapshot, name);
    if (!(await isFile(path))) continue;
    if (!name.endsWith(".json")) return path;
    const shards = shardNames(await readRegularFile(path, largestIndex), path).map((shard) =>
      isFile(join(snapshot, shard)),
    );
    if ((await Promise.all(shards)).every(Boolean)) return path;
  }
  return undefined;
}

async function isFile(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isFile() ?? false;
}

async function download(address: Address, storage: string, options: HubOptions): Promise<string> {
  const { source, repo, revision } = address;
  const { modelInfo, pathsInfo } = hubClient();
  const hub = {
    hubUrl: process.env.HF_ENDPOINT?.replace(/\/+$/, "") || "https://huggingface.co",
    accessToken: await readToken(),
    fetch: ((input, init) => fetch(input, { ...init, signal: AbortSignal.timeout(metadataTimeout) })) as typeof fetch,
  };
  const { sha } = await modelInfo({ ...hub, name: repo, revision, additionalFields: ["sha"] });
  if (typeof sha !== "string" || !commit.test(sha))
    throw new WeightsError(expected(source, "the hub to name a commit", shown(sha)));
  const list = async (paths: string[]) =>
    (await pathsInfo({ ...hub, repo, revision: sha, paths })).map(checkFile(source));
  const files = await list([config, ...weightsFiles]);
  const name = weightsFiles.find((candidate) => files.some(({ path }) => path === candidate));
  if (name === undefined)
    throw new WeightsError(expected(source, `${weightsFiles.join(", ")} in the repository`, "none of them"));

  const snapshot = join(storage, "snapshots", sha);
  const bring = async (file: BlobSource): Promise<void> => {
    const path = join(snapshot, file.path);
    const blob = join(storage, "blobs", file.oid);
    if ((await readlink(path).catch(() => "")) === relative(snapshot, blob) && (await isFile(path))) return;
    await mkdir(dirname(blob), { recursive: true });
    await mkdir(snapshot, { recursive: true });
    await withFileLock(`${blob}.lock`, async () => {
      if (!(await isFile(blob))) await downloadBlob({ ...hub, repo, revision: sha, source }, file, blob, options);
      await rm(path, { force: true });
      await symlink(relative(snapshot, blob), path);
    });
  };
  // the weights last: a commit whose weights are in the cache is not asked for again
  for (const wanted of [config, name]) for (const file of files) if (file.path === wanted) await bring(file);
  if (name.endsWith(".json")) {
    const shards = shardNames(await readRegularFile(join(snapshot, name), largestIndex), `${source}/${name}`);
    const found = await list(shards);
    const there = new Set(found.map(({ path }) => path));
    const missing = shards.find((shard) => !there.has(shard));
    if (missing !== undefined)
      throw new WeightsError(expected(source, `${missing}, as ${name} says, in the repository`, "none"));
    for (const file of found) await bring(file);
  }
  // last of all: a reference in the cache means that all of it is there
  if (revision !== sha) {
    const reference = join(storage, "refs", revision);
    await mkdir(dirname(reference), { recursive: true });
    await writeFileAtomic(reference, [Buffer.from(sha)]);
  }
  return join(snapshot, name);
}

/** What the hub says about a file, or WeightsError: it names files in the cache, so it must be what it should be. */
function checkFile(
  source: string,
): (info: { path: string; size: number; oid?: string; lfs?: { oid: string; size: number } }) => BlobSource {
  return ({ path, size, oid, lfs }) => {
    const file = { path, size: lfs?.size ?? size, oid: lfs?.oid ?? oid ?? "" };
    const isNamed = typeof path === "string" && /^[\w][\w.-]*$/.test(path);
    if (
      !isNamed ||
      !Number.isSafeInteger(file.size) ||
      file.size < 0 ||
      !/^([0-9a-f]{40}|[0-9a-f]{64})$/.test(file.oid)
    )
      throw new WeightsError(
        expected(source, "the hub to give a name, a size and a checksum", shown(JSON.stringify(file))),
      );
    return file;
  };
}

async function readToken(): Promise<string | undefined> {
  const { HF_TOKEN, HF_HOME } = process.env;
  const caches = userCache();
  const home = HF_HOME ?? (caches && join(caches, "huggingface"));
  const token = HF_TOKEN ?? (home ? await readTextFile(join(home, "token")).catch(() => "") : "");
  return token.trim() || undefined;
}

/** What went wrong with the hub, in words that complete "got …". */
function explain(error: unknown): string {
  const { statusCode, cause, name, message } = error as Error & { statusCode?: number; cause?: NodeJS.ErrnoException };
  if (statusCode === 401) return "no access (401): no such model, or one that asks for a token in HF_TOKEN";
  if (statusCode === 403) return "no access (403): the token in HF_TOKEN may not read it";
  if (statusCode === 404) return "no such model or revision (404)";
  if (statusCode !== undefined) return `an answer of status ${statusCode}`;
  if (name === "TimeoutError") return `no answer within ${metadataTimeout / 1000} seconds`;
  if (name === "SyntaxError" || message.startsWith("malformed")) return "an answer that is not the hub's JSON";
  const why = cause?.code ?? cause?.message;
  return `a hub that cannot be reached: ${message}${why ? ` (${why})` : ""}`;
}
