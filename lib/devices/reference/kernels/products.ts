/**
 * The inner product loop of convolution: adds the products of four rows of `w` (the first four) and two rows of `x` (from
 * `row` on), each `depth` long, to `sums`: that of row o and row r at `at + o * step + r`. Eight sums and six factors are
 * what fits the registers, and so no sum goes through memory inside the loop.
 */
export function addProducts(
  sums: Float64Array,
  at: number,
  step: number,
  w: Float64Array,
  x: Float64Array,
  row: number,
  depth: number,
): void {
  const x0 = row * depth;
  const x1 = x0 + depth;
  const [w1, w2, w3] = [depth, 2 * depth, 3 * depth];
  const [at1, at2, at3] = [at + step, at + 2 * step, at + 3 * step];
  let s00 = sums[at];
  let s01 = sums[at + 1];
  let s10 = sums[at1];
  let s11 = sums[at1 + 1];
  let s20 = sums[at2];
  let s21 = sums[at2 + 1];
  let s30 = sums[at3];
  let s31 = sums[at3 + 1];
  for (let k = 0; k < depth; k++) {
    const a = x[x0 + k];
    const b = x[x1 + k];
    const u0 = w[k];
    const u1 = w[w1 + k];
    const u2 = w[w2 + k];
    const u3 = w[w3 + k];
    s00 += u0 * a;
    s01 += u0 * b;
    s10 += u1 * a;
    s11 += u1 * b;
    s20 += u2 * a;
    s21 += u2 * b;
    s30 += u3 * a;
    s31 += u3 * b;
  }
  sums[at] = s00;
  sums[at + 1] = s01;
  sums[at1] = s10;
  sums[at1 + 1] = s11;
  sums[at2] = s20;
  sums[at2 + 1] = s21;
  sums[at3] = s30;
  sums[at3 + 1] = s31;
}
