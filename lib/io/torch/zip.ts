import { inflateRawSync } from "node:zlib";
import { expected, listed, WeightsError } from "../../errors.js";
import { crc32 } from "../crc32.js";
import { quoted } from "../json.js";

const endSignature = 0x06054b50;
const zip64LocatorSignature = 0x07064b50;
const zip64EndSignature = 0x06064b50;
const centralSignature = 0x02014b50;
const localSignature = 0x04034b50;
const endBytes = 22;
const longestComment = 0xffff;
/** PyTorch writes one entry for each storage; a state dict has hundreds. */
const mostEntries = 100_000;

/** A record of the table of contents, as it stands there. */
interface ZipEntry {
  flags: number;
  method: number;
  crc: number;
  packedSize: number;
  size: number;
  localHeader: number;
}

/** A zip file in memory. */
export interface ZipArchive {
  /** Every entry, in the order of the table of contents. */
  readonly names: readonly string[];
  /** The bytes of one entry: a view of the file, or unpacked. Throws WeightsError for one that is missing or damaged. */
  read(name: string): Uint8Array;
}

export interface ZipOptions {
  /**
   * Bytes that the deflated entries that are read may have when unpacked, all together. Default 0: entries must be stored
   * as they are, which is how PyTorch writes them, and deflated ones are refused.
   */
  readonly unpacked?: number;
  /** Whether each entry's CRC-32 has to be right. Default false: PyTorch can be told to write none. */
  readonly checksums?: boolean;
}

/**
 * Opens a zip file, zip64 included. Nothing is unpacked before it is read, and no more than it says it is. `file` stands
 * in messages. Throws WeightsError for a truncated or damaged file and for parts of a multi-disk archive.
 */
export function openZip(
  bytes: Uint8Array,
  file: string,
  { unpacked = 0, checksums = false }: ZipOptions = {},
): ZipArchive {
  let room = unpacked;
  let left = bytes.length;
  const taken = new Set<ZipEntry>();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const directory = findDirectory(view, file);
  const entries = readDirectory(view, directory, file);
  const checked = (contents: Uint8Array, { crc }: ZipEntry, where: string): Uint8Array => {
    const got = checksums ? crc32(contents) : crc;
    if (got !== crc) fail(where, `bytes of CRC-32 ${crc.toString(16)}`, `damaged ones, of ${got.toString(16)}`);
    return contents;
  };
  const read = (name: string): Uint8Array => {
    const entry = entries.get(name);
    if (entry === undefined)
      fail(
        file,
        `a zip file with an entry ${quoted(name)}`,
        `one with ${listed([...entries.keys()].map((key) => quoted(key)))}`,
      );
    const where = `${file}: entry ${quoted(name)}`;
    const isPacked = unpacked > 0 && entry.method === 8;
    const stored = readEntry(view, entry, directory.start, where, isPacked);
    // entries may not share bytes: a small file would be read as a large one
    if (!taken.has(entry)) left -= entry.packedSize;
    taken.add(entry);
    if (left < 0) fail(file, `entries of at most ${bytes.length} bytes together`, `more, up to ${quoted(name)}`);
    if (!isPacked) return checked(stored, entry, where);
    if (entry.size > room) fail(where, `at most ${unpacked} bytes in all`, `${entry.size} in an entry`);
    room -= entry.size;
    return checked(inflate(stored, entry.size, where), entry, where);
  };
  return { names: [...entries.keys()], read };
}

function fail(where: string, what: string, got: string): never {
  throw new WeightsError(expected(where, what, got));
}

interface Directory {
  start: number;
  size: number;
  count: number;
}

/** The end record is the last thing in the file but for a comment, so it is looked for from the end. */
function findDirectory(view: DataView, file: string): Directory {
  const last = view.byteLength - endBytes;
  for (let at = last; at >= 0 && at >= last - longestComment; at--) {
    if (view.getUint32(at, true) !== endSignature || view.getUint16(at + 20, true) !== last - at) continue;
    const directory = readEnd(view, at, file);
    if (directory.start + directory.size > at)
      fail(file, "a zip file whose table of contents lies before its end record", "a damaged or truncated file");
    return directory;
  }
  fail(file, "a zip file that ends with its table of contents", "a truncated or damaged file");
}

function readEnd(view: DataView, at: number, file: string): Directory {
  const locator = at - 20;
  const isZip64 = locator >= 0 && view.getUint32(locator, true) === zip64LocatorSignature;
  const disks = [view.getUint16(at + 4, true), view.getUint16(at + 6, true)];
  if (!isZip64) {
    refuseDisks(disks, file);
    return {
      start: view.getUint32(at + 16, true),
      size: view.getUint32(at + 12, true),
      count: view.getUint16(at + 10, true),
    };
  }
  const end = toNumber(view.getBigUint64(locator + 8, true));
  if (end + 56 > locator || view.getUint32(end, true) !== zip64EndSignature)
    fail(file, "a zip64 end record where the file says it is", "a damaged or truncated file");
  refuseDisks([view.getUint32(end + 16, true), view.getUint32(end + 20, true)], file);
  return {
    start: toNumber(view.getBigUint64(end + 48, true)),
    size: toNumber(view.getBigUint64(end + 40, true)),
    count: toNumber(view.getBigUint64(end + 32, true)),
  };
}

function refuseDisks(disks: readonly number[], file: string): void {
  if (disks.some((disk) => disk !== 0)) fail(file, "a zip file in one piece", "a part of a multi-disk archive");
}

/** Past 2^53 a number is inexact, but still beyond the end of any file. */
function toNumber(value: bigint): number {
  return Number(value);
}

function readDirectory(view: DataView, { start, size, count }: Directory, file: string): Map<string, ZipEntry> {
  const damaged = (got: string) => fail(file, `a table of contents of ${count} entries in ${size} bytes`, got);
  if (count > mostEntries) fail(file, `a zip file of at most ${mostEntries} entries`, `${count}`);
  const entries = new Map<string, ZipEntry>();
  const end = start + size;
  let at = start;
  for (let index = 0; index < count; index++) {
    if (at + 46 > end || view.getUint32(at, true) !== centralSignature) damaged(`no entry ${index} at byte ${at}`);
    const nameBytes = view.getUint16(at + 28, true);
    const extraBytes = view.getUint16(at + 30, true);
    const next = at + 46 + nameBytes + extraBytes + view.getUint16(at + 32, true);
    if (next > end) damaged(`an entry ${index} that runs past them`);
    const name = Buffer.from(view.buffer, view.byteOffset + at + 46, nameBytes).toString("utf8");
    if (entries.has(name)) damaged(`entry ${quoted(name)} twice`);
    const entry = {
      flags: view.getUint16(at + 8, true),
      method: view.getUint16(at + 10, true),
      crc: view.getUint32(at + 16, true),
      packedSize: view.getUint32(at + 20, true),
      size: view.getUint32(at + 24, true),
      localHeader: view.getUint32(at + 42, true),
    };
    widen(view, entry, at + 46 + nameBytes, extraBytes);
    entries.set(name, entry);
    at = next;
  }
  return entries;
}

/** Zip64 keeps the numbers that do not fit 32 bits in an extra field, in this order, only those that do not fit. */
function widen(view: DataView, entry: ZipEntry, extra: number, extraBytes: number): void {
  const end = extra + extraBytes;
  for (let at = extra; at + 4 <= end; at += 4 + view.getUint16(at + 2, true)) {
    if (view.getUint16(at, true) !== 1) continue;
    let field = at + 4;
    for (const key of ["size", "packedSize", "localHeader"] as const) {
      if (entry[key] !== 0xffffffff || field + 8 > end) continue;
      entry[key] = toNumber(view.getBigUint64(field, true));
      field += 8;
    }
    return;
  }
}

/** The bytes of an entry as they lie in the file. */
function readEntry(view: DataView, entry: ZipEntry, limit: number, where: string, isPacked: boolean): Uint8Array {
  if (entry.flags & 1) fail(where, "to be readable", "encrypted bytes");
  if (!isPacked && (entry.method !== 0 || entry.packedSize !== entry.size)) {
    const how = entry.method === 8 ? "deflated" : `compressed (method ${entry.method})`;
    fail(where, "to be stored as it is, as torch.save does", `${how} bytes, ${entry.size} of them when unpacked`);
  }
  const header = entry.localHeader;
  if (header + 30 > limit || view.getUint32(header, true) !== localSignature)
    fail(where, `to start before byte ${limit} with a local header`, `none at byte ${header}`);
  const start = header + 30 + view.getUint16(header + 26, true) + view.getUint16(header + 28, true);
  const end = start + entry.packedSize;
  if (end > limit) fail(where, `to end before byte ${limit}`, `bytes ${start} to ${end}`);
  return new Uint8Array(view.buffer, view.byteOffset + start, entry.packedSize);
}

function inflate(packed: Uint8Array, size: number, where: string): Uint8Array {
  let bytes: Uint8Array | undefined;
  try {
    bytes = inflateRawSync(packed, { maxOutputLength: Math.max(1, size) });
  } catch {}
  if (bytes?.length !== size) fail(where, `${size} deflated bytes`, "others");
  return bytes;
}
