import { ArgumentError, expected, listed } from "./errors.js";
import { checkObject } from "./shape.js";

/** Every name of an options type, written down once beside it: the compiler sees that none is missing and none made up. */
export type OptionNames<Options> = { readonly [Name in keyof Options]-?: true };

/**
 * `options`, or ArgumentError where untyped code passes something else than an object, or a name that does not exist: an
 * option that is not there would be ignored in silence. An undefined value is the default, whatever its name.
 */
export function checkOptions<Options extends object>(
  where: string,
  options: Options,
  names: OptionNames<Options>,
  what = "options",
): Options {
  checkOptionNames(where, options, Object.keys(names), what);
  return options;
}

/** The same where the names are no type's. */
export function checkOptionNames(
  where: string,
  options: unknown,
  names: readonly string[],
  what = "options",
): asserts options is object {
  checkObject(where, what, options);
  const unknown = Object.entries(options as object).flatMap(([name, value]) =>
    value === undefined || names.includes(name) ? [] : [name],
  );
  if (unknown.length === 0) return;
  const hint = `nearest: ${listed(nearest(unknown[0], names))}`;
  throw new ArgumentError(
    expected(where, `${what} among ${listed(names)} (${hint})`, listed(unknown.map((name) => name.slice(0, 80)))),
  );
}

/** The three known names nearest to a wrong one, nearest first; neither case nor underscores count. */
export function nearest(name: string, known: readonly string[]): string[] {
  const plain = (text: string) => text.slice(0, 80).toLowerCase().replaceAll(/[_-]/g, "");
  return known
    .map((each) => ({ each, distance: editDistance(plain(name), plain(each)) }))
    .sort((a, b) => a.distance - b.distance)
    .slice(0, 3)
    .map(({ each }) => each);
}

/** How many insertions, deletions and replacements lead from `a` to `b`. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, row[j] + 1, next[j - 1] + 1));
    }
    row = next;
  }
  return row[b.length];
}
