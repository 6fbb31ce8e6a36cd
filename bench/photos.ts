import { fork } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Table from "cli-table3";
import sharp from "sharp";
import { createModel, saveCheckpoint } from "../lib/index.js";
import { Generator } from "../lib/nn/random.js";
import type { PhotosAnswer, PhotosJob } from "./photos_runner.js";
import { type Bench, digits, median, root } from "./report.js";

const [width, height] = [4000, 3000];
const files = 8;
const photos = 64;
const rounds = 3;

/** What 64 photos of 12 megapixels, classified at once, do to a process: speed, the event loop's delays, memory. */
export const photosBench: Bench = {
  title: "64 JPEGs of 12 megapixels classified at once: images a second, event-loop delay, memory",
  async run() {
    const folder = await mkdtemp(join(tmpdir(), "seresnet-photos-"));
    try {
      const upright = await makePhotos(folder, 1);
      const turned = await makePhotos(folder, 6);
      const large = join(folder, "resnet18.safetensors");
      await saveCheckpoint(large, createModel("resnet18"));
      const cases: [name: string, job: PhotosJob][] = [
        ["shipped network", { paths: upright }],
        ["shipped network, photos on their side", { paths: turned }],
        ["shipped network, draft", { paths: upright, draft: true }],
        ["resnet18", { paths: upright, weights: large }],
        ["shipped network, without the addon", { paths: upright, withoutAddon: true }],
      ];
      const answers = new Map<string, PhotosAnswer[]>();
      for (let round = 0; round < rounds; round++)
        for (const [name, job] of cases) answers.set(name, [...(answers.get(name) ?? []), await runner(job)]);
      const head = ["", "images/s", "p99 delay", "longest", "peak", "one alone"];
      const table = new Table({ head, style: { head: [], border: [] } });
      const figures: Record<string, unknown> = {};
      for (const [name, all] of answers) {
        const of = (key: keyof PhotosAnswer) => digits(median(all.map((answer) => answer[key])), 3);
        table.push([
          name,
          of("perSecond"),
          `${of("p99")} ms`,
          `${of("longest")} ms`,
          `${of("peak")} MiB`,
          `${of("alone")} ms`,
        ]);
        figures[name] = all;
      }
      return { name: "photos", table: `${table}`, figures: { photos, width, height, rounds, cases: figures } };
    } finally {
      await rm(folder, { recursive: true });
    }
  },
};

/** Photos with the noise of a sensor, some 2 MB each; `photos` paths of them, in turn. */
async function makePhotos(folder: string, orientation: number): Promise<string[]> {
  const generator = new Generator(orientation);
  const paths: string[] = [];
  const source = join(root, "test/fixtures/images/chelsea.png");
  for (let i = 0; i < files; i++) {
    const noise = Buffer.alloc((width * height * 3) / 4);
    for (let at = 0; at < noise.length; at += 4) noise.writeUInt32LE(Math.floor(generator.uniform() * 2 ** 32), at);
    const grain = await sharp(noise, { raw: { width: width / 2, height: height / 2, channels: 3 } })
      .resize(width, height, { kernel: "nearest" })
      .ensureAlpha(0.08)
      .png({ compressionLevel: 1 })
      .toBuffer();
    const path = join(folder, `${orientation}-${i}.jpg`);
    await sharp(source)
      .resize(width, height, { fit: "fill" })
      .composite([{ input: grain }])
      .withMetadata({ orientation })
      .jpeg({ quality: 88 })
      .toFile(path);
    paths.push(path);
  }
  return Array.from({ length: photos }, (_, i) => paths[i % files]);
}

/** A process of its own, so that its memory is its own. */
function runner({ withoutAddon, ...job }: PhotosJob): Promise<PhotosAnswer> {
  const env = { ...process.env, ...(withoutAddon && { SERESNET_ADDON: "none", SERESNET_REFERENCE: "1" }) };
  const child = fork(join(__dirname, "photos_runner.js"), [JSON.stringify(job)], { env });
  return new Promise((resolve, reject) => {
    child.once("message", (answer) => resolve(answer as PhotosAnswer));
    child.once("exit", (code) => reject(new Error(`the process ended with code ${code}`)));
  });
}
