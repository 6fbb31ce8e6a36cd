import { shipLogits } from "./cuda.js";

/*
 * What the reference says of the benchmark's networks, for a machine whose time is dear:
 *   node dist/bench/ship_logits.js cuda|cuda-sim FOLDER MODEL…
 */
const [device, folder, ...models] = process.argv.slice(2);
shipLogits(device as "cuda" | "cuda-sim", models, folder).catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
});
