import type { Tensor } from "../tensor.js";

/** Why a tensor of a file was not read, by its name. */
export type Unread = ReadonlyMap<string, string>;

const notes = new WeakMap<object, Unread>();

/** `record`, with a note of the tensors that the file has beside it and we cannot hold: they are named where they are missed. */
export function withUnread(record: Record<string, Tensor>, unread: Unread): Record<string, Tensor> {
  if (unread.size > 0) notes.set(record, unread);
  return record;
}

/** What was noted of a record that a file was read into. */
export function unreadOf(record: object): Unread {
  return notes.get(record) ?? new Map();
}
