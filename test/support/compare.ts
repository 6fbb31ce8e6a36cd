/** ‖got − wanted‖ / ‖wanted‖, the measure all tolerances are in. Differing lengths are a failure, not a number. */
export function relativeError(got: ArrayLike<number | bigint>, wanted: ArrayLike<number | bigint>): number {
  if (got.length !== wanted.length) throw new Error(`expected ${wanted.length} elements, got ${got.length}`);
  let difference = 0;
  let size = 0;
  for (let i = 0; i < got.length; i++) {
    difference += (Number(got[i]) - Number(wanted[i])) ** 2;
    size += Number(wanted[i]) ** 2;
  }
  return Math.sqrt(difference / (size || 1));
}
