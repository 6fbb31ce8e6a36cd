import { parentPort, workerData } from "node:worker_threads";
import { type BatchRecipe, type MadeBatch, makeBatch } from "./make_batch.js";

/** A batch to make. */
export interface BatchOrder {
  readonly id: number;
  readonly epoch: number;
  readonly indices: Uint32Array;
}

export interface BatchAnswer {
  readonly id: number;
  readonly batch?: MadeBatch;
  /** What went wrong, when something other than a picture did. */
  readonly failure?: string;
}

const recipe = workerData as BatchRecipe;

parentPort?.on("message", async ({ id, epoch, indices }: BatchOrder) => {
  let answer: BatchAnswer;
  try {
    answer = { id, batch: await makeBatch(recipe, epoch, indices) };
  } catch (error) {
    answer = { id, failure: error instanceof Error ? error.message : String(error) };
  }
  parentPort?.postMessage(answer, answer.batch ? [answer.batch.pixels.buffer as ArrayBuffer] : []);
});
