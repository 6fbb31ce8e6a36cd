import { expected, listed, WeightsError } from "../errors.js";
import { unreadOf, withUnread } from "../nn/unread.js";
import type { Tensor } from "../tensor.js";
import { quoted } from "./json.js";

/** Where training scripts put the weights beside the epoch and the optimiser. */
const wrappers = ["state_dict", "model", "model_state_dict"];
/** What DataParallel, Lightning and torch.compile put before every name. */
const prefixes = /^(?:module\.|model\.|_orig_mod\.)+/;
/** What averages of weights are called (timm's state_dict_ema, model_ema; torch's swa_utils). */
const average = /(^|[._-])(ema|swa|averaged?)([._-]|$)/i;

/** What all names begin with. */
function commonStart(names: readonly string[]): string {
  let start = names[0] ?? "";
  for (const name of names) {
    let length = 0;
    while (length < start.length && start[length] === name[length]) length++;
    start = start.slice(0, length);
  }
  return start;
}

/** What stands before every name and can go: what wrappers of PyTorch's put there. Nothing where a name would be left empty. */
export function commonPrefix(names: readonly string[]): string {
  const prefix = prefixes.exec(commonStart(names))?.[0] ?? "";
  return names.includes(prefix) ? (prefixes.exec(prefix.slice(0, -1))?.[0] ?? "") : prefix;
}

/** What a network of the zoo begins with. */
const stems = ["conv1.weight", "layer0.conv1.weight"];

/**
 * What stands before the names of a network of the zoo, told by its stem: `net.backbone.`, also where a criterion or another
 * head lies beside it. Where there is no stem, or more than one, what PyTorch's wrappers put before every name.
 */
function networkPrefix(names: readonly string[]): string {
  const found = new Set<string>();
  for (const name of names)
    for (const stem of stems) {
      const prefix = name.slice(0, -stem.length);
      if (name.endsWith(stem) && (prefix === "" || prefix.endsWith("."))) found.add(prefix);
    }
  // blocks have a conv1 as well, and theirs lie below the network's
  const [first, ...others] = [...found].sort((a, b) => a.length - b.length);
  const isOne = first !== undefined && others.every((other) => other.startsWith(first));
  return isOne ? first : commonPrefix(names);
}

/** A record of tensors in a file, by where it is (`state_dict`; "" for the file itself). */
export interface Candidate {
  readonly where: string;
  readonly names: readonly string[];
}

/**
 * Which of the records of tensors in a file holds the network's weights: the only one; of one network's weights and their
 * average the average, which is what was judged (timm's load_checkpoint takes it, too); the one in a known wrapper.
 * Throws WeightsError where several may be meant; `file` stands in the message.
 */
export function chooseStateDict<C extends Candidate>(candidates: readonly C[], file: string): C | undefined {
  const inside = candidates.filter(({ where }) => where !== "");
  const own = candidates.find(({ where }) => where === "");
  const largest = inside.reduce((most, { names }) => Math.max(most, names.length), 0);
  // a few tensors beside a state dict are no weights, and neither is a small record among many tensors
  if (own && own.names.length >= largest && !inside.some(({ where }) => wrappers.includes(where))) return own;
  if (inside.length <= 1) return inside[0] ?? own;
  const averages = inside.filter(({ where }) => average.test(where));
  if (averages.length === 1 && shareNames(averages[0], inside)) return averages[0];
  const known = inside.filter(({ where }) => wrappers.includes(where));
  if (known.length === 1) return known[0];
  const place = ({ where }: Candidate) => [...wrappers, where].indexOf(where);
  const keys = [...inside].sort((a, b) => place(a) - place(b)).map(({ where }) => where);
  throw new WeightsError(expected(file, "one state dict", `one each in ${listed(keys.map((key) => plain(key)))}`));
}

const plain = (key: string) => (/^[\w.-]{1,60}$/.test(key) ? key : quoted(key, 40));

/** Whether any of `others` has a weight of a name that `one` has too, whatever stands before all of its names. */
function shareNames<C extends Candidate>(one: C, others: readonly C[]): boolean {
  const bare = ({ names }: Candidate) => {
    const { length } = networkPrefix(names);
    return names.map((name) => name.slice(length));
  };
  const known = new Set(bare(one));
  return others.some((other) => other !== one && bare(other).some((name) => known.has(name)));
}

/**
 * A state dict as a network of the zoo names it, from a flat record as a training script may have saved it: of names
 * under `state_dict.`, `model.` or `model_state_dict.`, or under what averages are called, beside others those alone; and
 * none with a part that all have (`module.`, `net.backbone.`).
 * Throws WeightsError when several wrappers may be meant and when there is no tensor at all; `file` stands in the message.
 */
export function unwrap(record: Readonly<Record<string, Tensor>>, file: string): Record<string, Tensor> {
  return takeNetwork(record, file).weights;
}

/** The same, with the names of what lay beside the network in its state dict. */
export function takeNetwork(
  record: Readonly<Record<string, Tensor>>,
  file: string,
): { weights: Record<string, Tensor>; leftOut: string[] } {
  const all = Object.entries(record);
  if (all.length === 0) throw new WeightsError(expected(file, "at least one tensor", "none"));
  const groups = new Map<string, string[]>();
  for (const [name] of all) {
    const first = name.slice(0, Math.max(0, name.indexOf(".")));
    const where = wrappers.includes(first) || average.test(first) ? first : "";
    const names = groups.get(where) ?? [];
    names.push(name.slice(where === "" ? 0 : where.length + 1));
    groups.set(where, names);
  }
  const candidates = [...groups].map(([where, names]) => ({ where, names }));
  const { where, names } = chooseStateDict(candidates, file) as Candidate;
  const wrapper = where === "" ? "" : `${where}.`;
  const start = `${wrapper}${networkPrefix(names)}`;
  const wanted = new Set(names);
  const inside = all.filter(([name]) => name.startsWith(wrapper) && wanted.has(name.slice(wrapper.length)));
  const own = inside.filter(([name]) => name.startsWith(start));
  const leftOut = inside.flatMap(([name]) => (name.startsWith(start) ? [] : [name]));
  const unread = [...unreadOf(record)].map(([name, why]) => [name.slice(start.length), why] as const);
  const bare = Object.fromEntries(own.map(([name, value]) => [name.slice(start.length), value]));
  return { weights: withUnread(bare, new Map(unread)), leftOut };
}
