import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { deflateRawSync } from "node:zlib";
import { createModel, ImageClassifier, saveSafetensors } from "seresnet";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { fetchFromHub } from "#lib/io/hub/hub.js";
import { Hub } from "./support/hub.js";
import { bytesOf, dictPickle, tensorOps, text, torchFile, tuple, zipFile } from "./support/torch_writer.js";
import { rejection } from "./support/weights_files.js";

/*
 * The bad weights that people meet, as a user of the classifier meets them: one sentence each, word for word; nothing of
 * a file is run, nothing half-written is left. Every other kind of damage is in torch_hostile, torch_files, safetensors
 * and hub.test.ts.
 */

const fixtures = join(__dirname, "fixtures/torch");
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-bad-"));
});
afterAll(() => rm(folder, { recursive: true }));

/** The whole message, less the path it begins with. */
async function sentence(source: string, model = "resnet14_cifar"): Promise<string> {
  const { message } = await rejection(ImageClassifier.load(source, { model, device: "reference" }));
  expect(message.startsWith(`${source}: `)).toBe(true);
  return message.slice(source.length + 2);
}

async function sentenceFor(name: string, bytes: Uint8Array): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, bytes);
  return sentence(path);
}

describe("files", () => {
  const pickle = { name: "a/data.pkl", data: dictPickle({ w: tensorOps() }) };
  const wanted = "expected a state dict (torch.save(model.state_dict(), path) writes one), got";

  it("a pickle that imports os: it is refused by name, and nothing runs", async () => {
    const mark = join(folder, "mark");
    for (const command of [
      bytesOf("cos\nsystem\n", tuple(text(`touch ${mark}`)), "R"),
      bytesOf("csubprocess\ncheck_output\n", tuple(bytesOf("]", text("touch"), "a", text(mark), "a")), "R"),
    ]) {
      const evil = dictPickle({ a: command, w: tensorOps() });
      const name = /c(\w+)\n(\w+)/.exec(command.toString("latin1"))?.slice(1).join(".");
      for (const bytes of [torchFile(evil), evil])
        expect(await sentenceFor("evil.pth", bytes)).toBe(
          `expected a state dict of tensors, got a pickle that asks for ${name}, which a weights file has no use for`,
        );
    }
    expect(await readdir(folder)).not.toContain("mark");
  });

  it("a zip bomb: nothing is unpacked", async () => {
    const bomb = { name: "a/data/0", data: deflateRawSync(Buffer.alloc(1e8)), method: 8, size: 2 ** 32 - 2 };
    const file = zipFile([pickle, bomb]);
    const before = process.memoryUsage().arrayBuffers;
    expect(await sentenceFor("bomb.pth", file)).toBe(
      'entry "a/data/0": expected to be stored as it is, as torch.save does, got deflated bytes, 4294967294 of them when unpacked',
    );
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(5e7);
  });

  it("a deflated entry", async () => {
    const packed = { ...pickle, data: deflateRawSync(pickle.data), method: 8, size: pickle.data.length };
    expect(await sentenceFor("deflated.pth", zipFile([packed]))).toBe(
      `entry "a/data.pkl": expected to be stored as it is, as torch.save does, got deflated bytes, ${pickle.data.length} of them when unpacked`,
    );
  });

  it("a whole module: how to save a state dict instead", async () => {
    expect(await sentence(join(fixtures, "module.pth"))).toBe(
      `${wanted} a whole module that asks for torch.nn.modules.container.Sequential`,
    );
    expect(await sentence(join(fixtures, "module_legacy.pth"))).toBe(
      `${wanted} a whole module that asks for __main__.Net`,
    );
  });

  it("a file without any tensor", async () => {
    expect(await sentence(join(fixtures, "no_tensors.pth"))).toBe(
      'expected a state dict with at least one tensor, got a dict of "epoch", "arch", "lr"',
    );
    const path = join(folder, "none.safetensors");
    await saveSafetensors(path, {});
    expect(await sentence(path)).toBe("expected at least one tensor, got none");
  });

  it("half a file", async () => {
    const whole = await readFile(join(fixtures, "training.pth"));
    expect(await sentenceFor("half.pth", whole.subarray(0, whole.length / 2))).toBe(
      "expected a zip file that ends with its table of contents, got a truncated or damaged file",
    );
    const safe = await readFile(join(fixtures, "training.safetensors"));
    expect(await sentenceFor("half.safetensors", safe.subarray(0, safe.length - 4))).toMatch(
      /^expected tensor "\S+" to end within the \d+ bytes of data, got bytes \d+ to \d+$/,
    );
  });

  it("weights of another architecture: which of ours they fit best", async () => {
    const path = join(folder, "other.safetensors");
    await saveSafetensors(path, createModel("seresnet14_cifar", { numClasses: 7 }).stateDict());
    expect(await sentence(path)).toBe(
      "the weights are not those of resnet14_cifar (they fit seresnet14_cifar best: 101 of 101 tensors): " +
        "unexpected layer1.0.se.fc1.bias, layer1.0.se.fc1.weight, layer1.0.se.fc2.bias, layer1.0.se.fc2.weight, " +
        "layer1.1.se.fc1.bias and 19 more",
    );
  });
});

describe("a hub", () => {
  const source = "hf:me/net";
  let hub: Hub;
  let home: string;
  const before = ["HF_HOME", "HF_ENDPOINT", "HF_TOKEN", "HF_HUB_CACHE"].map(
    (name) => [name, process.env[name]] as const,
  );
  beforeEach(async () => {
    hub = await Hub.open();
    hub.files.set("model.safetensors", await readFile(join(fixtures, "training.safetensors")));
    home = await mkdtemp(join(folder, "hub-"));
    for (const [name] of before) delete process.env[name];
    process.env.HF_HOME = home;
    process.env.HF_ENDPOINT = hub.url;
  });
  afterEach(async () => {
    await hub.close();
    for (const [name, value] of before)
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
  });

  const size = 692;
  it.each<[string, RegExp, object, string]>([
    [
      "401",
      /^\/api/,
      { status: 401 },
      "expected weights on the hub, got no access (401): no such model, or one that asks for a token in HF_TOKEN",
    ],
    ["404", /^\/api/, { status: 404 }, "expected weights on the hub, got no such model or revision (404)"],
    [
      "404 for the file alone",
      /resolve/,
      { status: 404 },
      `expected ${size} bytes of model.safetensors, got an answer of status 404`,
    ],
    [
      "302 to nowhere",
      /resolve/,
      { location: "/nowhere" },
      `expected ${size} bytes of model.safetensors, got an answer of status 404`,
    ],
    [
      "garbage for its JSON",
      /^\/api/,
      { body: "<html>hotel</html>" },
      "expected weights on the hub, got an answer that is not the hub's JSON",
    ],
    [
      "garbage for the file",
      /cdn/,
      { body: "<html>" },
      `expected ${size} bytes of model.safetensors, got 6 (run it again to go on)`,
    ],
    [
      "garbage of the right size",
      /cdn/,
      { body: "x".repeat(size) },
      "expected model.safetensors with the hub's checksum CHECKSUM, got other bytes",
    ],
  ])("that answers %s", async (_, where, fault, wanted) => {
    hub.faults.set(where, fault);
    expect((await sentence(source)).replace(/[0-9a-f]{64}/, "CHECKSUM")).toBe(wanted);
    const whole = (await readdir(home, { recursive: true })).filter((name) =>
      /[0-9a-f]{64}$|safetensors$|refs/.test(name),
    );
    expect(whole).toEqual([]);
  });

  it("that breaks off: the next try goes on", async () => {
    hub.faults.set(/cdn/, { cutAfter: 100 });
    expect(await sentence(source)).toMatch(/^expected 692 bytes of model\.safetensors, got \d+, then: \S.*$/);
    hub.faults.clear();
    const file = await fetchFromHub(source);
    expect((await readFile(file)).equals(hub.files.get("model.safetensors") as Buffer)).toBe(true);
    expect(hub.requests.at(-1)).toMatch(/model\.safetensors bytes=[1-9]\d*-691$/);
  });
});
