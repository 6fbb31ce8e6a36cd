import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { open, rename, rm, stat } from "node:fs/promises";
import { expected, WeightsError } from "../../errors.js";
import type { HubOptions } from "./options.js";

/** The hub's client, once it is needed: most programs never do. Not by import(), which Jest has not. */
export function hubClient(): typeof import("@huggingface/hub") {
  return require("@huggingface/hub") as typeof import("@huggingface/hub");
}

/** A file of a repository: its checksum is the SHA-256 of the bytes (64 digits), or git's SHA-1 of a blob (40 digits). */
export interface BlobSource {
  readonly path: string;
  readonly size: number;
  readonly oid: string;
}

interface Repository {
  readonly hubUrl: string;
  readonly accessToken: string | undefined;
  readonly repo: string;
  readonly revision: string;
  /** The name messages begin with. */
  readonly source: string;
}

/**
 * Downloads a file to `blob`, whole and with the right checksum or not at all. What came before a break is kept as
 * `blob.incomplete` and goes on from there; when the sum is wrong after that, once more from the start.
 */
export async function downloadBlob(
  from: Repository,
  file: BlobSource,
  blob: string,
  options: HubOptions,
): Promise<void> {
  const incomplete = `${blob}.incomplete`;
  const had = (await stat(incomplete).catch(() => undefined))?.size ?? 0;
  const start = had <= file.size ? had : 0;
  if (start < file.size || file.size === 0) await receive(from, file, incomplete, start, options);
  if ((await checksum(incomplete, file)) === file.oid) return rename(incomplete, blob);
  await rm(incomplete, { force: true });
  if (had > 0) return downloadBlob(from, file, blob, options);
  throw new WeightsError(expected(from.source, `${file.path} with the hub's checksum ${file.oid}`, "other bytes"));
}

/** Appends what is missing to the file, from byte `start`. */
async function receive(
  { source, ...repository }: Repository,
  { path, size, oid }: BlobSource,
  incomplete: string,
  start: number,
  { onProgress }: HubOptions,
): Promise<void> {
  const { downloadFile } = hubClient();
  let at = start;
  let status: number | undefined;
  const noting = (async (input, init) => {
    const response = await fetch(input, init);
    status = response.status;
    if (response.body === null) throw new Error(`an answer of status ${status} without content`); // else it waits forever
    if (status === 200) at = 0; // a server that knows no ranges sends all of it
    return response;
  }) as typeof fetch;
  const { hubUrl, repo, revision } = repository;
  const url = `${hubUrl}/${repo}/resolve/${revision}/${path}`;
  const whole = await downloadFile({ ...repository, path, fetch: noting, downloadInfo: { size, etag: oid, url } });
  const file = await open(incomplete, start > 0 ? "r+" : "w");
  try {
    onProgress?.({ file: path, received: start, total: size });
    for await (const chunk of withoutStalls(streamFrom(whole, start))) {
      if (at + chunk.length > size) throw new Error("more bytes than it said");
      const { bytesWritten } = await file.write(chunk, 0, chunk.length, at);
      if (bytesWritten < chunk.length) throw new Error("a full disk");
      at += chunk.length;
      onProgress?.({ file: path, received: at, total: size });
    }
    await file.truncate(at);
    await file.sync();
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    const got = status !== undefined && status >= 300 ? `an answer of status ${status}` : `${at}, then: ${why}`;
    throw new WeightsError(expected(source, `${size} bytes of ${path}`, got), { cause: error });
  } finally {
    await file.close();
  }
  if (at < size) throw new WeightsError(expected(source, `${size} bytes of ${path}`, `${at} (run it again to go on)`));
}

/** The hub's package asks for a range of bytes only when a part is wanted. */
function streamFrom(blob: Blob | null, start: number): AsyncIterable<Uint8Array> {
  if (blob === null) throw new Error("nothing");
  return (start > 0 ? blob.slice(start) : blob).stream() as unknown as AsyncIterable<Uint8Array>;
}

/** Gives up on a stream that sends nothing for so long: HF_HUB_DOWNLOAD_TIMEOUT seconds, as for Python's hub; default 60. */
async function* withoutStalls(stream: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  const given = Number(process.env.HF_HUB_DOWNLOAD_TIMEOUT);
  const seconds = given > 0 ? given : 60;
  const chunks = stream[Symbol.asyncIterator]();
  for (;;) {
    let timer: NodeJS.Timeout | undefined;
    const stalled = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`nothing for ${seconds} s`)), seconds * 1000);
    });
    try {
      const { done, value } = await Promise.race([chunks.next(), stalled]);
      if (done) return;
      yield value;
    } catch (error) {
      void chunks.return?.(); // lets go of the connection
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }
}

async function checksum(path: string, { size, oid }: BlobSource): Promise<string> {
  const hash = createHash(oid.length === 64 ? "sha256" : "sha1");
  if (oid.length === 40) hash.update(`blob ${size}\0`);
  for await (const chunk of createReadStream(path)) hash.update(chunk as Uint8Array);
  return hash.digest("hex");
}
