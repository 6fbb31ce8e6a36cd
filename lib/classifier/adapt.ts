import { createModel, listModels, type Network, type Shortcut } from "../../models/index.js";
import { expected, listed, WeightsError } from "../errors.js";
import { unwrap } from "../io/names.js";
import { isCounter } from "../nn/module.js";
import { unreadOf, withUnread } from "../nn/unread.js";
import { formatShape, sameShape } from "../shape.js";
import { Tensor, tensor } from "../tensor.js";

type Weights = Readonly<Record<string, Tensor>>;

const stems = ["conv1.weight", "layer0.conv1.weight"];
const heads = ["fc.weight", "fc.bias", "last_linear.weight", "last_linear.bias"];

export interface Adapted {
  /** What `loadStateDict` takes. */
  readonly weights: Record<string, Tensor>;
  /** One sentence for each change; empty when the weights fit as they were. */
  readonly changes: readonly string[];
}

/**
 * Weights of a network of the same name for other input channels or other classes, by timm's rule
 * (`adapt_input_conv`): a stem for one channel is the sum over the three it had; for other counts its channels are
 * repeated in turn and scaled by 3 / count, so that an image's signal keeps its size. A classifier of another number of
 * classes cannot be kept: the network's own first weights take its place. What a wrapper put before every name
 * (`module.`, `model.`, `state_dict.`) goes.
 *
 * Everything else is left as it is, for `loadStateDict` to judge. Computes nothing in place.
 *
 * ```ts
 * const model = createModel("resnet50", { inChannels: 1, numClasses: 7 });
 * const { weights, changes } = await adaptWeights(await loadWeights("resnet50.pth"), model);
 * model.loadStateDict(weights);
 * ```
 *
 * @throws WeightsError for a stem of other than three channels that should take several
 */
export async function adaptWeights(wrapped: Weights, network: Network): Promise<Adapted> {
  const own = network.stateDict();
  const weights = unwrap(wrapped, "adaptWeights");
  const adapted: Record<string, Tensor> = { ...weights };
  const changes: string[] = [];
  if (Object.keys(weights).some((name) => !Object.hasOwn(wrapped, name)))
    changes.push("every name without what a wrapper had put before it");
  for (const name of stems) {
    const given = weights[name];
    const wanted = own[name]?.shape;
    if (!(given instanceof Tensor) || !wanted || given.shape.length !== 4 || sameShape(given.shape, wanted)) continue;
    const [from, to] = [given.shape[1], wanted[1]];
    if (!sameShape([given.shape[0], to, given.shape[2], given.shape[3]], wanted)) continue;
    adapted[name] = await adaptStem(name, given, to);
    changes.push(
      to === 1 ? `${name} summed over its ${from} channels` : `${name} spread from ${from} channels to ${to}`,
    );
  }
  for (const name of heads) {
    const given = weights[name];
    if (!own[name] || (given instanceof Tensor && given.shape[0] === own[name].shape[0])) continue;
    adapted[name] = own[name].detach();
    if (!(given instanceof Tensor)) {
      changes.push(`${name} begins anew, for ${own[name].shape[0]} classes: the weights have none`);
      continue;
    }
    changes.push(`${name} begins anew, for ${own[name].shape[0]} classes in place of ${given.shape[0]}`);
  }
  return { weights: withUnread(adapted, unreadOf(weights)), changes };
}

async function adaptStem(name: string, weight: Tensor, to: number): Promise<Tensor> {
  const [filters, from, height, width] = weight.shape;
  if (from !== 3 && !(to === 1 && from < 3))
    throw new WeightsError(expected(`adaptWeights: ${name}`, "a stem of 3 channels", formatShape(weight.shape)));
  const given = (await weight.data()) as Float32Array;
  const area = height * width;
  const values = new Float32Array(filters * to * area);
  for (let filter = 0; filter < filters; filter++)
    for (let i = 0; i < area; i++) {
      const at = (channel: number) => given[(filter * from + channel) * area + i];
      if (to === 1) for (let channel = 0; channel < from; channel++) values[filter * area + i] += at(channel);
      else
        for (let channel = 0; channel < to; channel++)
          values[(filter * to + channel) * area + i] = (at(channel % from) * 3) / to;
    }
  return tensor(values, [filters, to, height, width]);
}

/** How well weights fit a network of ours, whatever its input channels and classes. */
export interface Fit {
  readonly model: string;
  /** How its shortcuts are made, where that is not the usual way. */
  readonly shortcut?: Shortcut;
  /** Tensors that agree in name and shape, of all that either has. */
  readonly agreeing: number;
  readonly all: number;
}

/**
 * The networks of the zoo that weights fit best: several where names and shapes do not tell which, as a plain network's are
 * those of one whose shortcuts have no weights. Empty when less than half of the tensors agree with any.
 */
export function bestFits(weights: Weights): Fit[] {
  const given = Object.keys(weights).filter(isTelling);
  let best: Fit[] = [];
  for (const model of listModels())
    for (const shortcut of shortcutsOf(model)) {
      const own = createModel(model, shortcut && { shortcut }).stateDict();
      const names = Object.keys(own).filter(isTelling);
      const agreeing = names.filter((name) => agrees(name, weights[name], own[name])).length;
      const all = names.length + given.length - names.filter((name) => Object.hasOwn(weights, name)).length;
      const [leader] = best;
      const lead = leader ? leader.agreeing * all - agreeing * leader.all : -1;
      const fit = { model, shortcut, agreeing, all };
      if (lead < 0) best = [fit];
      else if (lead === 0) best.push(fit);
    }
  return best.filter(({ agreeing, all }) => agreeing * 2 >= all);
}

/** The one network that all of the weights are of, as far as names and shapes tell; undefined for none and for several. */
export function onlyFit(weights: Weights): Fit | undefined {
  const fits = bestFits(weights);
  return fits.length === 1 && fits[0].agreeing === fits[0].all ? fits[0] : undefined;
}

/** The usual shortcuts, as undefined, and the others of a network that may have them. */
function shortcutsOf(model: string): readonly (Shortcut | undefined)[] {
  return createModel(model).options.shortcut === undefined ? [undefined] : [undefined, "A", "C"];
}

/** Old checkpoints lack batch norm's counters. */
const isTelling = (name: string) => !isCounter(name);

function agrees(name: string, given: Tensor | undefined, own: Tensor): boolean {
  if (given === undefined || given.shape.length !== own.shape.length) return false;
  const free = stems.includes(name) ? 1 : heads.includes(name) ? 0 : -1;
  return given.shape.every((extent, dimension) => dimension === free || extent === own.shape[dimension]);
}

/** ` (they fit resnet50 best: 320 of 320 tensors)`; nothing when they fit none, or the network `asked` as well as any. */
export function fitHint(weights: Weights, asked?: Network): string {
  const fits = bestFits(weights);
  const isAsked = ({ model, shortcut }: Fit) =>
    model === asked?.modelName && (shortcut ?? "B") === (asked.options.shortcut ?? "B");
  if (fits.length === 0 || fits.some(isAsked)) return "";
  const named = fits.map(({ model, shortcut }) =>
    shortcut ? `${model} with modelOptions shortcut "${shortcut}"` : model,
  );
  const count = `${fits[0].agreeing} of ${fits[0].all} tensors`;
  if (fits.length === 1) return ` (they fit ${named[0]} best: ${count})`;
  return ` (they fit alike, by names and shapes: ${listed(named)}; ${count})`;
}
