import { ArgumentError, expected, shown, WeightsError } from "../errors.js";

/** More outputs than any classifier has: the largest label sets (ImageNet-21k) have some ten thousand. */
export const mostClasses = 2 ** 20;
/** More channels than any image has; hyperspectral ones have some hundreds. */
export const mostChannels = 2 ** 12;

/** Throws ArgumentError for a count that a caller asks for and no network has; undefined asks for nothing. */
export function checkAsked(name: string, count: number | undefined, least: number, most: number): void {
  if (count === undefined || (Number.isSafeInteger(count) && count >= least && count <= most)) return;
  throw new ArgumentError(expected("weights", `${name} to be an integer from ${least} to ${most}`, shown(count)));
}

/**
 * Throws WeightsError where what a description says of weights is not what they are, or, where they do not tell, is more than
 * any network has: before anything is made of that size.
 */
export function checkSaid(file: string, what: string, said: number, held: number | undefined, most: number): void {
  if (held !== undefined && held !== said)
    throw new WeightsError(expected(file, `its config.json to say ${held} ${what}, as the weights have`, `${said}`));
  if (!(Number.isSafeInteger(said) && said >= 0 && said <= most))
    throw new WeightsError(expected(file, `its config.json to say at most ${most} ${what}`, shown(said)));
}
