import { expected, WeightsError } from "../errors.js";

/** Where training scripts put the weights beside the epoch and the optimiser. */
export const wrappers = ["state_dict", "model", "model_state_dict"];
/** What DataParallel, Lightning and torch.compile put before every name. */
const prefixes = ["module.", "model.", "_orig_mod."];

/** What stands before every name (there is one at least) and can go; nothing when a name would be left empty. */
export function commonPrefix(names: readonly string[]): string {
  for (let prefix = ""; ; ) {
    const next = prefixes.find((candidate) => {
      const whole = prefix + candidate;
      return names.every((name) => name.startsWith(whole) && name.length > whole.length);
    });
    if (next === undefined) return prefix;
    prefix += next;
  }
}

/**
 * A state dict as a network of the zoo names it, from a flat record as a training script may have saved it: of names
 * under `state_dict.`, `model.` or `model_state_dict.` beside others those alone, and none with a prefix that all have.
 * No network of the zoo has names of that kind. Throws WeightsError when several wrappers hold tensors and when there is
 * none at all; `file` stands in the message.
 */
export function unwrap<T>(record: Readonly<Record<string, T>>, file: string): Record<string, T> {
  const all = Object.entries(record);
  if (all.length === 0) throw new WeightsError(expected(file, "at least one tensor", "none"));
  const wrapped = wrappers.filter((wrapper) => all.some(([name]) => name.startsWith(`${wrapper}.`)));
  if (wrapped.length > 1) throw new WeightsError(expected(file, "one state dict", `one each in ${wrapped.join(", ")}`));
  const own = wrapped.length === 0 ? all : all.filter(([name]) => name.startsWith(`${wrapped[0]}.`));
  const cut = wrapped.length === 0 ? 0 : wrapped[0].length + 1;
  const named = own.map(([name, value]) => [name.slice(cut), value] as const);
  const prefix = commonPrefix(named.map(([name]) => name));
  return Object.fromEntries(named.map(([name, value]) => [name.slice(prefix.length), value]));
}
