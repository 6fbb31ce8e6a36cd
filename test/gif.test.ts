import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { describe, expect, test } from "vitest";
import { decodeImage } from "#lib/image/decode.js";

/** Small GIFs and what Pillow 12.3's `Image.open(gif).convert("RGB")` makes of them. */
const cases = JSON.parse(readFileSync(resolve("test/fixtures/gif.json"), "utf8")) as Record<
  string,
  { gif: string; rgb: number[] }
>;

describe("what a GIF's first frame does not draw has Pillow's colour", () => {
  for (const [name, { gif, rgb }] of Object.entries(cases))
    test(name, async () => {
      expect([...(await decodeImage(Buffer.from(gif, "base64"))).data]).toEqual(rgb);
    });
});
