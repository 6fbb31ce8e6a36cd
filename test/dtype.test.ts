import { tensor } from "seresnet";
import { describe, expect, it } from "vitest";
import { fromBfloat16Bits, fromFloat16Bits, roundTo, toBfloat16Bits, toFloat16Bits } from "#lib/dtype.js";

describe("half precision", () => {
  it("every float16 and bfloat16 survives the way there and back", () => {
    for (let bits = 0; bits < 0x10000; bits++) {
      const half = fromFloat16Bits(bits);
      if (!Number.isNaN(half)) expect(toFloat16Bits(half)).toBe(bits);
      else expect(fromFloat16Bits(toFloat16Bits(half))).toBeNaN();
      const brain = fromBfloat16Bits(bits);
      if (!Number.isNaN(brain)) expect(toBfloat16Bits(brain)).toBe(bits);
      else expect(fromBfloat16Bits(toBfloat16Bits(brain))).toBeNaN();
    }
  });

  // numpy: np.float32([...]).astype(np.float16)
  it.each([
    [1 + 2 ** -11, 1], // half way: to even
    [1 + 3 * 2 ** -11, 1 + 2 ** -9],
    [65519, 65504],
    [65520, Number.POSITIVE_INFINITY],
    [-70000, Number.NEGATIVE_INFINITY],
    [2 ** -25, 0], // half way to the smallest subnormal: to even
    [3 * 2 ** -25, 2 ** -23],
    [2 ** -14 - 2 ** -26, 2 ** -14],
  ])("%d rounds to %d as float16", (value, rounded) => {
    expect(fromFloat16Bits(toFloat16Bits(value))).toBe(rounded);
    const data = Float32Array.of(value);
    roundTo("float16", data);
    expect(data[0]).toBe(rounded);
  });

  it("rounds arrays as it rounds single numbers", () => {
    const values = Float32Array.from({ length: 4096 }, (_, i) => Math.sin(i) * 10 ** ((i % 19) - 9));
    for (const [dtype, one] of [
      ["float16", (v: number) => fromFloat16Bits(toFloat16Bits(v))],
      ["bfloat16", (v: number) => fromBfloat16Bits(toBfloat16Bits(v))],
    ] as const) {
      const rounded = values.slice();
      roundTo(dtype, rounded);
      expect(rounded).toEqual(values.map(one));
    }
  });
});

it("typed arrays keep their dtype, and data() gives the caller's own copy", async () => {
  const int64 = tensor(BigInt64Array.of(1n, -2n));
  expect([int64.dtype, tensor(Uint8Array.of(1)).dtype, tensor([1]).dtype]).toEqual(["int64", "uint8", "float32"]);
  expect(await int64.data()).toEqual(BigInt64Array.of(1n, -2n));
  const source = Float32Array.of(1, 2);
  const copy = tensor(source);
  source[0] = 9;
  expect(await copy.data()).toEqual(Float32Array.of(1, 2));
  expect(await tensor([0.1], [1], { dtype: "bfloat16" }).data()).toEqual(Float32Array.of(0.10009765625));
});
