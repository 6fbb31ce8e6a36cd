import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32, deflateSync } from "node:zlib";
import { ArgumentError, ImageError, loadImage } from "seresnet";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { decodeImage, toGrey } from "#lib/image/decode.js";
import { type Interpolation, type Raster, resize } from "#lib/image/resize.js";

const fixtures = join(__dirname, "fixtures");
const chelsea = join(fixtures, "images/chelsea.png");

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-image-"));
});
afterAll(() => rm(folder, { recursive: true }));

interface Expected {
  image: string;
  crop: number;
  cropPct: number;
  interpolation: Interpolation;
  mean: number[];
  std: number[];
  channelMean: number[];
  channelStd: number[];
  points: [channel: number, y: number, x: number, value: number][];
}

describe("loadImage equals torchvision on Pillow", async () => {
  const records = JSON.parse(await readFile(join(fixtures, "preprocess.json"), "utf8")) as Expected[];
  test.each(records.map((record) => [`${record.image} ${record.crop} ${record.interpolation}`, record] as const))(
    "%s",
    async (_, { image, crop, cropPct, interpolation, mean, std, channelMean, channelStd, points }) => {
      const options = { size: crop, cropPct, interpolation, mean, std };
      const loaded = await loadImage(join(fixtures, "images", image), options);
      expect([loaded.dtype, loaded.shape]).toEqual(["float32", [1, 3, crop, crop]]);
      const data = (await loaded.data()) as Float32Array;
      const differences = points.map(
        ([c, y, x, value]) => Math.abs(data[(c * crop + y) * crop + x] - value) * std[c] * 255,
      );
      // PNG is exact up to the fixture's five decimals; JPEG decoders may differ by a rounding
      const isPng = image.endsWith(".png");
      expect(Math.max(...differences)).toBeLessThan(isPng ? 0.01 : 4);
      expect(differences.reduce((sum, value) => sum + value) / differences.length).toBeLessThan(isPng ? 0.01 : 0.6);
      for (let c = 0; c < 3; c++) {
        const plane = data.subarray(c * crop * crop, (c + 1) * crop * crop);
        const average = plane.reduce((sum, value) => sum + value, 0) / plane.length;
        const variance = plane.reduce((sum, value) => sum + (value - average) ** 2, 0) / (plane.length - 1);
        expect(Math.abs(average - channelMean[c])).toBeLessThan(isPng ? 1e-5 : 0.01);
        expect(Math.abs(Math.sqrt(variance) - channelStd[c])).toBeLessThan(isPng ? 1e-4 : 0.01);
      }
    },
  );
});

// The hashes are Pillow 12.3.0's, of whole images:
//   im = Image.open("chelsea.png").convert("RGB")
//   for f in (Image.BILINEAR, Image.BICUBIC):
//     for size in [(224, 224), ...]:
//       for i in (im, im.convert("L")): hashlib.sha256(i.resize(size, f).tobytes()).hexdigest()[:16]
const pillow: [interpolation: Interpolation, width: number, height: number, rgb: string, grey: string][] = [
  ["bilinear", 224, 224, "af5cb2be868c96c1", "e396b4318a2ba49c"],
  ["bilinear", 451, 300, "416b729128bfb2c3", "cd822d0a5b86379f"],
  ["bilinear", 300, 451, "2ce7bcd7939f97d2", "b79b7c407ea3ccda"],
  ["bilinear", 1000, 37, "03902a70c47d7c25", "1a25797c67dec2cf"],
  ["bilinear", 3, 700, "8185f0dea839d9f6", "405818251e652f42"],
  ["bilinear", 1, 1, "775ab693c41c310b", "4c94485e0c21ae6c"],
  ["bilinear", 99, 300, "56139c0c07ce9895", "b9450091e9fb4f73"],
  ["bicubic", 224, 224, "5d1e3b65736dd28d", "a726b086477ec288"],
  ["bicubic", 300, 451, "884fe381d22fb81d", "d35804ebd781fa95"],
  ["bicubic", 1000, 37, "de4d2fbfbf7221ea", "bb434ea153f64532"],
  ["bicubic", 3, 700, "772b8006921fd8eb", "00454d0c29632d95"],
  ["bicubic", 1, 1, "b36679efed9a24d3", "4c94485e0c21ae6c"],
  ["bicubic", 99, 300, "80063198e4a9e324", "c4a7b37f7fce2fec"],
];

describe("resize equals Pillow bit for bit", () => {
  const hash = ({ data }: Raster) => createHash("sha256").update(data).digest("hex").slice(0, 16);

  test.each(pillow)("%s %i x %i", async (interpolation, width, height, rgb, grey) => {
    const image = await decodeImage(chelsea);
    expect(hash(resize(image, width, height, interpolation))).toBe(rgb);
    expect(hash(resize(toGrey(image), width, height, interpolation))).toBe(grey);
  });

  // Image.fromarray((np.arange(105, dtype=np.uint32) * 97 % 256).astype(np.uint8).reshape(5, 7, 3)).resize((4, 3), f)
  test.each([
    ["bilinear", "476ec844a57284b246bb287d825dbe3394ad73c935aa6d6cb04cad3f83c562c34d99745b"],
    ["bicubic", "456bd241ac6d85b93fc01a828659c52795b073d328ae6970b847ac3682cb5dce489c7458"],
  ] as const)("a small image, readable here: %s", (interpolation, hex) => {
    const data = Uint8Array.from({ length: 105 }, (_, i) => (i * 97) % 256);
    const small = resize({ data, width: 7, height: 5, channels: 3 }, 4, 3, interpolation);
    expect(Buffer.from(small.data).toString("hex")).toBe(hex);
  });

  test("a window is that part of the whole", async () => {
    const image = await decodeImage(chelsea);
    for (const interpolation of ["bilinear", "bicubic"] as const) {
      const whole = resize(image, 100, 80, interpolation);
      const part = resize(image, 100, 80, interpolation, { left: 7, top: 11, width: 31, height: 23 });
      for (let y = 0; y < 23; y++) {
        const from = ((y + 11) * 100 + 7) * 3;
        expect(part.data.subarray(y * 93, y * 93 + 93)).toEqual(whole.data.subarray(from, from + 93));
      }
    }
  });
});

/** A PNG written by hand: any bit depth and colour type, any claimed size. */
function png(width: number, height: number, depth: number, colour: number, rows: Buffer): Buffer {
  const chunk = (type: string, data: Buffer) => {
    const body = Buffer.concat([Buffer.from(type), data]);
    const frame = Buffer.alloc(8);
    frame.writeUInt32BE(data.length, 0);
    frame.writeUInt32BE(crc32(body), 4);
    return Buffer.concat([frame.subarray(0, 4), body, frame.subarray(4)]);
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([depth, colour, 0, 0, 0], 8);
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([
    signature,
    chunk("IHDR", header),
    chunk("IDAT", deflateSync(rows)),
    chunk("IEND", Buffer.alloc(0)),
  ]);
}

describe("decoding gives 8-bit RGB, upright, as Pillow's convert does", () => {
  const pixels = Uint8Array.from({ length: 18 }, (_, i) => (i * 37) % 256); // 3 x 2
  const source = () => sharp(pixels, { raw: { width: 3, height: 2, channels: 3 } });
  const order = (raster: Raster) => Array.from({ length: 6 }, (_, i) => pixels.indexOf(raster.data[i * 3]) / 3);

  // where the stored pixels 0 1 2 / 3 4 5 go for each value of the EXIF tag
  test.each([
    [1, 3, [0, 1, 2, 3, 4, 5]],
    [2, 3, [2, 1, 0, 5, 4, 3]],
    [3, 3, [5, 4, 3, 2, 1, 0]],
    [4, 3, [3, 4, 5, 0, 1, 2]],
    [5, 2, [0, 3, 1, 4, 2, 5]],
    [6, 2, [3, 0, 4, 1, 5, 2]],
    [7, 2, [5, 2, 4, 1, 3, 0]],
    [8, 2, [2, 5, 1, 4, 0, 3]],
  ])("EXIF orientation %i", async (orientation, width, pixelOrder) => {
    const image = await decodeImage(await source().withMetadata({ orientation }).png().toBuffer());
    expect([image.width, image.height]).toEqual([width, 6 / width]);
    expect(order(image)).toEqual(pixelOrder);
  });

  test("alpha is discarded, not blended", async () => {
    const rows = Buffer.from([0, 200, 100, 50, 0, 10, 20, 30, 128]);
    expect([...(await decodeImage(png(2, 1, 8, 6, rows))).data]).toEqual([200, 100, 50, 10, 20, 30]);
    const greyAlpha = Buffer.from([0, 200, 0, 10, 128]);
    expect([...(await decodeImage(png(2, 1, 8, 4, greyAlpha))).data]).toEqual([200, 200, 200, 10, 10, 10]);
  });

  test("grey becomes three equal channels, one bit becomes black and white", async () => {
    expect([...(await decodeImage(png(2, 1, 8, 0, Buffer.from([0, 7, 250])))).data]).toEqual([7, 7, 7, 250, 250, 250]);
    expect([...(await decodeImage(png(2, 1, 1, 0, Buffer.from([0, 0b01000000])))).data]).toEqual([
      0, 0, 0, 255, 255, 255,
    ]);
  });

  test("16 bits keep the upper 8", async () => {
    const rgb = Buffer.from([0, 0x12, 0xff, 0x80, 0x00, 0xff, 0x7f]);
    expect([...(await decodeImage(png(1, 1, 16, 2, rgb))).data]).toEqual([0x12, 0x80, 0xff]);
    expect([...(await decodeImage(png(1, 1, 16, 0, Buffer.from([0, 0x45, 0xfe])))).data]).toEqual([0x45, 0x45, 0x45]);
  });

  test("CMYK by Pillow's arithmetic", async () => {
    // Image.frombytes("CMYK", (2, 1), bytes([10, 100, 200, 50, 255, 0, 128, 7])).save("x.tif"), and its convert("RGB")
    const tiff = Buffer.from(cmykTiff, "base64");
    expect([...(await decodeImage(tiff)).data]).toEqual([197, 125, 44, 0, 248, 124]);
  });
});

describe("one channel", () => {
  test("is grey by ITU-R 601 as Pillow's convert('L')", async () => {
    const colours = Uint8Array.of(255, 0, 0, 0, 255, 0, 0, 0, 255, 12, 200, 77, 255, 255, 255);
    // Image.frombytes("RGB", (5, 1), bytes(...)).convert("L").tobytes()
    expect([...toGrey({ data: colours, width: 5, height: 1, channels: 3 }).data]).toEqual([76, 150, 29, 130, 255]);
  });

  test("comes as [1, 1, S, S], normalised with one mean and one std", async () => {
    const picture = png(2, 2, 8, 0, Buffer.from([0, 0, 255, 0, 51, 102]));
    const loaded = await loadImage(picture, { size: 2, cropPct: 1, channels: 1, mean: [0.2], std: [0.4] });
    expect(loaded.shape).toEqual([1, 1, 2, 2]);
    const data = (await loaded.data()) as Float32Array;
    for (const [i, value] of [-0.5, 2, 0, 0.5].entries()) expect(data[i]).toBeCloseTo(value, 6);
  });
});

test("crops the centre, halves to the even neighbour, of images wide and tall", async () => {
  const ramp = Uint8Array.from({ length: 7 }, (_, i) => i * 30);
  const wide = png(7, 2, 8, 0, Buffer.from([0, ...ramp, 0, ...ramp]));
  const tall = png(2, 7, 8, 0, Buffer.from([...ramp].flatMap((value) => [0, value, value])));
  // slack 5: 2.5 rounds to 2
  for (const picture of [wide, tall]) {
    const loaded = await loadImage(picture, { size: 2, cropPct: 1, channels: 1, mean: [0], std: [1] });
    const levels = Array.from((await loaded.data()) as Float32Array, (value) => Math.round((value * 255) / 30));
    expect(levels).toEqual(picture === wide ? [2, 3, 2, 3] : [2, 2, 3, 3]);
  }
  // slack 3: 1.5 rounds to 2
  const narrow = png(5, 2, 8, 0, Buffer.from([0, ...ramp.subarray(0, 5), 0, ...ramp.subarray(0, 5)]));
  const loaded = await loadImage(narrow, { size: 2, cropPct: 1, channels: 1, mean: [0], std: [1] });
  const levels = Array.from((await loaded.data()) as Float32Array, (value) => Math.round((value * 255) / 30));
  expect(levels).toEqual([2, 3, 2, 3]);
});

test("an image of 1 x 100,000 pixels costs no more than others", async () => {
  const long = await sharp({ create: { width: 1, height: 100_000, channels: 3, background: "#336699" } })
    .png()
    .toBuffer();
  const loaded = await loadImage(long, { size: 32, mean: [0, 0, 0], std: [1, 1, 1] });
  const data = (await loaded.data()) as Float32Array;
  expect([data[0], data[32 * 32], data[2 * 32 * 32]]).toEqual([0.2, 0.4, 0.6].map(Math.fround));
});

describe("bad images are an ImageError of one sentence", () => {
  const jpeg = readFile(join(fixtures, "images/rocket.jpg"));
  const cat = readFile(chelsea);
  const cases: [name: string, bytes: () => Promise<Uint8Array>, message: RegExp][] = [
    ["empty", async () => new Uint8Array(), /expected an image, got no bytes at all/],
    ["text", async () => Buffer.from("hello, I am a text file"), /got bytes of no known image format/],
    ["zeros", async () => new Uint8Array(5000), /got bytes of no known image format/],
    [
      "svg",
      async () => Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'),
      /got a file of format svg/,
    ],
    ["jpeg cut in half", async () => (await jpeg).subarray(0, 50_000), /an image that can be decoded, got /],
    ["jpeg's first bytes", async () => (await jpeg).subarray(0, 20), /an image that can be decoded, got /],
    ["png cut in half", async () => (await cat).subarray(0, 100_000), /an image that can be decoded, got /],
    [
      "png with damaged data",
      async () => Uint8Array.from(await cat).fill(0x55, 5_000, 9_000),
      /an image that can be decoded, got /,
    ],
    ["decompression bomb", async () => png(60_000, 60_000, 8, 2, Buffer.alloc(1000)), /got more than 178956970 pixels/],
    ["zero width", async () => png(0, 5, 8, 2, Buffer.alloc(5)), /an image that can be decoded, got /],
  ];
  test.each(cases)("%s", async (_, make, message) => {
    const bytes = await make();
    const path = join(folder, "bad.png");
    await writeFile(path, bytes);
    for (const source of [bytes, path]) {
      const error = await loadImage(source).catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(ImageError);
      expect((error as Error).message).toMatch(message);
      expect((error as Error).message).toMatch(/^[^\n]+: expected [^\n]+, got [^\n]+$/);
    }
  });

  test.each([
    ["nowhere.png", /nowhere\.png: expected an image file, got no such file/],
    [".", /got a folder/],
    ["/dev/null", /got something that is not a regular file/],
  ])("%s", async (name, message) => {
    const loading = loadImage(name.startsWith("/") ? name : join(folder, name));
    await expect(loading).rejects.toThrow(ImageError);
    await expect(loading).rejects.toThrow(message);
  });

  test("something that is neither path nor bytes", async () => {
    await expect(loadImage(7 as unknown as string)).rejects.toThrow(
      /a path, a URL or the bytes of an image, got number/,
    );
  });
});

test.each([
  [{ size: 0 }, /size to be a whole number in 1\.\.8192, got 0/],
  [{ size: 2.5 }, /got 2.5/],
  [{ size: 1e9 }, /got 1000000000/],
  [{ cropPct: 0 }, /cropPct in \(0, 1\], got 0/],
  [{ cropPct: 1.1 }, /cropPct in \(0, 1\], got 1.1/],
  [{ cropPct: Number.NaN }, /cropPct/],
  [{ interpolation: "lanczos" as Interpolation }, /interpolation to be one of bilinear, bicubic, got "lanczos"/],
  [{ channels: 4 as 3 }, /channels to be 1 or 3, got 4/],
  [{ mean: [0.5] }, /mean to be 3 finite numbers, got \[0.5\]/],
  [{ mean: [0, 0, Number.POSITIVE_INFINITY] }, /mean to be 3 finite numbers/],
  [{ std: [1, 1] }, /std to be 3 positive numbers, got \[1,1\]/],
  [{ std: [1, 0, 1] }, /std to be 3 positive numbers, got \[1,0,1\]/],
  [{ channels: 1 as const, mean: [0, 0, 0] }, /mean to be 1 finite numbers/],
])("options out of range are an ArgumentError: %o", async (options, message) => {
  await expect(loadImage(chelsea, options)).rejects.toThrow(ArgumentError);
  await expect(loadImage(chelsea, options)).rejects.toThrow(message);
});

test("undefined options mean the defaults", async () => {
  const [explicit, implicit] = await Promise.all([
    loadImage(chelsea, { size: undefined, cropPct: undefined, mean: undefined, interpolation: undefined }),
    loadImage(await readFile(chelsea)),
  ]);
  expect(explicit.shape).toEqual([1, 3, 224, 224]);
  expect(await explicit.data()).toEqual(await implicit.data());
});

const cmykTiff =
  "SUkqAAgAAAAKAAABBAABAAAAAgAAAAEBBAABAAAAAQAAAAIBAwAEAAAAhgAAAAMBAwABAAAAAQAAAAYBAwABAAAABQAAABEBBAABAAAAjgAAABUBAwABAAAABAAAABYBBAABAAAAAQAAABcBBAABAAAACAAAABwBAwABAAAAAQAAAAAAAAAIAAgACAAIAApkyDL/AIAH";
