import type { Tensor } from "../lib/index.js";
import { loadPeer } from "./peers.js";

/** What we use of a tfjs tensor. */
interface TfTensor {
  transpose(order: number[]): TfTensor;
  data(): Promise<Float32Array>;
  dispose(): void;
}

/** What we use of `@tensorflow/tfjs`. Written down here, because it is not installed when this is compiled. */
interface Tf {
  enableProdMode(): void;
  setBackend(name: string): Promise<boolean>;
  tensor(data: Float32Array, shape: readonly number[]): TfTensor;
  tidy<T>(work: () => T): T;
  conv2d(
    x: TfTensor,
    filter: TfTensor,
    stride: number,
    pad: number,
    format: "NHWC",
    dilation: number,
    rounding: "floor",
  ): TfTensor;
  maxPool(x: TfTensor, size: number, stride: number, pad: number, rounding: "floor"): TfTensor;
  batchNorm(x: TfTensor, mean: TfTensor, variance: TfTensor, beta: TfTensor, gamma: TfTensor, eps: number): TfTensor;
  relu(x: TfTensor): TfTensor;
  sigmoid(x: TfTensor): TfTensor;
  add(a: TfTensor, b: TfTensor): TfTensor;
  mul(a: TfTensor, b: TfTensor): TfTensor;
  mean(x: TfTensor, axes: number[], keepDims?: boolean): TfTensor;
  matMul(a: TfTensor, b: TfTensor, transposeA: boolean, transposeB: boolean): TfTensor;
}

export interface HostTensor {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

export type HostStateDict = ReadonlyMap<string, HostTensor>;

/** The float32 weights of a state dict, on the host. */
export async function hostState(record: Readonly<Record<string, Tensor>>): Promise<HostStateDict> {
  const state = new Map<string, HostTensor>();
  for (const [name, value] of Object.entries(record))
    if (value.dtype === "float32") state.set(name, { shape: value.shape, data: (await value.data()) as Float32Array });
  return state;
}

/** A network that takes an N,C,H,W image and gives its logits. */
export type Network = (x: HostTensor) => Promise<Float32Array>;

/** One of our (SE-)ResNets, op by op in tfjs on one of its backends, from our state dict. */
export async function tfjsResNet(backend: "cpu" | "wasm", state: HostStateDict): Promise<Network> {
  const tf = loadPeer<Tf>("@tensorflow/tfjs");
  if (backend === "wasm") loadPeer("@tensorflow/tfjs-backend-wasm"); // registers itself
  tf.enableProdMode();
  const use = async () => {
    if (!(await tf.setBackend(backend))) throw new Error(`bench: the ${backend} backend of tfjs does not start`);
  };
  await use();

  // tfjs wants filters as [H, W, in, out], and is fastest with images as [N, H, W, C]
  const weights = new Map<string, TfTensor>();
  for (const [name, { data, shape }] of state) {
    const given = tf.tensor(data, shape);
    weights.set(name, shape.length === 4 ? given.transpose([2, 3, 1, 0]) : given);
  }
  const weight = (name: string) => {
    const found = weights.get(name);
    if (!found) throw new Error(`bench: expected a state dict with ${name}, got none`);
    return found;
  };
  const has = (name: string) => weights.has(name);

  const conv = (x: TfTensor, name: string, stride: number, pad: number) => {
    const y = tf.conv2d(x, weight(`${name}.weight`), stride, pad, "NHWC", 1, "floor");
    return has(`${name}.bias`) ? tf.add(y, weight(`${name}.bias`)) : y;
  };
  const norm = (x: TfTensor, name: string) => {
    const of = (part: string) => weight(`${name}.${part}`);
    return tf.batchNorm(x, of("running_mean"), of("running_var"), of("bias"), of("weight"), 1e-5);
  };
  const block = (x: TfTensor, name: string, stride: number) => {
    const isBottleneck = has(`${name}.conv3.weight`);
    let y = tf.relu(norm(conv(x, `${name}.conv1`, isBottleneck ? 1 : stride, isBottleneck ? 0 : 1), `${name}.bn1`));
    y = norm(conv(y, `${name}.conv2`, isBottleneck ? stride : 1, 1), `${name}.bn2`);
    if (isBottleneck) y = norm(conv(tf.relu(y), `${name}.conv3`, 1, 0), `${name}.bn3`);
    if (has(`${name}.se.fc1.weight`)) {
      const squeezed = tf.relu(conv(tf.mean(y, [1, 2], true), `${name}.se.fc1`, 1, 0));
      y = tf.mul(y, tf.sigmoid(conv(squeezed, `${name}.se.fc2`, 1, 0)));
    }
    const projected = has(`${name}.downsample.0.weight`);
    const shortcut = projected ? norm(conv(x, `${name}.downsample.0`, stride, 0), `${name}.downsample.1`) : x;
    return tf.relu(tf.add(y, shortcut));
  };

  const hasPool = state.get("conv1.weight")?.shape[2] === 7; // the nets for small images start with a 3x3
  return async ({ data, shape }) => {
    await use();
    const logits = tf.tidy(() => {
      let x = tf.tensor(data, shape).transpose([0, 2, 3, 1]);
      x = tf.relu(norm(conv(x, "conv1", hasPool ? 2 : 1, hasPool ? 3 : 1), "bn1"));
      if (hasPool) x = tf.maxPool(x, 3, 2, 1, "floor");
      for (let stage = 1; has(`layer${stage}.0.conv1.weight`); stage++)
        for (let i = 0; has(`layer${stage}.${i}.conv1.weight`); i++)
          x = block(x, `layer${stage}.${i}`, stage > 1 && i === 0 ? 2 : 1);
      return tf.add(tf.matMul(tf.mean(x, [1, 2]), weight("fc.weight"), false, true), weight("fc.bias"));
    });
    const result = await logits.data();
    logits.dispose();
    return result;
  };
}
