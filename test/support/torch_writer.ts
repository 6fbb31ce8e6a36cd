import { inflateRawSync } from "node:zlib";
import { crc32 } from "#lib/io/crc32.js";

/** Bytes of pickles, operation by operation, and of zip files with what is wrong in them. */

type Piece = string | number | Uint8Array;

/** A pickle from its pieces: numbers are bytes, strings are Latin-1. No STOP is added. */
export function bytesOf(...pieces: Piece[]): Buffer {
  return Buffer.concat(
    pieces.map((piece) =>
      typeof piece === "number"
        ? Buffer.of(piece)
        : typeof piece === "string"
          ? Buffer.from(piece, "latin1")
          : Buffer.from(piece),
    ),
  );
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

/** BINUNICODE. */
export function text(value: string): Buffer {
  const utf8 = Buffer.from(value);
  return bytesOf("X", u32(utf8.length), utf8);
}

/** BININT1 or BININT or LONG1 of 8 bytes. */
export function integer(value: number): Buffer {
  if (value >= 0 && value < 256) return bytesOf("K", value);
  const long = Buffer.alloc(8);
  long.writeBigInt64LE(BigInt(value));
  return bytesOf(0x8a, 8, long);
}

export function tuple(...items: Piece[]): Buffer {
  return bytesOf("(", ...items, "t");
}

export interface TensorFields {
  storage?: string;
  key?: string;
  elements?: number;
  offset?: number;
  shape?: readonly number[];
  strides?: readonly number[];
  /** The dict that PyTorch adds to a view which is conjugated or negated when it is read. */
  lazy?: Piece;
}

/** What torch.save writes for one tensor; two float32 when nothing is said. */
export function tensorOps(fields: TensorFields = {}): Buffer {
  const {
    storage = "FloatStorage",
    key = "0",
    elements = 2,
    offset = 0,
    shape = [2],
    strides = [1],
    lazy = "",
  } = fields;
  return bytesOf(
    "ctorch._utils\n_rebuild_tensor_v2\n",
    tuple(
      tuple(text("storage"), `ctorch\n${storage}\n`, text(key), text("cpu"), integer(elements)),
      "Q",
      integer(offset),
      tuple(...shape.map(integer)),
      tuple(...strides.map(integer)),
      0x89,
      "ccollections\nOrderedDict\n)R",
      lazy,
    ),
    "R",
  );
}

/** A whole pickle of a dict. */
export function dictPickle(entries: Record<string, Piece>): Buffer {
  const items = Object.entries(entries).flatMap(([name, value]) => [text(name), value]);
  return bytesOf(0x80, 2, "}(", ...items, "u.");
}

export interface ZipItem {
  name: string;
  data: Uint8Array;
  method?: number;
  flags?: number;
  /** The unpacked size the file claims. */
  size?: number;
  /** The packed size the file claims. */
  packedSize?: number;
  /** The CRC-32 of the unpacked bytes that the file claims, by default theirs. */
  crc?: number;
  /** Where the file claims that the local header is. */
  offset?: number;
}

function crcOf(data: Uint8Array, method: number): number {
  try {
    return crc32(method === 8 ? inflateRawSync(data) : data);
  } catch {
    return 0; // what is not deflated at all
  }
}

export function zipFile(
  items: readonly ZipItem[],
  end: { disk?: number; count?: number; comment?: string } = {},
): Buffer {
  const locals: Buffer[] = [];
  const centrals: Buffer[] = [];
  let at = 0;
  for (const {
    name,
    data,
    method = 0,
    flags = 0,
    packedSize = data.length,
    size = packedSize,
    offset = at,
    crc = crcOf(data, method),
  } of items) {
    const local = Buffer.alloc(30);
    local.writeUInt32LE(0x04034b50);
    local.writeUInt16LE(flags, 6);
    local.writeUInt16LE(method, 8);
    local.writeUInt32LE(packedSize, 18);
    local.writeUInt32LE(size, 22);
    local.writeUInt16LE(name.length, 26);
    const central = Buffer.alloc(46);
    central.writeUInt32LE(0x02014b50);
    central.writeUInt16LE(flags, 8);
    central.writeUInt16LE(method, 10);
    central.writeUInt32LE(crc, 16);
    central.writeUInt32LE(packedSize, 20);
    central.writeUInt32LE(size, 24);
    central.writeUInt16LE(name.length, 28);
    central.writeUInt32LE(offset, 42);
    locals.push(bytesOf(local, name, data));
    centrals.push(bytesOf(central, name));
    at += locals[locals.length - 1].length;
  }
  const directory = Buffer.concat(centrals);
  const record = Buffer.alloc(22);
  record.writeUInt32LE(0x06054b50);
  record.writeUInt16LE(end.disk ?? 0, 4);
  record.writeUInt16LE(end.count ?? items.length, 10);
  record.writeUInt32LE(directory.length, 12);
  record.writeUInt32LE(at, 16);
  const comment = end.comment ?? "";
  record.writeUInt16LE(comment.length, 20);
  return bytesOf(...locals, directory, record, comment);
}

/** A `.pth` file around a pickle, with storages by key. */
export function torchFile(pickle: Uint8Array, storages: Record<string, Uint8Array> = { 0: new Uint8Array(8) }): Buffer {
  return zipFile([
    { name: "a/data.pkl", data: pickle },
    ...Object.entries(storages).map(([key, data]) => ({ name: `a/data/${key}`, data })),
  ]);
}
