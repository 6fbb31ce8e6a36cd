// Classifies every image of a folder, nested folders too: node classify-folder.mjs [FOLDER]
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { ImageClassifier } from "seresnet";

const folder = process.argv[2] ?? fileURLToPath(new URL("clothes", import.meta.url));
const names = await readdir(folder, { recursive: true });
const images = names.filter((name) => /\.(png|jpe?g|webp)$/i.test(name)).sort();

const classifier = await ImageClassifier.load(); // or "hf:timm/seresnet50.a1_in1k", or a file of yours
let unreadable = 0;
for await (const result of classifier.classifyEach(images.map((name) => join(folder, name)))) {
  if ("error" in result) {
    unreadable++; // one bad file ends nothing
    console.error(result.error.message);
    continue;
  }
  const [best] = result.predictions;
  console.log(`${result.image.slice(folder.length + 1)}: ${best.label} ${(100 * best.probability).toFixed(0)} %`);
}
console.log(`${images.length - unreadable} of ${images.length} images classified on ${classifier.device.name}`);
await classifier.dispose();
