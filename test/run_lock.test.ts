import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { ArgumentError } from "#lib/errors.js";
import { lockFolder } from "#lib/io/run_lock.js";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-lock-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** Another process that has the folder, once it does. */
async function other() {
  const module = join(__dirname, "../dist/lib/io/run_lock.js");
  const code = `require(process.argv[1]).lockFolder(process.argv[2]).then(() => console.log("locked")); process.stdin.on("data", () => process.exit(7))`;
  const child = spawn(process.execPath, ["-e", code, module, folder], { stdio: ["pipe", "pipe", "inherit"] });
  await once(child.stdout, "data");
  return child;
}

const file = () => join(folder, ".seresnet.lock");

test("a folder is one process's, whose id the others are told, until it ends", async () => {
  const child = await other();
  await expect(lockFolder(folder)).rejects.toThrow(
    `${folder}: expected a folder that no other run writes into, got one that process ${child.pid} does`,
  );
  await expect(lockFolder(folder)).rejects.toBeInstanceOf(ArgumentError);
  child.stdin.write("end");
  const [status] = await once(child, "exit");
  expect([status, existsSync(file())]).toEqual([7, false]);
  (await lockFolder(folder))();
});

test("a lock of a process that was killed is taken over", async () => {
  const child = await other();
  child.kill("SIGKILL");
  await once(child, "exit");
  expect(existsSync(file())).toBe(true);
  const release = await lockFolder(folder);
  expect(JSON.parse(await readFile(file(), "utf8"))).toMatchObject({ pid: process.pid });
  release();
  expect(existsSync(file())).toBe(false);
});

test("within a process a folder is one call's at a time", async () => {
  const tries = await Promise.allSettled([lockFolder(folder), lockFolder(folder), lockFolder(folder)]);
  const had = tries.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
  expect(had).toHaveLength(1);
  had[0]();
  had[0](); // once more does nothing to the next one's
  const release = await lockFolder(folder);
  had[0]();
  expect(existsSync(file())).toBe(true);
  release();
});

test.each([
  ["nobody's", ""],
  ["cut", '{"pid": 1'],
  ["no lock at all", "[]"],
  ["an earlier process's of this one's id", JSON.stringify({ pid: process.pid, host: hostname() })],
  ["of a process id that is used again", JSON.stringify({ pid: process.ppid, host: hostname(), began: "1" })],
])("a lock file that is %s is taken over", async (_, text) => {
  await writeFile(file(), text);
  (await lockFolder(folder))();
});

test("what another machine's process holds is refused, and how to free it said", async () => {
  await writeFile(file(), JSON.stringify({ pid: 1, host: "elsewhere" }));
  await expect(lockFolder(folder)).rejects.toThrow(`process 1 on elsewhere (if it is gone, remove ${file()}) does`);
});

test("a folder that cannot be written into is refused in a sentence", async () => {
  const missing = join(folder, "missing");
  await expect(lockFolder(missing)).rejects.toThrow(`${missing}: expected a folder to write into, got no such file`);
});
