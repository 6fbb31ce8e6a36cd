import { sizeOf } from "../../../shape.js";
import { floats, type Kernel, mergeDims, offsetOf, stridesOf, type Task } from "./kernel.js";

/** The kept and the reduced dims of a reduction, each with its strides in the input. */
function split({ inputs: [x], attributes }: Task) {
  const dims = new Set(attributes.dims as readonly number[]);
  const strides = stridesOf(x.shape);
  const pick = (reduced: boolean) => {
    const picked = [...x.shape.keys()].filter((dim) => dims.has(dim) === reduced);
    const merged = mergeDims(
      picked.map((dim) => x.shape[dim]),
      [picked.map((dim) => strides[dim])],
    );
    return { shape: merged.shape, strides: merged.strides[0] };
  };
  return { kept: pick(false), reduced: pick(true) };
}

function reduceFloats(task: Task, share: Parameters<Kernel>[1], divide: boolean): void {
  const { kept, reduced } = split(task);
  const from = floats(task.inputs[0]);
  const out = task.outputs[0].data;
  const count = sizeOf(reduced.shape);
  const length = reduced.shape.at(-1) ?? 1;
  const step = reduced.strides.at(-1) ?? 0;
  const [first, last] = share(out.length);
  for (let index = first; index < last; index++) {
    const start = offsetOf(index, kept.shape, kept.strides);
    let sum = 0;
    for (let row = 0; row < count; row += length) {
      const at = start + offsetOf(row, reduced.shape, reduced.strides);
      for (let k = 0; k < length; k++) sum += from[at + k * step];
    }
    if (out instanceof BigInt64Array) out[index] = BigInt(sum);
    else out[index] = divide ? sum / count : sum;
  }
}

function sumBigInts(task: Task, share: Parameters<Kernel>[1]): void {
  const { kept, reduced } = split(task);
  const from = task.inputs[0].data as BigInt64Array;
  const out = task.outputs[0].data;
  const count = sizeOf(reduced.shape);
  const [first, last] = share(out.length);
  for (let index = first; index < last; index++) {
    const start = offsetOf(index, kept.shape, kept.strides);
    let sum = 0n;
    for (let k = 0; k < count; k++) sum += from[start + offsetOf(k, reduced.shape, reduced.strides)];
    if (out instanceof BigInt64Array) out[index] = sum;
    else out[index] = Number(sum);
  }
}

/** Sums over `dims`; whether they are kept with extent 1 only shows in the output's shape. */
export const sum: Kernel = (task, share) =>
  task.inputs[0].dtype === "int64" ? sumBigInts(task, share) : reduceFloats(task, share, false);

export const mean: Kernel = (task, share) => reduceFloats(task, share, true);
