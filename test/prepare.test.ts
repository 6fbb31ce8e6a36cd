import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import fc from "fast-check";
import { ArgumentError, ImageError, loadImage, setImageMemoryLimit } from "seresnet";
import sharp from "sharp";
import { afterAll, describe, expect, test } from "vitest";
import { nativeImages } from "#lib/devices/native/addon.js";
import { ByteBudget } from "#lib/image/budget.js";
import { decodeSamples, type ImageFile, openImage } from "#lib/image/decode.js";
import { nativeRecipe } from "#lib/image/prepare.js";
import { draftSides, prepareHere, type Recipe } from "#lib/image/recipe.js";

const fixtures = resolve("test/fixtures");
const addon = nativeImages();
const run = (args: readonly string[], env: NodeJS.ProcessEnv) =>
  promisify(execFile)(process.execPath, args, { env: { ...process.env, ...env } });

/** Image files of every kind of samples that the decoder leaves. */
async function files(): Promise<Record<string, Buffer>> {
  const [width, height] = [61, 47];
  const noise = (channels: number) =>
    Buffer.from(Array.from({ length: width * height * channels }, (_, i) => (i * i * 31 + i * 7) % 251));
  const raw = (channels: 1 | 2 | 3 | 4) => sharp(noise(channels), { raw: { width, height, channels } });
  const gifs = JSON.parse(readFileSync(join(fixtures, "gif.json"), "utf8")) as Record<string, { gif: string }>;
  const all: Record<string, Buffer> = {
    rgb: await raw(3).png().toBuffer(),
    rgba: await raw(4).png().toBuffer(),
    grey: await raw(1).toColourspace("b-w").png().toBuffer(),
    "grey with alpha": await raw(2).toColourspace("b-w").png().toBuffer(),
    "16 bits": await raw(3).toColourspace("rgb16").png().toBuffer(),
    jpeg: await raw(3).jpeg().toBuffer(),
    cmyk: await raw(4).toColourspace("cmyk").jpeg().toBuffer(),
  };
  for (let orientation = 2; orientation <= 8; orientation++)
    all[`orientation ${orientation}`] = await raw(3).withMetadata({ orientation }).jpeg().toBuffer();
  for (const [name, { gif }] of Object.entries(gifs)) all[`gif ${name}`] = Buffer.from(gif, "base64");
  return all;
}

/** Recipes for an image of these sides, with crops, windows and canvases of any kind. */
function recipes({ width, height }: ImageFile): fc.Arbitrary<Recipe> {
  const part = (most: number) =>
    fc
      .integer({ min: 1, max: most })
      .chain((length) => fc.tuple(fc.integer({ min: 0, max: most - length }), fc.constant(length)));
  const sides = fc.tuple(fc.integer({ min: 1, max: 90 }), fc.integer({ min: 1, max: 90 }));
  const geometry = sides.chain(([w, h]) =>
    fc.record(
      {
        crop: fc
          .tuple(part(width), part(height))
          .map(([[left, wide], [top, high]]) => ({ left, top, width: wide, height: high })),
        width: fc.constant(w),
        height: fc.constant(h),
        window: fc
          .tuple(part(w), part(h))
          .map(([[left, wide], [top, high]]) => ({ left, top, width: wide, height: high })),
        canvas: fc.record({
          side: fc.constant(Math.max(w, h) + 5),
          left: fc.integer({ min: 0, max: 5 }),
          top: fc.integer({ min: 0, max: 5 }),
          fill: fc.tuple(fc.nat(255), fc.nat(255), fc.nat(255)),
        }),
      },
      { requiredKeys: ["width", "height", "window"] },
    ),
  );
  return fc.record({
    geometry,
    interpolation: fc.constantFrom("bilinear" as const, "bicubic" as const),
    channels: fc.constantFrom(1 as const, 3 as const),
    draft: fc.boolean(),
  });
}

const table = (channels: number) => Float32Array.from({ length: 256 * channels }, (_, i) => Math.sin(i));

describe.skipIf(!addon)("the addon prepares images as TypeScript does, byte for byte", async () => {
  const opened: [string, ImageFile][] = [];
  for (const [name, bytes] of Object.entries(await files())) opened.push([name, await openImage(bytes)]);
  const thread = addon?.openImages();
  const prepared = async (file: ImageFile, recipe: Recipe, vectors: boolean) => {
    const samples = await decodeSamples(file, { draft: draftSides(file, recipe) });
    if (!addon || !thread) throw new Error("no addon");
    const how = { ...nativeRecipe(file, recipe, samples), vectors };
    const here = addon.prepareImageHere(new Uint8Array(samples.data), how); // as in worker threads
    const there = await addon.prepareImage(thread, samples.data, how);
    expect(Buffer.compare(Buffer.from(here.buffer), Buffer.from(there.buffer))).toBe(0);
    return there;
  };

  test.each(opened)("%s", async (_, file) => {
    await fc.assert(
      fc.asyncProperty(recipes(file), fc.boolean(), fc.boolean(), async (recipe, vectors, isTable) => {
        const whole = isTable ? { ...recipe, table: table(recipe.channels) } : recipe;
        const wanted = await prepareHere(file, whole);
        const got = await prepared(file, whole, vectors);
        expect(got.constructor).toBe(wanted.constructor);
        expect(Buffer.compare(Buffer.from(got.buffer), Buffer.from(wanted.buffer))).toBe(0);
      }),
      { numRuns: 25 },
    );
  });

  test("an image that is many times larger", async () => {
    const big = sharp(join(fixtures, "images/chelsea.png")).resize(2003, 1501, { fit: "fill" });
    for (const orientation of [1, 6]) {
      const file = await openImage(await big.clone().withMetadata({ orientation }).jpeg().toBuffer());
      for (const channels of [1, 3] as const) {
        const window = { left: 3, top: 4, width: 50, height: 60 };
        const recipe: Recipe = { geometry: { width: 64, height: 71, window }, interpolation: "bicubic", channels };
        const wanted = await prepareHere(file, recipe);
        for (const vectors of [true, false]) expect(await prepared(file, recipe, vectors)).toEqual(wanted);
      }
    }
  });

  test("samples are freed at once, and what could read beyond them is refused", async () => {
    const [, file] = opened[0];
    const samples = await decodeSamples(file);
    const window = { left: 0, top: 0, width: 4, height: 4 };
    const recipe: Recipe = { geometry: { width: 4, height: 4, window }, interpolation: "bilinear", channels: 3 };
    const good = nativeRecipe(file, recipe, samples);
    const taps = good.across;
    const bad: object[] = [
      { width: samples.width + 1 },
      { height: 0 },
      { channels: 7 },
      { colours: "lab" },
      { colours: "cmyk" },
      { colours: "gif" },
      { across: { ...taps, first: taps.first.map(() => samples.width) } },
      { across: { ...taps, first: taps.first.map(() => -1) } },
      { across: { ...taps, count: taps.count.map(() => 2 ** 30) } },
      { across: { ...taps, stride: 0 } },
      { across: { ...taps, weights: new Int32Array(3) } },
      { down: { ...taps, first: new Int32Array(0) } },
      { down: { ...taps, first: [...taps.first] } },
      { outputChannels: 2 },
      { table: new Float32Array(5) },
      { canvas: { side: 3, left: 0, top: 0, fill: [0, 0, 0] } },
      { canvas: { side: 9, left: 6, top: 0, fill: [0, 0, 0] } },
      { canvas: { side: 9, left: 0, top: 0, fill: [0] } },
    ];
    for (const change of bad) {
      const call = () => addon?.prepareImage(thread as never, samples.data, { ...good, ...change });
      expect(call, JSON.stringify(change)).toThrow(/^prepareImage: expected /);
    }
    expect(() => addon?.prepareImage({} as never, samples.data, good)).toThrow("expected an image thread");
    expect(samples.data.length).toBeGreaterThan(0);
    await addon?.prepareImage(thread as never, samples.data, good);
    expect(samples.data.length).toBe(0);
  });
});

test("without the addon, large images are prepared in worker threads, to the same bytes", async () => {
  const program = `
    const { loadImage } = require("seresnet");
    const { createHash } = require("node:crypto");
    (async () => {
      const images = [${JSON.stringify(join(fixtures, "images/chelsea.png"))}, process.argv[1]];
      const all = await Promise.all([...images, ...images].map((image) => loadImage(image, { size: 96 })));
      const hashes = await Promise.all(all.map(async (x) => createHash("sha256").update(await x.data()).digest("hex")));
      console.log(JSON.stringify(hashes));
      await loadImage(Buffer.from("no image")).catch((error) => console.log(error.name));
      await loadImage(process.argv[2]).catch((error) => console.log(error.name, error.message.includes("cut")));
    })();`;
  const large = await sharp(join(fixtures, "images/chelsea.png"))
    .resize(900, 700, { fit: "fill" })
    .withMetadata({ orientation: 6 })
    .jpeg()
    .toBuffer();
  const folder = mkdtempSync(join(tmpdir(), "seresnet-prepare-"));
  try {
    writeFileSync(join(folder, "large.jpg"), large);
    writeFileSync(join(folder, "cut.jpg"), large.subarray(0, large.length / 2));
    const args = ["-e", program, join(folder, "large.jpg"), join(folder, "cut.jpg")];
    const without = await run(args, { SERESNET_ADDON: "none" });
    const lines = without.stdout.trim().split("\n");
    expect(lines.slice(1)).toEqual(["ImageError", "ImageError true"]);
    expect(without.stderr).toBe("");
    if (addon) expect(JSON.parse((await run(args, {})).stdout.split("\n")[0])).toEqual(JSON.parse(lines[0]));
  } finally {
    rmSync(folder, { recursive: true });
  }
});

describe("the memory of decoded images", () => {
  afterAll(() => setImageMemoryLimit(2 ** 28));

  test("is shared in order; what is larger than all of it goes alone", async () => {
    const budget = new ByteBudget(100 * 1024);
    const other = new ByteBudget(1);
    other.share(budget.memory);
    const order: string[] = [];
    const take = async (who: string, of: ByteBudget, bytes: number) => {
      const giveBack = await of.take(bytes);
      order.push(who);
      return giveBack;
    };
    const first = await take("first", budget, 60 * 1024);
    const huge = take("huge", budget, 500 * 1024);
    const small = take("small", budget, 10 * 1024);
    const elsewhere = await take("elsewhere", other, 40 * 1024);
    await new Promise((done) => setTimeout(done, 30));
    expect(order).toEqual(["first", "elsewhere"]);
    first();
    await new Promise((done) => setTimeout(done, 30));
    expect(order).toEqual(["first", "elsewhere"]);
    elsewhere(); // in what may be another thread
    (await huge)();
    (await small)();
    expect(order).toEqual(["first", "elsewhere", "huge", "small"]);
  });

  test("bounds how many are decoded at once, and refuses nonsense", async () => {
    for (const bytes of [0, -1, Number.NaN, 2.5, 2 ** 50, "1"] as number[])
      expect(() => setImageMemoryLimit(bytes)).toThrow(ArgumentError);
    setImageMemoryLimit(2 ** 20);
    const image = join(fixtures, "images/chelsea.png");
    const failed = loadImage(Buffer.from("none")).catch((error: unknown) => error);
    const loaded = await Promise.all(Array.from({ length: 20 }, () => loadImage(image, { size: 32 })));
    expect(loaded.length).toBe(20);
    expect(await failed).toBeInstanceOf(ImageError);
  });
});

test.skipIf(!addon)("small files of many pixels take turns", { timeout: 120_000 }, async () => {
  const image = sharp({ create: { width: 12_000, height: 12_000, channels: 3, background: "#336699" } });
  const bytes = await image.png({ compressionLevel: 9 }).toBuffer();
  expect(bytes.length).toBeLessThan(2e6);
  const folder = mkdtempSync(join(tmpdir(), "seresnet-prepare-"));
  try {
    writeFileSync(join(folder, "bomb.png"), bytes);
    const program = `
      const { loadImage } = require("seresnet");
      const load = () => loadImage(process.argv[1], { size: 32, mean: [0, 0, 0], std: [1, 1, 1] });
      Promise.all([load(), load(), load(), load()]).then(async (all) =>
        console.log(all.length, (await all[3].data())[0], process.resourceUsage().maxRSS / 1024));`;
    const [count, red, peak] = (await run(["-e", program, join(folder, "bomb.png")], {})).stdout.split(" ").map(Number);
    expect([count, Math.round(red * 255)]).toEqual([4, 0x33]);
    expect(peak).toBeLessThan(1000); // 412 MiB decoded, of which two would be more
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("a draft is close to the image, and only JPEGs that are large enough have one", async () => {
  const big = sharp(join(fixtures, "images/chelsea.png")).resize(2400, 1800, { fit: "fill" });
  const options = { mean: [0, 0, 0], std: [1, 1, 1] };
  const values = async (image: Buffer, draft: boolean) => (await loadImage(image, { ...options, draft })).data();
  for (const orientation of [1, 6]) {
    const jpeg = await big.clone().withMetadata({ orientation }).jpeg({ quality: 90 }).toBuffer();
    const [whole, draft] = [await values(jpeg, false), await values(jpeg, true)] as Float32Array[];
    const differences = whole.map((value, i) => Math.abs(value - draft[i]) * 255);
    const mean = differences.reduce((sum, value) => sum + value) / differences.length;
    expect(mean).toBeGreaterThan(0);
    expect(mean).toBeLessThan(1);
  }
  for (const same of [await big.clone().png().toBuffer(), await big.clone().resize(900, 700).jpeg().toBuffer()])
    expect(await values(same, true)).toEqual(await values(same, false));
});
