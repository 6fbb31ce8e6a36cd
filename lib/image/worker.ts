import { serve } from "../worker_pool.js";
import type { ImageFile } from "./decode.js";
import { type Prepared, prepareHere, type Recipe } from "./recipe.js";

/** An image to prepare. */
export interface ImageOrder {
  readonly file: ImageFile;
  readonly recipe: Recipe;
}

serve<ImageOrder, Prepared>(async ({ file, recipe }) => {
  const result = await prepareHere(file, recipe);
  return { result, transfer: [result.buffer as ArrayBuffer] };
});
