import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { deflateRawSync } from "node:zlib";
import fc from "fast-check";
import { loadWeights, WeightsError } from "seresnet";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { loadGolden } from "#lib/io/golden.js";
import { parseNpz } from "#lib/io/torch/npz.js";
import { bytesOf, type ZipItem, zipFile } from "./support/torch_writer.js";
import { contents, rejection } from "./support/weights_files.js";

// what test/fixtures/golden/make.py wrote with numpy 2.4
const fixtures = join(__dirname, "fixtures/golden");
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-golden-"));
});
afterAll(() => rm(folder, { recursive: true }));

/** The one sentence that a file of these bytes is refused with, less its name. */
async function refusal(bytes: Uint8Array): Promise<string> {
  const path = join(folder, "bad.npz");
  await writeFile(path, bytes);
  const { message } = await rejection(loadGolden(path));
  expect(message).toMatch(/^[^\n]+: expected [^\n]+, got [^\n]+$/);
  return message.slice(path.length);
}

test.each(["arrays.npz", "arrays.deflated.npz"])(
  "%s holds what numpy put there, every dtype and order",
  async (name) => {
    const wanted = await loadWeights(join(fixtures, "arrays.safetensors"));
    expect(await contents(await loadGolden(join(fixtures, name)))).toEqual(await contents(wanted));
  },
);

test("a golden file may be any that loadWeights reads", async () => {
  const path = join(fixtures, "arrays.safetensors");
  expect(await contents(await loadGolden(path))).toEqual(await contents(await loadWeights(path)));
});

describe("one sentence for", () => {
  const dtypes = "a dtype we read (f4, f8, f2, i8, i4, u1)";
  test.each([
    ["objects.npz", `: array "a": expected ${dtypes}, got Python objects`],
    ["structure.npz", `: array "a": expected ${dtypes}, got structures`],
    ["complex.npz", `: array "a": expected ${dtypes}, got '<c8'`],
    ["empty.npz", ": expected at least one array, got none"],
    [
      "../torch/training.pth",
      ': expected a file that numpy.savez wrote, of .npy entries alone, got "training/data.pkl"',
    ],
  ])("%s", async (name, sentence) => {
    expect(await refusal(await readFile(join(fixtures, name)))).toBe(sentence);
  });

  const header = (text: string) => bytesOf(`\x93NUMPY\x01\0`, text.length & 255, text.length >> 8, text);
  const vector = header("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }");
  const npy = (data: Uint8Array, more: Partial<ZipItem> = {}): ZipItem[] => [{ name: "a.npy", data, ...more }];

  test.each([0, 8])("bytes that are not those of the CRC-32 (method %d)", async (method) => {
    const data = bytesOf(vector, ...new Array(8).fill(0));
    const stored = method === 8 ? deflateRawSync(data) : data;
    const item = { method, size: data.length, packedSize: stored.length };
    expect(await contents(parseNpz(zipFile(npy(stored, item)), "good"))).toEqual([
      ["a", "float32", [2], new Float32Array(2)],
    ]);
    expect(await refusal(zipFile(npy(stored, { ...item, crc: 1 })))).toMatch(
      /^: entry "a.npy": expected bytes of CRC-32 1, got damaged ones, of [0-9a-f]+$/,
    );
  });
  const bomb = { data: deflateRawSync(Buffer.alloc(1e7)), method: 8 };
  test.each<[string, ZipItem[], string]>([
    [
      "no numpy",
      npy(Buffer.from("hello")),
      ': array "a": expected numpy\'s format, version 1 to 3, got something else',
    ],
    ["a cut header", npy(vector.subarray(0, 20)), ': array "a": expected a header of 57 bytes, got 10'],
    ["too few elements", npy(vector), ': array "a": expected 2 elements of 4 bytes, got 0 bytes'],
    [
      "a part of an element",
      npy(bytesOf(vector, "1234567")),
      ': array "a": expected 2 elements of 4 bytes, got 7 bytes',
    ],
    [
      "no shape",
      npy(header("{'descr': '<f4'}")),
      ": array \"a\": expected a header with fortran_order and shape, got \"{'descr': '<f4'}\"",
    ],
    ["no dtype", npy(header("{}")), `: array "a": expected ${dtypes}, got none`],
    [
      "a zip bomb",
      npy(bomb.data, { ...bomb, size: 2 ** 31 }),
      ': entry "a.npy": expected at most 1073741824 bytes in all, got 2147483648 in an entry',
    ],
    [
      "a zip bomb that lies",
      npy(bomb.data, { ...bomb, size: 1000 }),
      ': entry "a.npy": expected 1000 deflated bytes, got others',
    ],
    [
      "damage",
      npy(Buffer.alloc(9, 255), { method: 8, size: 9 }),
      ': entry "a.npy": expected 9 deflated bytes, got others',
    ],
    [
      "a shape of nothing",
      npy(header("{'descr': '<f4', 'fortran_order': False, 'shape': (0,)}")),
      ': expected tensor "a" to have at least one element, got shape [0]',
    ],
  ])("%s", async (_, items, sentence) => {
    expect(await refusal(zipFile(items))).toBe(sentence);
  });

  test("no file, a folder, no zip file", async () => {
    const missing = join(folder, "none.npz");
    expect((await rejection(loadGolden(missing))).message).toBe(`${missing}: expected an .npz file, got no such file`);
    expect(await refusal(Buffer.from("<html>"))).toBe(
      ": expected a zip file that ends with its table of contents, got a truncated or damaged file",
    );
  });

  test("more than the caller allows when unpacked", async () => {
    const loading = loadGolden(join(fixtures, "arrays.deflated.npz"), 100);
    await expect(loading).rejects.toThrow(/expected at most 100 bytes in all, got \d+ in an entry$/);
  });

  test.each(["arrays.npz", "arrays.deflated.npz"])("every truncation of %s", async (name) => {
    const bytes = await readFile(join(fixtures, name));
    for (let end = 0; end < bytes.length; end++)
      expect(() => parseNpz(bytes.subarray(0, end), name), `${end} bytes`).toThrow(WeightsError);
  });

  test.each(["arrays.npz", "arrays.deflated.npz"])("a damaged byte in %s, or the file is read", async (name) => {
    const bytes = await readFile(join(fixtures, name));
    fc.assert(
      fc.property(fc.nat(bytes.length - 1), fc.nat(255), (at, value) => {
        const damaged = Uint8Array.from(bytes);
        damaged[at] = value;
        try {
          parseNpz(damaged, name);
        } catch (error) {
          expect(error).toBeInstanceOf(WeightsError);
        }
      }),
      { numRuns: 1000 },
    );
  });
});
