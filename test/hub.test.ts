import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, readlink, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { ImageClassifier, loadWeights, saveSafetensors, WeightsError } from "seresnet";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readCheckpoint } from "#lib/io/checkpoint.js";
import { fetchFromHub } from "#lib/io/hub/hub.js";
import type { DownloadProgress } from "#lib/io/hub/options.js";
import { Hub } from "./support/hub.js";

const root = join(__dirname, "..");
const shipped = join(root, "models/weights/seresnet20_cifar_fashion.safetensors");
const chelsea = join(root, "test/fixtures/images/chelsea.png");
const variables = ["HF_HOME", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"];

let hub: Hub;
let home: string;
let before: Map<string, string | undefined>;

beforeEach(async () => {
  before = new Map(variables.map((name) => [name, process.env[name]]));
  for (const name of variables) delete process.env[name];
  hub = await Hub.open();
  home = await mkdtemp(join(tmpdir(), "seresnet-hub-"));
  process.env.HF_HOME = home;
  process.env.HF_ENDPOINT = `${hub.url}/`;
  hub.files.set("model.safetensors", await foreign());
  hub.files.set("config.json", Buffer.from(JSON.stringify(timmConfig)));
});

afterEach(async () => {
  await hub.close();
  await rm(home, { recursive: true, force: true });
  for (const [name, value] of before)
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
});

const timmConfig = {
  architecture: "seresnet20_cifar",
  num_classes: 10,
  label_names: "abcdefghij".split(""),
  pretrained_cfg: { input_size: [1, 28, 28], mean: [0.286], std: [0.353], interpolation: "bilinear", crop_pct: 1 },
};

/** The shipped weights without our metadata, as another program would save them. */
async function foreign(): Promise<Buffer> {
  const folder = await mkdtemp(join(tmpdir(), "seresnet-foreign-"));
  await saveSafetensors(join(folder, "a.safetensors"), (await readCheckpoint(shipped)).weights);
  const bytes = await readFile(join(folder, "a.safetensors"));
  await rm(folder, { recursive: true });
  return bytes;
}

const storage = () => join(home, "hub", "models--me--net");
/** Whatever is in the cache under the name of a whole file: nothing after a failure. */
const wholeFiles = async () =>
  (await readdir(join(storage(), "blobs")).catch(() => [])).filter((name) => !name.endsWith(".incomplete"));
const fileRequests = () => hub.requests.filter((request) => request.includes("/cdn/model.safetensors"));

async function complaint(source = "hf:me/net"): Promise<string> {
  const error = await fetchFromHub(source).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(WeightsError);
  const { message } = error as Error;
  expect(message.startsWith(`${source}: expected `)).toBe(true);
  expect(message).not.toContain("\n");
  return message;
}

describe("weights from the hub", () => {
  it("come into Python's cache layout, with their config, and classify", async () => {
    const progress: DownloadProgress[] = [];
    await using classifier = await ImageClassifier.load("hf:me/net", {
      device: "reference",
      onProgress: (step) => progress.push(step),
    });
    await using local = await ImageClassifier.load(undefined, { device: "reference" });
    expect(classifier.classes).toEqual(timmConfig.label_names);
    const [[here], [there]] = await Promise.all([classifier.classify(chelsea), local.classify(chelsea)]);
    expect(here.index).toBe(there.index);

    expect(await readFile(join(storage(), "refs", "main"), "utf8")).toBe(hub.commit);
    const link = await readlink(join(storage(), "snapshots", hub.commit, "model.safetensors"));
    expect(link).toMatch(/^\.\.\/\.\.\/blobs\/[0-9a-f]{64}$/);
    expect(await readlink(join(storage(), "snapshots", hub.commit, "config.json"))).toMatch(/blobs\/[0-9a-f]{40}$/);
    const size = hub.files.get("model.safetensors")?.length;
    expect(progress.at(-1)).toEqual({ file: "model.safetensors", received: size, total: size });
  });

  it("are downloaded once; a commit needs no network at all, nor does offline mode", async () => {
    const first = await fetchFromHub("hf:me/net");
    expect(await fetchFromHub("hf:me/net")).toBe(first);
    expect(fileRequests()).toHaveLength(1);
    expect(Object.keys(await loadWeights("hf:me/net"))).toEqual(Object.keys(await loadWeights(first)));
    hub.requests.length = 0;
    expect(await fetchFromHub(`hf:me/net@${hub.commit}`)).toBe(first);
    process.env.HF_HUB_OFFLINE = "1";
    expect(await fetchFromHub("hf:me/net")).toBe(first);
    expect(await complaint("hf:me/net@v2")).toMatch(/expected a copy in .* while HF_HUB_OFFLINE is set, got none/);
    expect(await complaint("hf:me/other")).toMatch(/HF_HUB_OFFLINE/);
    expect(hub.requests).toEqual([]);
  });

  it("are found in a cache that Python filled", async () => {
    const first = await fetchFromHub("hf:me/net@v2");
    expect(await readFile(join(storage(), "refs", "v2"), "utf8")).toBe(hub.commit);
    await rm(join(storage(), "refs"), { recursive: true });
    process.env.HF_HUB_CACHE = join(home, "hub");
    delete process.env.HF_HOME;
    expect(await fetchFromHub(`hf:me/net@${hub.commit}`)).toBe(first);
  });

  it("may be sharded", async () => {
    const { weights } = await readCheckpoint(shipped);
    const names = Object.keys(weights);
    const shards = { "a.safetensors": names.slice(0, 20), "b.safetensors": names.slice(20) };
    for (const [shard, part] of Object.entries(shards)) {
      const path = join(home, shard);
      await saveSafetensors(path, Object.fromEntries(part.map((name) => [name, weights[name]])));
      hub.files.set(shard, await readFile(path));
    }
    const map = Object.fromEntries(
      Object.entries(shards).flatMap(([shard, part]) => part.map((name) => [name, shard])),
    );
    hub.files.set("model.safetensors.index.json", Buffer.from(JSON.stringify({ weight_map: map })));
    hub.files.delete("model.safetensors");
    expect(Object.keys(await loadWeights(await fetchFromHub("hf:me/net"))).sort()).toEqual([...names].sort());
    process.env.HF_HUB_OFFLINE = "yes";
    expect(await fetchFromHub("hf:me/net")).toMatch(/index\.json$/);
  });

  it("go on where a download broke off", async () => {
    const size = hub.files.get("model.safetensors")?.length ?? 0;
    hub.faults.set(/cdn\/model/, { cutAfter: 300_000 });
    expect(await complaint()).toMatch(new RegExp(`expected ${size} bytes of model.safetensors, got \\d+`));
    expect(await wholeFiles()).toHaveLength(1); // the config
    hub.faults.clear();
    await fetchFromHub("hf:me/net");
    expect(fileRequests()[1]).toMatch(/ bytes=[1-9]\d*-\d+$/);
    expect(Object.keys(await loadWeights(await fetchFromHub("hf:me/net"))).length).toBeGreaterThan(100);
  });

  it("start over at a server without ranges", async () => {
    hub.faults.set(/cdn\/model/, { cutAfter: 300_000 });
    await complaint();
    hub.faults.clear();
    hub.faults.set(/cdn\/model/, { ignoresRanges: true });
    await fetchFromHub("hf:me/net");
  });

  it("start over after a first part that was wrong", async () => {
    await fetchFromHub("hf:me/net");
    const [name] = (await wholeFiles()).filter((blob) => blob.length === 64);
    await rm(storage(), { recursive: true });
    await mkdir(join(storage(), "blobs"), { recursive: true });
    await writeFile(join(storage(), "blobs", `${name}.incomplete`), Buffer.alloc(1000, 7));
    const found = await readFile(await fetchFromHub("hf:me/net"));
    expect(found.equals(hub.files.get("model.safetensors") as Buffer)).toBe(true);
  });

  it("are downloaded once by processes that want them at the same time", async () => {
    hub.faults.set(/cdn\/model/, { pauses: 500 });
    const program = `require("./dist/lib/io/hub/hub.js").fetchFromHub("hf:me/net").then(console.log)`;
    const fetching = () => promisify(execFile)(process.execPath, ["-e", program], { cwd: root });
    const answers = await Promise.all([fetching(), fetching(), fetching(), fetchFromHub("hf:me/net")]);
    const paths = answers.map((answer) => (typeof answer === "string" ? answer : answer.stdout.trim()));
    expect(new Set(paths).size).toBe(1);
    expect((await readFile(paths[0])).equals(hub.files.get("model.safetensors") as Buffer)).toBe(true);
    expect(fileRequests()).toHaveLength(1);
    expect((await readdir(join(storage(), "blobs"))).filter((name) => /lock|incomplete/.test(name))).toEqual([]);
  });

  it.each([
    ["long ago", new Date(0)],
    ["in the future, by another machine's clock", new Date(Date.now() + 86_400_000)],
  ])("do not wait for a process that is gone, whose lock was touched %s", async (_, touched) => {
    await fetchFromHub("hf:me/net");
    const [name] = (await wholeFiles()).filter((blob) => blob.length === 64);
    await rm(storage(), { recursive: true });
    await mkdir(join(storage(), "blobs"), { recursive: true });
    const lock = join(storage(), "blobs", `${name}.lock`);
    await writeFile(lock, "");
    await utimes(lock, touched, touched);
    await fetchFromHub("hf:me/net");
    expect(await wholeFiles()).not.toContain(`${name}.lock`);
  });

  it("give up on a download that stalls, and go on from there the next time", async () => {
    hub.faults.set(/cdn\/model/, { pauses: 60_000 });
    process.env.HF_HUB_DOWNLOAD_TIMEOUT = "0.2";
    expect(await complaint()).toMatch(/expected \d+ bytes of model\.safetensors, got \d+, then: nothing for 0\.2 s/);
    delete process.env.HF_HUB_DOWNLOAD_TIMEOUT;
    hub.faults.clear();
    await fetchFromHub("hf:me/net");
    expect(fileRequests().at(-1)).toMatch(/bytes=\d+-/);
  });

  it("take a token where one is needed", async () => {
    hub.token = "hf_secret";
    expect(await complaint()).toContain("no access (401): no such model, or one that asks for a token in HF_TOKEN");
    process.env.HF_TOKEN = "hf_secret";
    await fetchFromHub("hf:me/net");
  });
});

describe("a hub that does wrong: one sentence, and nothing half-written", () => {
  const wrong: [what: string, where: RegExp, fault: object, sentence: RegExp][] = [
    ["404 for the model", /^\/api/, { status: 404 }, /no such model or revision \(404\)/],
    ["403", /^\/api/, { status: 403 }, /no access \(403\)/],
    ["500", /^\/api/, { status: 500 }, /an answer of status 500/],
    ["garbage for JSON", /^\/api/, { body: "<html>welcome to the hotel's network</html>" }, /not the hub's JSON/],
    ["JSON of another kind", /revision/, { body: "{}" }, /the hub to name a commit, got undefined/],
    ["a commit that is a path", /revision/, { body: '{"sha":"../../../../evil"}' }, /the hub to name a commit/],
    ["a list that is none", /paths-info/, { body: "{}" }, /not the hub's JSON/],
    [
      "file names that are paths",
      /paths-info/,
      { body: '[{"path":"../x","size":1,"oid":"0"}]' },
      /a name, a size and a/,
    ],
    ["no weights at all", /paths-info/, { body: "[]" }, /model.safetensors.* in the repository, got none of them/],
    [
      "404 for the file",
      /resolve\/.*\/model/,
      { status: 404 },
      /bytes of model.safetensors, got an answer of status 404/,
    ],
    [
      "no content at all",
      /cdn\/model/,
      { status: 204 },
      /bytes of model.safetensors, got 0, then: .* 204 without content/,
    ],
    ["no config", /resolve\/.*\/config/, { status: 500 }, /bytes of config.json, got an answer of status 500/],
    ["a redirect in circles", /cdn\/model/, { location: "/cdn/model.safetensors" }, /bytes of model.safetensors, got/],
    ["a redirect to another scheme", /cdn\/model/, { location: "file:///etc/passwd" }, /bytes of model.safetensors/],
    ["garbage for the file", /cdn\/model/, { body: "<html>" }, /bytes of model.safetensors, got 6/],
  ];
  for (const [what, where, fault, sentence] of wrong)
    it(what, async () => {
      hub.faults.set(where, fault);
      expect(await complaint()).toMatch(sentence);
      expect((await wholeFiles()).filter((name) => name.length === 64)).toEqual([]);
      expect(await readdir(join(storage(), "refs")).catch(() => [])).toEqual([]);
    });

  it("another checksum", async () => {
    hub.lies.set("model.safetensors", "a".repeat(64));
    expect(await complaint()).toMatch(/expected model.safetensors with the hub's checksum a+, got other bytes/);
    expect(await readdir(join(storage(), "blobs"))).toHaveLength(1);
  });

  it("no hub at all", async () => {
    await fetchFromHub("hf:me/net");
    const { url } = hub;
    await hub.close();
    hub = await Hub.open(); // for afterEach
    process.env.HF_ENDPOINT = url;
    expect(await complaint()).toMatch(/a hub that cannot be reached: .*ECONNREFUSED.*HF_HUB_OFFLINE=1 takes the copy/);
  });

  it("a cache that is none", async () => {
    process.env.HF_HOME = join(home, "file");
    await writeFile(process.env.HF_HOME, "");
    expect(await complaint()).toMatch(/expected a cache that can be written in .*models--me--net, got no such file/);
  });

  it("names that are none", async () => {
    for (const source of ["hf:", "hf:me", "hf:me/net/x", "hf:../net", "hf:me/..", "hf:me/net@../x", "hf:me/net@"])
      await expect(fetchFromHub(source)).rejects.toThrow(/expected hf:owner\/name/);
  });
});

it("seresnet classify takes weights from the hub", async () => {
  const { FORCE_COLOR: _, ...env } = process.env;
  const program = join(root, "dist/lib/cli/main.js");
  const args = [program, "classify", chelsea, "--weights", "hf:me/net", "--device", "reference", "--json"];
  const { stdout, stderr } = await promisify(execFile)(process.execPath, args, { env });
  expect(stderr).toBe("");
  expect(JSON.parse(stdout)).toMatchObject({ model: "seresnet20_cifar", results: [{ image: chelsea }] });
});

it("a terminal shows a bar while a file comes", async () => {
  const program = join(root, "dist/lib/cli/main.js");
  const command = [process.execPath, program, "classify", chelsea, "--weights", "hf:me/net", "--device", "reference"];
  // util-linux's script gives the command a terminal
  const onTerminal = promisify(execFile)(
    "script",
    ["-qec", command.map((word) => `'${word}'`).join(" "), "/dev/null"],
    {
      env: { ...process.env, TERM: "xterm" },
    },
  );
  const seen = await onTerminal.catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT") throw error;
    console.warn("LEFT OUT the progress bar on a terminal: no program `script` here (Debian: bsdutils)");
  });
  if (seen) expect(seen.stdout).toMatch(/model\.safetensors .*\d+\/\d+ MiB/);
});
