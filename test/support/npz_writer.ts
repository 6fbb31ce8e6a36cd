import { zipFile } from "./torch_writer.js";

/** What `numpy.savez` writes for float32 arrays. */
export function npzFile(arrays: Readonly<Record<string, { data: Float32Array; shape: readonly number[] }>>): Buffer {
  return zipFile(
    Object.entries(arrays).map(([name, { data, shape }]) => ({
      name: `${name}.npy`,
      data: Buffer.concat([npyHeader("<f4", shape), new Uint8Array(data.buffer, data.byteOffset, data.byteLength)]),
    })),
  );
}

function npyHeader(descr: string, shape: readonly number[]): Buffer {
  const text = `{'descr': '${descr}', 'fortran_order': False, 'shape': (${shape.map((extent) => `${extent},`).join(" ")}), }`;
  const header = Buffer.alloc(Math.ceil((10 + text.length + 1) / 64) * 64, " ");
  header.write("\x93NUMPY\x01\0", "latin1");
  header.writeUInt16LE(header.length - 10, 8);
  header.write(text, 10);
  header.write("\n", header.length - 1);
  return header;
}
