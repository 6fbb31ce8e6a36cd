import { floats, type Kernel, offsetOf, stridesOf, type View } from "./kernel.js";

/** y [..., M, N] = a [..., M, K] · b [..., K, N], with the leading dims of a and b broadcast. */
export const matmul: Kernel = ({ inputs: [a, b], outputs: [y] }, share) => {
  const [height, width] = y.shape.slice(-2);
  const depth = a.shape[a.shape.length - 1];
  const leading = y.shape.slice(0, -2);
  const [stridesA, stridesB] = [matrixStrides(a, leading), matrixStrides(b, leading)];
  const left = floats(a);
  const right = floats(b);
  const out = floats(y);
  const sums = new Float64Array(width);
  const [first, last] = share(out.length === 0 ? 0 : out.length / width);
  for (let row = first; row < last; row++) {
    const matrix = Math.floor(row / height);
    const fromA = offsetOf(matrix, leading, stridesA) + (row % height) * depth;
    const fromB = offsetOf(matrix, leading, stridesB);
    sums.fill(0);
    for (let k = 0; k < depth; k++) {
      const factor = left[fromA + k];
      for (let j = 0; j < width; j++) sums[j] += factor * right[fromB + k * width + j];
    }
    out.set(sums, row * width);
  }
};

/** Strides over the leading dims of `view`, along those of the result. */
function matrixStrides(view: View, leading: readonly number[]): number[] {
  const strides = stridesOf(view.shape);
  const missing = leading.length - (view.shape.length - 2);
  return leading.map((_, dim) => (dim < missing || view.shape[dim - missing] === 1 ? 0 : strides[dim - missing]));
}
