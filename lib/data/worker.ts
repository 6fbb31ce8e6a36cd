import { workerData } from "node:worker_threads";
import { imageBudget, prepareOnThisThread } from "../image/prepare.js";
import { serve } from "../worker_pool.js";
import { type BatchRecipe, type MadeBatch, makeBatch } from "./make_batch.js";

/** A batch to make. */
export interface BatchOrder {
  readonly epoch: number;
  readonly indices: Uint32Array;
}

/** What a worker thread that makes batches is handed once. */
export interface BatchWorkerData {
  readonly recipe: BatchRecipe;
  /** The budget of decoded bytes, which all threads share. */
  readonly budget: SharedArrayBuffer;
}

const { recipe, budget } = workerData as BatchWorkerData;
imageBudget.share(budget);
prepareOnThisThread();

serve<BatchOrder, MadeBatch>(async ({ epoch, indices }) => {
  const result = await makeBatch(recipe, epoch, indices);
  return { result, transfer: [result.pixels.buffer as ArrayBuffer] };
});
