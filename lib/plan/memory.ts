import { hostBytes } from "../dtype.js";
import { sizeOf } from "../shape.js";
import type { Plan } from "./plan.js";

/** Where the slots of a plan live while it runs. */
export interface MemoryPlan {
  /** For each slot, the slot whose storage it uses: itself, or the input of the reshape that made it. */
  readonly roots: readonly number[];
  /** For each slot, its byte offset in the arena; -1 where the root is a constant or a variable, which bring their own storage. */
  readonly offsets: readonly number[];
  /** Bytes of the arena. */
  readonly bytes: number;
}

/** Blocks start on cache lines, so that two threads never write to the same one from two slots. */
const alignment = 64;

interface Block {
  readonly root: number;
  readonly bytes: number;
  first: number;
  last: number;
  offset: number;
}

/**
 * Gives every input and every computed slot a place in one arena, so that slots whose lifetimes do not meet share memory.
 * Inputs live from before the first step, outputs and written slots until after the last; a reshape shares its input's
 * storage. Largest blocks first, each at the lowest offset that is free during its whole life.
 */
export function planMemory(plan: Plan): MemoryPlan {
  const roots = plan.slots.map((_, slot) => slot);
  for (const { op, inputs, outputs } of plan.steps) if (op === "reshape") roots[outputs[0]] = roots[inputs[0]];

  const external = new Set([...plan.constants, ...plan.variables]);
  const blocks = new Map<number, Block>();
  const touch = (slot: number, time: number) => {
    const root = roots[slot];
    if (external.has(root)) return;
    const block = blocks.get(root);
    if (block) {
      block.first = Math.min(block.first, time);
      block.last = Math.max(block.last, time);
      return;
    }
    const { shape, dtype } = plan.slots[root];
    const bytes = Math.ceil((sizeOf(shape) * hostBytes(dtype)) / alignment) * alignment;
    blocks.set(root, { root, bytes, first: time, last: time, offset: 0 });
  };
  for (const slot of plan.inputs) touch(slot, -1);
  for (const [time, step] of plan.steps.entries())
    for (const slot of [...step.inputs, ...step.outputs]) touch(slot, time);
  for (const slot of [...plan.outputs, ...plan.written]) touch(slot, plan.steps.length);

  const placed: Block[] = []; // in order of offset
  let bytes = 0;
  for (const block of [...blocks.values()].sort((a, b) => b.bytes - a.bytes || a.first - b.first)) {
    for (const other of placed) {
      if (other.last < block.first || block.last < other.first) continue;
      if (block.offset + block.bytes <= other.offset) break;
      block.offset = Math.max(block.offset, other.offset + other.bytes);
    }
    const place = placed.findIndex((other) => other.offset > block.offset);
    placed.splice(place < 0 ? placed.length : place, 0, block);
    bytes = Math.max(bytes, block.offset + block.bytes);
  }
  return { roots, offsets: roots.map((root) => blocks.get(root)?.offset ?? -1), bytes };
}
