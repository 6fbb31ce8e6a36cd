import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createModel, exportOnnx, listModels, setDefaultDevice } from "seresnet";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { relativeError } from "./support/compare.js";
import { OnnxChecker, onnxRuntime, runOnnx } from "./support/onnx.js";
import { fill, image } from "./support/weights.js";

/*
 * Every model of the zoo, with the fixtures' weights at a small input: the ONNX checker takes its file, and onnxruntime
 * gives the reference's logits. The deepest, which repeat the blocks of the others, take most of the time: CI runs them,
 * with SERESNET_TEST_ONNX=all. What options and single ops become is in onnx.test.ts.
 */

const ort = onnxRuntime();
const checker = OnnxChecker.open();

const deepest = /(101|152)$/;
const all = process.env.SERESNET_TEST_ONNX === "all";
const models = listModels().filter((name) => all || !deepest.test(name));
if (!all) console.warn("LEFT OUT networks of 101 and 152 layers in onnxruntime (SERESNET_TEST_ONNX=all runs them)");

/** The largest errors found, for the log. */
const worst = { relative: 0, absolute: 0 };
let folder: string;

beforeAll(async () => {
  setDefaultDevice("reference");
  folder = await mkdtemp(join(tmpdir(), "seresnet-onnx-zoo-"));
});
afterAll(async () => {
  await checker?.close();
  await rm(folder, { recursive: true, force: true });
  const [relative, absolute] = [worst.relative, worst.absolute].map((error) => error.toExponential(1));
  console.log(`onnx_zoo.test: onnxruntime is at most ${relative} off relatively, ${absolute} absolutely`);
});

describe.runIf(ort || checker)("every model of the zoo", () => {
  it.each(models)("%s", async (name) => {
    const model = fill(createModel(name), `atlas/${name}`).eval();
    const side = name.endsWith("_cifar") ? 32 : 64;
    const shape = [1, 3, side, side];
    const path = join(folder, "model.onnx");
    await exportOnnx(model, path, { inputShape: shape });
    if (checker) expect(await checker.check(path)).toBe("accepted");
    if (ort) {
      const x = image(`atlas/${name}/x`, shape);
      const output = await runOnnx(ort, path, "float32", (await x.data()) as Float32Array, shape);
      const logits = (await model.forward(x).data()) as Float32Array;
      const error = relativeError(output.data, logits);
      worst.relative = Math.max(worst.relative, error);
      worst.absolute = logits.reduce(
        (most, logit, i) => Math.max(most, Math.abs(logit - output.data[i])),
        worst.absolute,
      );
      expect(error).toBeLessThan(1e-5); // 1e-4 is what we promise
    }
    await rm(path);
  });
});
