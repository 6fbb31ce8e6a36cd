import { existsSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../paths.js";

/**
 * Gives fontconfig, which draws the text of images, a configuration where the system has none: it would complain on
 * stderr. To be called before anything is drawn.
 */
export function configureFonts(): void {
  const { FONTCONFIG_FILE, FONTCONFIG_PATH } = process.env;
  if (process.platform !== "linux" || FONTCONFIG_FILE || FONTCONFIG_PATH || existsSync("/etc/fonts/fonts.conf")) return;
  process.env.FONTCONFIG_FILE = join(packageRoot, "lib", "cli", "fonts.conf");
}
