import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { root } from "./report.js";

const folder = join(root, "bench/peers");

/** Loads a package of bench/peers; installs them all, without their scripts, when they are not there yet. */
export function loadPeer<T>(name: string): T {
  if (!existsSync(join(folder, "node_modules", name))) {
    console.error("installing the peers (npm ci --ignore-scripts in bench/peers)");
    try {
      execFileSync("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"], { cwd: folder, stdio: "ignore" });
    } catch {
      throw new Error(
        "bench: the peers could not be installed; run `npm ci --ignore-scripts` in bench/peers to see why",
      );
    }
  }
  return createRequire(join(folder, "package.json"))(name) as T;
}
