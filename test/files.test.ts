import { mkdtemp, readdir, readFile, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { writeFileAtomic } from "#lib/files.js";

it("a file that is written takes away what killed processes left beside it, and nothing else", async () => {
  const folder = await mkdtemp(join(tmpdir(), "seresnet-files-"));
  const names = [".seresnet-0123456789abcdef.tmp", ".seresnet-fedcba9876543210.tmp", ".seresnet-mine.tmp", "notes.tmp"];
  for (const name of names) await writeFile(join(folder, name), "half");
  const longAgo = new Date(Date.now() - 2 * 3_600_000);
  for (const name of [names[0], names[2], names[3]]) await utimes(join(folder, name), longAgo, longAgo);
  await writeFileAtomic(join(folder, "whole"), [Buffer.from("whole")]);
  expect((await readdir(folder)).sort()).toEqual([...names.slice(1), "whole"].sort()); // the second is being written
  expect(await readFile(join(folder, "whole"), "utf8")).toBe("whole");
  await rm(folder, { recursive: true });
});
