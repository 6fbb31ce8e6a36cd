import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { ArgumentError } from "seresnet";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fashionMnistClasses, loadIdxDataset, readIdx } from "#lib/data/idx.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-idx-"));
});
afterAll(() => rm(folder, { recursive: true }));

function idx(shape: number[], data: number[], magic = [0, 0, 8, shape.length]): Buffer {
  const extents = Buffer.alloc(4 * shape.length);
  for (const [axis, extent] of shape.entries()) extents.writeUInt32BE(extent, 4 * axis);
  return Buffer.concat([Buffer.from(magic), extents, Buffer.from(data)]);
}

test("plain and gzipped files give the same array, whatever they are called", async () => {
  const bytes = idx([2, 3], [1, 2, 3, 4, 5, 255]);
  const path = join(folder, "array");
  for (const written of [bytes, gzipSync(bytes)]) {
    await writeFile(path, written);
    const { shape, data } = await readIdx(path);
    expect(shape).toEqual([2, 3]);
    expect([...data]).toEqual([1, 2, 3, 4, 5, 255]);
  }
});

describe("bad files", () => {
  const good = idx([4], [1, 2, 3, 4]);
  const packed = gzipSync(good);
  const cases: [name: string, bytes: Uint8Array, message: RegExp][] = [
    ["empty", Buffer.alloc(0), /at least 4 bytes, got 0/],
    ["bad magic", idx([4], [1, 2, 3, 4], [0, 1, 8, 1]), /magic 00 00 08 and the rank\), got 00010801/],
    ["floats", idx([1], [0, 0, 0, 0], [0, 0, 0x0d, 1]), /unsigned bytes .*, got 00000d01/],
    ["rank 0", idx([], []), /and the rank\), got 00000800/],
    ["header cut short", good.subarray(0, 6), /an IDX header of 8 bytes, got a file of 6/],
    ["data cut short", good.subarray(0, 11), /4 bytes of data for shape \[4\], got 3/],
    ["trailing bytes", Buffer.concat([good, Buffer.alloc(2)]), /4 bytes of data for shape \[4\], got 6/],
    ["a huge shape", idx([0xffffffff, 0xffffffff], []), /18446744065119617000 bytes of data .*, got 0/],
    [
      "gzip cut short",
      packed.subarray(0, packed.length - 6),
      /an IDX file, plain or gzipped, got unexpected end of file/,
    ],
    [
      "gzip damaged",
      Buffer.concat([packed.subarray(0, 10), Buffer.alloc(20, 0xff)]),
      /an IDX file, plain or gzipped, got inv/,
    ],
    [
      "gzip of more than its header says",
      gzipSync(Buffer.concat([good, Buffer.alloc(1 << 24)])),
      /4 bytes of data .*, got more when/,
    ],
    ["gzip of a huge shape", gzipSync(idx([0xffff, 0xffff, 4], [])), /at most 1073741824 bytes, got 17179344900/],
    ["gzip of something else", gzipSync("hello, world"), /magic .*, got 68656c6c/],
  ];
  test.each(cases)("%s", async (_, bytes, message) => {
    const path = join(folder, "bad");
    await writeFile(path, bytes);
    await expect(readIdx(path)).rejects.toThrow(ArgumentError);
    await expect(readIdx(path)).rejects.toThrow(message);
  });

  test("a missing file and a folder", async () => {
    await expect(readIdx(join(folder, "nowhere"))).rejects.toThrow(/nowhere: expected an IDX file.*, got no such file/);
    await expect(readIdx(folder)).rejects.toThrow(/got a folder/);
    await expect(readIdx(folder)).rejects.toThrow(ArgumentError);
  });
});

describe("loadIdxDataset", () => {
  async function dataset(images: Buffer | undefined, labels: Buffer | undefined, suffix = ""): Promise<string> {
    const home = await mkdtemp(join(folder, "set-"));
    if (images) await writeFile(join(home, `t10k-images-idx3-ubyte${suffix}`), suffix ? gzipSync(images) : images);
    if (labels) await writeFile(join(home, `t10k-labels-idx1-ubyte${suffix}`), suffix ? gzipSync(labels) : labels);
    return home;
  }
  const pictures = idx([2, 1, 3], [1, 2, 3, 4, 5, 6]);

  test.each(["", ".gz"])("reads images and labels%s", async (suffix) => {
    const set = await loadIdxDataset(await dataset(pictures, idx([2], [7, 9]), suffix), "test");
    expect({ ...set, images: [...set.images], labels: [...set.labels] }).toEqual({
      images: [1, 2, 3, 4, 5, 6],
      labels: [7, 9],
      count: 2,
      height: 1,
      width: 3,
    });
  });

  test("says what is missing or does not fit", async () => {
    const refused = async (promise: Promise<unknown>, message: RegExp) => {
      await expect(promise).rejects.toThrow(ArgumentError);
      await expect(promise).rejects.toThrow(message);
    };
    const complete = await dataset(pictures, idx([2], [7, 9]));
    await refused(
      loadIdxDataset(complete, "train"),
      /expected a folder with train-images-idx3-ubyte or .*\.gz, got neither/,
    );
    await refused(loadIdxDataset(complete, "validation" as "train"), /split "train" or "test", got "validation"/);
    await refused(loadIdxDataset(await dataset(pictures, undefined), "test"), /t10k-labels-idx1-ubyte/);
    await refused(
      loadIdxDataset(await dataset(pictures, idx([3], [7, 9, 1])), "test"),
      /expected labels \[2\], got \[3\]/,
    );
    await refused(
      loadIdxDataset(await dataset(idx([2], [1, 2]), idx([2], [7, 9])), "test"),
      /expected images \[count, height, width\], got \[2\]/,
    );
    await refused(loadIdxDataset(await dataset(idx([0, 28, 28], []), idx([0], [])), "test"), /got \[0, 28, 28\]/);
    const folders = await dataset(undefined, idx([2], [7, 9]));
    await mkdir(join(folders, "t10k-images-idx3-ubyte"));
    await refused(loadIdxDataset(folders, "test"), /got a folder/);
  });
});

test("the class names are the ones the fixture was trained with", async () => {
  const fixture = JSON.parse(await readFile(join(__dirname, "fixtures/fashion/expected.json"), "utf8")) as {
    classes: string[];
  };
  expect(fashionMnistClasses).toEqual(fixture.classes);
});
