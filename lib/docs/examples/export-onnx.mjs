// Writes the network that ships as an ONNX file that takes bytes: node export-onnx.mjs [FILE]
import { stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { exportOnnx, ImageClassifier } from "seresnet";

const file = process.argv[2] ?? join(tmpdir(), "clothes.onnx");
const classifier = await ImageClassifier.load();
const { size = 28, channels = 1, mean = [0.5], std = [0.5] } = classifier.preprocessing;

// any number of images a call; the mean and the standard deviation are part of the file, so it takes uint8 pixels
await exportOnnx(classifier.network, file, {
  inputShape: [1, channels, size, size],
  normalize: { mean: [...mean], std: [...std] },
});
await classifier.dispose();

const { size: bytes } = await stat(file);
console.log(
  `${file}: ${Math.round(bytes / 1024)} KiB, input uint8 [N, ${channels}, ${size}, ${size}], ${classifier.classes.length} classes`,
);
