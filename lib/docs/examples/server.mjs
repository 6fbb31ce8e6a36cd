// Classifies what is posted to it, with nothing but Node.js: node server.mjs [PORT]
//   curl --data-binary @boot.png http://localhost:8080/classify
import { createServer } from "node:http";
import { ImageClassifier, ImageError, setImageMemoryLimit } from "seresnet";

const largest = 10 * 2 ** 20; // bytes of an upload
setImageMemoryLimit(64 * 2 ** 20); // bytes of all images that are decoded at once; others wait
const classifier = await ImageClassifier.load(undefined, { maxBatch: 32 }); // requests that come together share batches

/** @param {import("node:http").IncomingMessage} request */
async function bodyOf(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request.iterator({ destroyOnReturn: false })) {
    size += chunk.length;
    if (size > largest) return undefined; // the rest is not read
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

const server = createServer(async (request, response) => {
  /** @param {number} status @param {unknown} value */
  const answer = (status, value) =>
    response.writeHead(status, { "content-type": "application/json" }).end(`${JSON.stringify(value)}\n`);
  if (request.method !== "POST" || request.url !== "/classify") return answer(404, { error: "POST /classify" });
  try {
    const image = await bodyOf(request);
    if (!image) return answer(413, { error: `expected an image of at most ${largest} bytes` });
    return answer(200, await classifier.classify(image, { topK: 3 }));
  } catch (error) {
    if (error instanceof ImageError) return answer(422, { error: error.message }); // not an image, damaged, too large
    console.error(error);
    return answer(500, { error: "internal error" });
  }
});

server.listen(Number(process.argv[2] ?? 8080), () => {
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  console.log(`listening on port ${port}`);
});
process.once("SIGTERM", () => server.close(() => classifier.dispose())); // what is under way is answered first
