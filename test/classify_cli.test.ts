import { spawn } from "node:child_process";
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { ImageError, loadImage } from "seresnet";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const root = join(__dirname, "..");
const program = join(root, "dist/lib/cli/main.js");
const chelsea = join(root, "test/fixtures/images/chelsea.png");
const rocket = join(root, "test/fixtures/images/rocket.jpg");

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-classify-"));
  await mkdir(join(folder, "photos/2024"), { recursive: true });
  await copyFile(chelsea, join(folder, "photos/cat.png"));
  await copyFile(rocket, join(folder, "photos/2024/rocket.jpg"));
  await writeFile(join(folder, "photos/notes.txt"), "no image");
  await writeFile(join(folder, "broken.png"), "not a PNG at all");
  await mkdir(join(folder, "empty"));
});
afterAll(() => rm(folder, { recursive: true }));

interface Outcome {
  code: number | null;
  stdout: string;
  stderr: string[];
}

/** Runs `seresnet classify` in the folder; lines of stderr but the note on the network that ships. */
async function classify(args: readonly string[], stdin?: Uint8Array): Promise<Outcome> {
  const { FORCE_COLOR: _, ...env } = process.env;
  const options = { cwd: folder, env: { ...env, SERESNET_DEVICE: "reference" } };
  const child = spawn(process.execPath, [program, "classify", "--top", "2", ...args], options);
  child.stdin.end(stdin);
  const outputs = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const)
    child[name].setEncoding("utf8").on("data", (text: string) => {
      outputs[name] += text;
    });
  const code = await new Promise<number | null>((resolve) => child.on("close", resolve));
  const stderr = outputs.stderr.split("\n").filter((line) => line !== "" && !line.includes("no weights were named"));
  return { code, stdout: outputs.stdout, stderr };
}

const line = (name: string) => new RegExp(`^${name} {2}\\S.* \\d+\\.\\d\\d %, .+ \\d+\\.\\d\\d %$`);

describe("classify", () => {
  test("takes folders, with what is below them, and says what they hold beside", async () => {
    const { code, stdout, stderr } = await classify(["photos"]);
    expect(stdout.trim().split("\n")).toEqual([
      expect.stringMatching(line("photos/cat.png")),
      expect.stringMatching(line("photos/2024/rocket.jpg")),
    ]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: [expect.stringMatching(/1 file left out .*1 \.txt/)] });
  });

  test("takes patterns that no shell has read, and - for stdin", async () => {
    const pattern = await classify(["photos/**/*.jpg", "--json"]);
    expect(JSON.parse(pattern.stdout).results.map(({ image }: { image: string }) => image)).toEqual([
      "photos/2024/rocket.jpg",
    ]);
    const file = await classify([chelsea, "--json"]);
    const stdin = await classify(["-", "--json"], await readFile(chelsea));
    const predictions = ({ stdout }: Outcome) => JSON.parse(stdout).results[0].predictions;
    expect(predictions(stdin)).toEqual(predictions(file));
    expect(JSON.parse(stdin.stdout).results[0].image).toBe("-");
    expect((await classify(["-", "-"], await readFile(chelsea))).stderr).toEqual([
      "seresnet: classify: expected - for stdin once, got it twice",
    ]);
  });

  test("prints a line of JSON an image as they come, and goes on after a bad one, which is named at the end", async () => {
    const { code, stdout, stderr } = await classify(["broken.png", "photos/cat.png", "typo.png", "--jsonl"]);
    const results = stdout
      .trim()
      .split("\n")
      .map((text) => JSON.parse(text));
    expect(results).toEqual([
      { image: "broken.png", error: expect.stringContaining("broken.png: expected") },
      {
        image: "photos/cat.png",
        predictions: [expect.objectContaining({ label: expect.any(String) }), expect.anything()],
      },
      { image: "typo.png", error: "typo.png: expected an image file, got no such file" },
    ]);
    expect(code).toBe(1);
    expect(stderr.at(-1)).toBe("seresnet: 2 of 3 images could not be classified: broken.png, typo.png");
  });

  test.each([
    ["a typo", ["nothere.png"], /^seresnet: nothere\.png: expected an image file, got no such file$/],
    [
      "a pattern that matches nothing",
      ["*.tif"],
      /^seresnet: \*\.tif: expected a pattern of files that are there, got no such file$/,
    ],
    ["a folder without images", ["empty"], /^seresnet: empty: expected a folder with images, got none in it$/],
  ])("%s: one line, exit 1", async (_, args, sentence) => {
    const { code, stdout, stderr } = await classify(args);
    expect({ code, stdout, stderr }).toEqual({ code: 1, stdout: "", stderr: [expect.stringMatching(sentence)] });
  });
});

describe("an image", () => {
  test("may be a path, a file: or data: URL, bytes of any kind or a Blob", async () => {
    const bytes = await readFile(chelsea);
    const exact = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
    const wanted = await (await loadImage(chelsea)).data();
    const url = pathToFileURL(chelsea);
    const sources = [
      url,
      url.href,
      `data:image/png;base64,${bytes.toString("base64")}`,
      bytes,
      exact,
      new DataView(exact),
    ];
    for (const source of [...sources, new Blob([bytes])])
      expect(await (await loadImage(source as never)).data()).toEqual(wanted);
  });

  test("is not fetched: the error says how", async () => {
    const refused = loadImage("https://example.org/cat.jpg");
    await expect(refused).rejects.toThrow(ImageError);
    await expect(refused).rejects.toThrow(
      "https://example.org/cat.jpg: expected a path, a file: or data: URL, or bytes, got a URL of the network, which is fetched by: new Uint8Array(await (await fetch(url)).arrayBuffer())",
    );
  });

  test("is not repeated in an error beyond 200 characters", async () => {
    for (const source of ["x".repeat(50_000), `data:image/png;base64,${"A".repeat(50_000)}`]) {
      const { message } = await loadImage(source).then(
        () => expect.fail("it was read"),
        (error: Error) => error,
      );
      expect(message.length).toBeLessThan(400);
      expect(message).not.toMatch(/x{200}|A{200}/);
    }
  });
});
