import * as zlib from "node:zlib";

/** CRC-32 of bytes, as zip files hold it. Node.js has it since 20.15. */
export const crc32: (bytes: Uint8Array) => number = zlib.crc32 ?? ofTable;

let table: Uint32Array | undefined;

function ofTable(bytes: Uint8Array): number {
  table ??= Uint32Array.from({ length: 256 }, (_, byte) => {
    let value = byte;
    for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
    return value;
  });
  let crc = 0xffffffff;
  for (const byte of bytes) crc = table[(crc ^ byte) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}
