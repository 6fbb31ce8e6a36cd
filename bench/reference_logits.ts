import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { compile, type nn, type Tensor } from "../lib/index.js";

/*
 * What the reference executor says of a network takes seconds to minutes, which a device's clock need not pay: the answer is
 * kept in a folder, with a digest of all it depends on.
 */

interface Kept {
  readonly digest: string;
  readonly logits: readonly number[];
}

/** The logits of a network for some images, from the folder where they are there, else computed and put there. */
export async function referenceLogits(
  name: string,
  network: nn.Module,
  input: Tensor,
  folder: string | undefined,
): Promise<{ logits: Float32Array; shipped: boolean }> {
  const digest = await digestOf(network, input);
  const file = folder && join(folder, `${name}.logits.json`);
  if (file && existsSync(file)) {
    const kept = JSON.parse(readFileSync(file, "utf8")) as Kept;
    if (kept.digest === digest) return { logits: Float32Array.from(kept.logits), shipped: true };
  }
  const reference = await compile(network, { device: "reference" });
  const logits = (await (await reference.run(input)).data()) as Float32Array;
  await reference.dispose();
  if (folder && file) {
    mkdirSync(folder, { recursive: true });
    writeFileSync(file, JSON.stringify({ digest, logits: [...logits] } satisfies Kept));
  }
  return { logits, shipped: false };
}

async function digestOf(network: nn.Module, input: Tensor): Promise<string> {
  const hash = createHash("sha256");
  for (const [name, tensor] of [...Object.entries(network.stateDict()), ["input", input] as const]) {
    const { buffer, byteOffset, byteLength } = await tensor.data();
    hash.update(`${name} ${tensor.shape} `).update(new Uint8Array(buffer, byteOffset, byteLength));
  }
  return hash.digest("hex");
}
