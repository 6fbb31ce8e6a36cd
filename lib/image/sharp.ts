import { expected, ImageError } from "../errors.js";

/**
 * The package sharp, which decodes and draws images. Not an import(), which Jest has not; and not before the first image: it is
 * a dozen megabytes, and most programs' time to start. Throws ImageError where it is not installed, or not for this system.
 */
export function loadSharp(): typeof import("sharp") {
  try {
    return require("sharp") as typeof import("sharp");
  } catch (error) {
    const [line] = (error as Error).message.trim().split("\n");
    const what = `the package sharp, which decodes images, for ${process.platform}-${process.arch} (npm install sharp)`;
    throw new ImageError(expected("seresnet", what, line), { cause: error });
  }
}
