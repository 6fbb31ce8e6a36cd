// Finds the images that look most like one: node nearest-neighbours.mjs [FOLDER [IMAGE]]
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { ImageClassifier } from "seresnet";

const folder = process.argv[2] ?? fileURLToPath(new URL("clothes", import.meta.url));
const query = process.argv[3] ?? join("shoes", "sneaker1.png");
const names = (await readdir(folder, { recursive: true })).filter((name) => /\.(png|jpe?g|webp)$/i.test(name)).sort();

const classifier = await ImageClassifier.load();
/** @param {Float32Array} vector */
const unit = (vector) => vector.map((value) => value / Math.hypot(...vector));
const vectors = (await classifier.embed(names.map((name) => join(folder, name)))).map(unit);
const [wanted] = (await classifier.embed([join(folder, query)])).map(unit);
await classifier.dispose();

// cosine similarity; from some 10,000 images on, put the vectors into an index such as HNSW or pgvector
const neighbours = names
  .map((name, i) => ({ name, similarity: vectors[i].reduce((sum, value, k) => sum + value * wanted[k], 0) }))
  .filter(({ name }) => name !== query)
  .sort((a, b) => b.similarity - a.similarity);
console.log(`${query}, ${wanted.length} features`);
for (const { name, similarity } of neighbours.slice(0, 5)) console.log(similarity.toFixed(2), name);
