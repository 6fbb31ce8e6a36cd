import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { loadWeights, type Tensor, WeightsError } from "seresnet";
import { expect } from "vitest";

/** Name, dtype, shape and values of every tensor, sorted by name. */
export async function contents(weights: Record<string, Tensor>) {
  const names = Object.keys(weights).sort();
  return Promise.all(
    names.map(async (name) => [name, weights[name].dtype, weights[name].shape, await weights[name].data()]),
  );
}

export async function rejection(promise: Promise<unknown>): Promise<WeightsError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(WeightsError);
  return error as WeightsError;
}

/** The one sentence that `bytes` are refused with, read as a file. */
export async function refusal(folder: string, bytes: Uint8Array, name = "bad.pth"): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, bytes);
  const { message } = await rejection(loadWeights(path));
  expect(message.startsWith(`${path}: expected `) || message.startsWith(`${path}: entry `)).toBe(true);
  expect(message).toMatch(/^[^\n]+: expected [^\n]+, got [^\n]+$/);
  expect(message.length - path.length).toBeLessThan(400);
  return message;
}
