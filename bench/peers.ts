import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { root } from "./report.js";

const folder = join(root, "bench/peers");

/** Loads a package of bench/peers; installs them all, without their scripts, when they are not there yet. */
export function loadPeer<T>(name: string): T {
  peerVersion(name);
  return createRequire(join(folder, "package.json"))(name) as T;
}

/** The version of a package of bench/peers, installed where it was not. Throws when it cannot be. */
export function peerVersion(name: string): string {
  const manifest = join(folder, "node_modules", name, "package.json");
  if (!existsSync(manifest)) {
    console.error("installing the peers (npm ci --ignore-scripts in bench/peers)");
    try {
      execFileSync("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"], { cwd: folder, stdio: "ignore" });
    } catch {
      throw new Error(
        "bench: the peers could not be installed; run `npm ci --ignore-scripts` in bench/peers to see why",
      );
    }
  }
  return (JSON.parse(readFileSync(manifest, "utf8")) as { version: string }).version;
}
