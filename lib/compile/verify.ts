import { ArgumentError, expected, listed, ShapeError } from "../errors.js";
import { Module } from "../nn/module.js";
import { formatShape, sameShape } from "../shape.js";
import { Tensor } from "../tensor.js";
import { type CompileOptions, compile } from "./compile.js";

/** How far one layer's output on one device is from what it should be. */
export interface Deviation {
  /** The module's name (`layer1`), or `logits` for the network itself. */
  readonly layer: string;
  readonly device: string;
  /** ‖output − wanted‖ / ‖wanted‖, the measure of all tolerances. */
  readonly error: number;
  /** The largest difference of one number. */
  readonly largest: number;
}

/** How far a float32 network's logits may be off, and those of the shorter types (relative norms). */
export const tolerances = { float32: 1e-4, tf32: 3e-3, float16: 5e-3, bfloat16: 2e-2 } as const;

type Golden = Readonly<Record<string, Tensor>>;

export interface VerifyOptions {
  readonly devices: readonly (CompileOptions["device"] & string)[];
  readonly dtype?: CompileOptions["dtype"];
}

/**
 * Runs a network on devices and compares its logits, and the output of every module that `golden` has a tensor for by
 * name, with what they should be.
 *
 * @param golden `input` [N, C, H, W], `logits`, and outputs of modules by name, if any
 * @throws ArgumentError for a golden file without input or logits, ShapeError for tensors of another shape
 */
export async function verify(network: Module, golden: Golden, options: VerifyOptions): Promise<Deviation[]> {
  const { input, logits, ...layers } = golden;
  for (const [name, value] of Object.entries({ input, logits }))
    if (!(value instanceof Tensor))
      throw new ArgumentError(expected("verify", `a golden tensor "${name}"`, listed(Object.keys(golden)) || "none"));
  const known = new Set([...network.namedModules()].map(([name]) => name));
  const names = Object.keys(layers).filter((name) => known.has(name));
  const deviations: Deviation[] = [];
  for (const device of options.devices)
    for (const layer of [...names, "logits"]) {
      const wanted = layer === "logits" ? logits : layers[layer];
      deviations.push({
        layer,
        device,
        ...(await deviation(layer, await output(network, layer, input, device, options), wanted)),
      });
    }
  return deviations;
}

/** Runs a network on several devices and compares each of its top modules' outputs with those on the first device. */
export async function compareDevices(network: Module, input: Tensor, options: VerifyOptions): Promise<Deviation[]> {
  const [judge, ...others] = options.devices;
  if (others.length === 0)
    throw new ArgumentError(expected("compare", "at least two devices", listed(options.devices) || "none"));
  const names = [...network.namedModules()].map(([name]) => name).filter((name) => name !== "" && !name.includes("."));
  const deviations: Deviation[] = [];
  for (const layer of [...names, "logits"]) {
    const wanted = await output(network, layer, input, judge, { ...options, dtype: "float32" });
    for (const device of others)
      deviations.push({
        layer,
        device,
        ...(await deviation(layer, await output(network, layer, input, device, options), wanted)),
      });
  }
  return deviations;
}

async function output(
  network: Module,
  layer: string,
  input: Tensor,
  device: CompileOptions["device"],
  { dtype }: VerifyOptions,
): Promise<Tensor> {
  await using compiled = await compile(layer === "logits" ? network : new Tapped(network, layer), { device, dtype });
  return compiled.run(input);
}

async function deviation(layer: string, got: Tensor, wanted: Tensor): Promise<{ error: number; largest: number }> {
  if (!sameShape(got.shape, wanted.shape))
    throw new ShapeError(expected("verify", `${layer} of shape ${formatShape(got.shape)}`, formatShape(wanted.shape)));
  const [ours, theirs] = (await Promise.all([got.data(), wanted.data()])) as [Float32Array, Float32Array];
  let difference = 0;
  let size = 0;
  let largest = 0;
  for (let i = 0; i < ours.length; i++) {
    const off = ours[i] - theirs[i];
    difference += off * off;
    size += theirs[i] * theirs[i];
    if (!(Math.abs(off) <= largest)) largest = Math.abs(off); // NaN stays
  }
  return { error: Math.sqrt(difference / (size || 1)), largest };
}

/** A network that ends after one of its modules. */
class Tapped extends Module {
  readonly network: Module;
  readonly #layer: Module;

  constructor(network: Module, name: string) {
    super();
    this.network = network;
    this.#layer = [...network.namedModules()].find(([known]) => known === name)?.[1] as Module;
  }

  override forward(x: Tensor): Tensor {
    const layer = this.#layer;
    let seen: Tensor | undefined;
    const watched = Object.getOwnPropertyDescriptor(layer, "forward");
    const value = (input: Tensor): Tensor => {
      seen = Object.getPrototypeOf(layer).forward.call(layer, input) as Tensor;
      return seen;
    };
    Object.defineProperty(layer, "forward", { value, configurable: true });
    try {
      this.network.forward(x);
    } finally {
      if (watched) Object.defineProperty(layer, "forward", watched);
      else Reflect.deleteProperty(layer, "forward");
    }
    if (!seen) throw new ArgumentError(expected("verify", "a module that the network runs", layer.constructor.name));
    return seen;
  }
}
