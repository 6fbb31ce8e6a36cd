import { accessSync, constants, existsSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { packageRoot } from "../paths.js";

/**
 * Gives fontconfig, which draws the text of images, what it would complain about on stderr where the system has none of
 * it: a configuration, and a place for its cache. To be called in a program of ours, before anything is drawn.
 */
export function configureFonts(): void {
  const { FONTCONFIG_FILE, FONTCONFIG_PATH, XDG_CACHE_HOME } = process.env;
  if (process.platform !== "linux" || FONTCONFIG_FILE || FONTCONFIG_PATH) return;
  if (!existsSync("/etc/fonts/fonts.conf")) process.env.FONTCONFIG_FILE = join(packageRoot, "lib", "cli", "fonts.conf");
  if (!XDG_CACHE_HOME && !hasHome()) process.env.XDG_CACHE_HOME = join(tmpdir(), `seresnet-${process.getuid?.()}`);
}

function hasHome(): boolean {
  try {
    accessSync(homedir(), constants.W_OK); // homedir throws for a user who has none
    return true;
  } catch {
    return false;
  }
}
