import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  ArgumentError,
  compile,
  DisposedError,
  ImageClassifier,
  ImageError,
  loadImage,
  ShapeError,
  type Tensor,
  tensor,
} from "seresnet";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { Batcher } from "#lib/classifier/batcher.js";
import { Gate } from "#lib/gate.js";
import { type CheckpointInfo, readCheckpoint, writeCheckpoint } from "#lib/io/checkpoint.js";
import { relativeError } from "./support/compare.js";

const images = join(__dirname, "fixtures/images");
const chelsea = join(images, "chelsea.png");
const rocket = join(images, "rocket.jpg");

let classifier: ImageClassifier;
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-classifier-"));
  classifier = await ImageClassifier.load(undefined, { device: "reference", maxBatch: 8 });
});
afterAll(async () => {
  await classifier.dispose();
  await rm(folder, { recursive: true });
});

describe("classify", () => {
  it("gives one image what the network itself gives, best first", async () => {
    const found = await classifier.classify(chelsea, { topK: 10 });
    await using compiled = await compile(classifier.network, { device: "reference" });
    const logits = await compiled.run(await loadImage(chelsea, classifier.preprocessing));
    const wanted = (await logits.softmax(1).data()) as Float32Array;
    expect(found).toHaveLength(10);
    for (const { index, label, probability } of found) {
      expect(label).toBe(classifier.classes[index]);
      expect(probability).toBeCloseTo(wanted[index], 5);
    }
    const probabilities = found.map(({ probability }) => probability);
    expect(probabilities).toEqual([...probabilities].sort((a, b) => b - a));
  });

  it("takes paths, bytes and tensors, one or several", async () => {
    const [best] = await classifier.classify(chelsea, { topK: 1 });
    const inputs = [chelsea, await readFile(chelsea), await loadImage(chelsea, classifier.preprocessing)];
    const all = await classifier.classify(inputs, { topK: 1 });
    for (const [prediction] of all) {
      expect(prediction.label).toBe(best.label);
      expect(prediction.probability).toBeCloseTo(best.probability, 5);
    }
    expect(await classifier.classify([])).toEqual([]);
  });

  it("keeps a thousand concurrent calls apart, and the event loop free", async () => {
    const shape = [1, 1, 8, 8];
    const { info, weights } = await readCheckpoint(classifier.weights);
    const file = join(folder, "small.safetensors");
    await writeCheckpoint(file, weights, { ...(info as CheckpointInfo), inputSize: [1, 8, 8] });
    await using small = await ImageClassifier.load(file, { device: "reference", maxBatch: 32 });
    const inputs = Array.from({ length: 1000 }, (_, i) =>
      tensor(
        Float32Array.from({ length: 64 }, (_, at) => Math.sin(at * (1 + (i % 17)))),
        shape,
      ),
    );
    const { signal } = new AbortController(); // a thousand listeners on it would be told of as a leak
    let ticks = 0;
    const ticker = setInterval(() => ticks++, 1);
    const found = await Promise.all(inputs.map((input) => small.classify(input, { topK: 1, signal })));
    clearInterval(ticker);
    expect(ticks).toBeGreaterThan(10);
    const alone = await Promise.all(inputs.slice(0, 17).map((input) => small.classify(input, { topK: 1 })));
    for (const [i, [prediction]] of found.entries()) {
      expect(prediction.index).toBe(alone[i % 17][0].index);
      expect(prediction.probability).toBeCloseTo(alone[i % 17][0].probability, 5);
    }
    expect(new Set(alone.map(([{ probability }]) => probability)).size).toBe(17);
  });

  it("says in one sentence what is wrong", async () => {
    await expect(classifier.classify("nowhere.png")).rejects.toThrow(ImageError);
    await expect(classifier.classify([chelsea, "nowhere.png"])).rejects.toThrow(/nowhere\.png: .*got no such file/);
    await expect(classifier.classify(tensor([1], [1, 1, 1, 1]))).rejects.toThrow(ShapeError);
    await expect(classifier.classify(chelsea, { topK: 0 })).rejects.toThrow(ArgumentError);
    await expect(classifier.classify(chelsea, { signal: "no" as never })).rejects.toThrow(/AbortSignal/);
    await expect(ImageClassifier.load(undefined, { maxBatch: 0 })).rejects.toThrow(/maxBatch/);
    await expect(ImageClassifier.load(undefined, { maxDelayMs: -1 })).rejects.toThrow(/maxDelayMs/);
    await expect(ImageClassifier.load(7 as never)).rejects.toThrow(/source/);
  });

  it("gives up when its signal says so, before and after it has started", async () => {
    const reason = new Error("enough");
    await expect(classifier.classify(chelsea, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    const controller = new AbortController();
    const calls = Array.from({ length: 100 }, () => classifier.classify(rocket, { signal: controller.signal }));
    setTimeout(() => controller.abort(reason), 5);
    const outcomes = await Promise.allSettled(calls);
    const rejected = outcomes.filter((outcome) => outcome.status === "rejected");
    expect(rejected.length).toBeGreaterThan(0);
    for (const outcome of rejected) expect(outcome.reason).toBe(reason);
    expect(await classifier.classify(rocket)).toHaveLength(5); // nothing is stuck
  });
});

describe("embed", () => {
  it("gives the mean of the last features", async () => {
    const found = await classifier.embed(chelsea);
    const x = await loadImage(chelsea, classifier.preprocessing);
    const last = classifier.network.features(x).at(-1) as Tensor;
    const wanted = (await last.mean([2, 3]).data()) as Float32Array;
    expect(found).toHaveLength(64);
    expect(relativeError(found, wanted)).toBeLessThan(1e-5);
    const [same, other] = await classifier.embed([chelsea, rocket]);
    expect(relativeError(same, found)).toBeLessThan(1e-6);
    expect(relativeError(other, found)).toBeGreaterThan(1e-3);
    expect(found.buffer.byteLength).toBe(found.byteLength);
  });
});

describe("classifyEach", () => {
  it("keeps the order of any list or stream, and goes on past an image that cannot be read", async () => {
    async function* stream() {
      for (let i = 0; i < 40; i++) yield i % 10 === 3 ? `missing${i}.png` : i % 2 === 0 ? chelsea : rocket;
    }
    const results = [];
    for await (const result of classifier.classifyEach(stream(), { topK: 1 })) results.push(result);
    expect(results).toHaveLength(40);
    for (const [i, result] of results.entries()) {
      expect("error" in result).toBe(i % 10 === 3);
      expect(result.image).toBe(i % 10 === 3 ? `missing${i}.png` : i % 2 === 0 ? chelsea : rocket);
    }
  });

  it("answers a slow stream image by image, and takes no more ahead than fits the queue", async () => {
    await using small = await ImageClassifier.load(undefined, { device: "reference", maxBatch: 2, maxQueue: 3 });
    let taken = 0;
    let answered = 0;
    let most = 0;
    function* pictures() {
      for (; taken < 20; taken++) {
        most = Math.max(most, taken - answered);
        yield chelsea;
      }
    }
    for await (const _ of small.classifyEach(pictures())) answered++;
    expect([taken, answered]).toEqual([20, 20]);
    expect(most).toBeLessThanOrEqual(4); // the queue and the one that knocks

    let release: () => void = () => {};
    async function* slow() {
      yield chelsea;
      await new Promise<void>((resolve) => {
        release = resolve;
      });
      yield rocket;
    }
    const results = small.classifyEach(slow());
    expect((await results.next()).done).toBe(false); // before the second image exists
    release();
    expect((await results.next()).value?.image).toBe(rocket);
    expect((await results.next()).done).toBe(true);
  });

  it("closes the source when the loop is left, and passes on what the source throws", async () => {
    let closed = false;
    function* endless() {
      try {
        while (true) yield chelsea;
      } finally {
        closed = true;
      }
    }
    for await (const _ of classifier.classifyEach(endless())) break;
    expect(closed).toBe(true);
    async function* broken() {
      yield chelsea;
      throw new Error("the camera is gone");
    }
    const drain = async () => {
      for await (const _ of classifier.classifyEach(broken()));
    };
    await expect(drain()).rejects.toThrow("the camera is gone");
    await expect(classifier.classifyEach(5 as never).next()).rejects.toThrow(ArgumentError);
  });
});

describe("dispose", () => {
  it("waits for the images of a call that has failed: none of them comes to a device that is gone", async () => {
    const own = await ImageClassifier.load(undefined, { device: "reference" });
    const compiling = vi.spyOn(createRequire(__filename)("#lib/compile/compile.js"), "compile");
    await expect(own.embed([join(images, "missing.png"), chelsea, rocket])).rejects.toThrow(ImageError);
    await own.dispose();
    const before = compiling.mock.calls.length;
    await Promise.all([loadImage(chelsea), loadImage(rocket)]); // longer than what was left would take
    expect([before, compiling.mock.calls.length]).toEqual([1, 1]);
    compiling.mockRestore();
  });

  it("lets the calls under way finish and refuses later ones", async () => {
    const own = await ImageClassifier.load(undefined, { device: "reference" });
    const under = [own.classify(chelsea), own.embed(rocket)];
    await own.dispose();
    await own.dispose();
    expect((await Promise.all(under)).map((result) => result.length)).toEqual([5, 64]);
    await expect(own.classify(chelsea)).rejects.toThrow(DisposedError);
  });
});

describe("Batcher", () => {
  /** A batcher that notes its batches and computes for `milliseconds`. */
  function noting(maxBatch: number, maxDelayMs: number, milliseconds = 1) {
    const batches: number[][] = [];
    const batcher = new Batcher<number, number>(
      async (items) => {
        batches.push(items);
        await new Promise((resolve) => setTimeout(resolve, milliseconds));
        if (items.includes(13)) throw new Error("unlucky");
        return items.map((item) => item * 2);
      },
      { maxBatch, maxDelayMs },
    );
    return { batches, batcher };
  }
  const upTo = (count: number) => Array.from({ length: count }, (_, i) => i);

  it("makes full batches and then powers of two, first come first served", async () => {
    const { batches, batcher } = noting(5, 2);
    const results = await Promise.all(upTo(13).map((i) => batcher.submit(i)));
    expect(results).toEqual(upTo(13).map((i) => i * 2));
    expect(batches).toEqual([upTo(5), [5, 6, 7, 8, 9], [10, 11], [12]]);
  });

  it("runs a thousand calls in as many batches as somebody would who cut them by hand", async () => {
    const { batches, batcher } = noting(32, 5);
    expect(await Promise.all(upTo(1000).map((i) => batcher.submit(i + 100)))).toEqual(
      upTo(1000).map((i) => 2 * i + 200),
    );
    expect(batches.map(({ length }) => length)).toEqual([...Array<number>(31).fill(32), 8]);
  });

  it("waits for others no longer than the delay, and merges what comes while a batch runs", async () => {
    const { batches, batcher } = noting(4, 5, 30);
    const first = batcher.submit(1);
    await new Promise((resolve) => setTimeout(resolve, 15));
    const more = [batcher.submit(2), batcher.submit(3)];
    await Promise.all([first, ...more]);
    expect(batches).toEqual([[1], [2, 3]]);
  });

  it("fails all of a batch and nobody else, and goes on", async () => {
    const { batcher } = noting(2, 1);
    const outcomes = await Promise.allSettled([12, 13, 14, 15].map((i) => batcher.submit(i)));
    expect(outcomes.map(({ status }) => status)).toEqual(["rejected", "rejected", "fulfilled", "fulfilled"]);
    expect(await batcher.submit(4)).toBe(8);
  });

  it("drops what is aborted before it starts", async () => {
    const { batches, batcher } = noting(4, 1, 10);
    const controller = new AbortController();
    const calls = [batcher.submit(1), batcher.submit(2, controller.signal), batcher.submit(3)];
    controller.abort("no more");
    await expect(calls[1]).rejects.toBe("no more");
    expect(await Promise.all([calls[0], calls[2]])).toEqual([2, 6]);
    expect(batches).toEqual([[1, 3]]);
  });
});

describe("Gate", () => {
  it("lets as many in as there is room for, in order, and forgets who gave up", async () => {
    const gate = new Gate(1);
    const inside: string[] = [];
    const enter = (name: string, signal?: AbortSignal) => gate.enter(signal).then(() => inside.push(name));
    await enter("a");
    const controller = new AbortController();
    const quitter = enter("b", controller.signal);
    const patient = enter("c");
    controller.abort("tired");
    await expect(quitter).rejects.toBe("tired");
    expect(inside).toEqual(["a"]);
    gate.leave();
    await patient;
    expect(inside).toEqual(["a", "c"]);
    gate.leave();
    await enter("d");
  });
});
