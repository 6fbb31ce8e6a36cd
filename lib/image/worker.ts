import { serve } from "../worker_pool.js";
import { prepareOnThisThread, prepareOpened } from "./prepare.js";
import type { ImageOrder, Prepared } from "./recipe.js";

prepareOnThisThread();

serve<ImageOrder, Prepared>(async ({ file, recipe }) => {
  const prepared = await prepareOpened(file, recipe);
  // what is as large as this may be the addon's memory, which stays in its thread
  const result = prepared.byteLength < 2 ** 20 ? prepared : prepared.slice();
  return { result, transfer: [result.buffer as ArrayBuffer] };
});
