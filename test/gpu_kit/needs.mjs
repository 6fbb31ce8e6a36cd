import { execFileSync } from "node:child_process";

/** What every Linux with a Python has; the rest a kit must bring along, or do without. */
const everywhere = /^(linux-vdso|ld-linux|libc\.|libm\.|libdl\.|libpthread\.|librt\.|libstdc\+\+\.|libgcc_s\.)/;

/** The libraries that a program or library needs, directly or through others, and a bare machine lacks. */
export function needs(file) {
  const lines = execFileSync("ldd", [file], { encoding: "utf8" }).split("\n");
  const names = lines.map((line) => line.trim().split(" ")[0].split("/").at(-1)).filter(Boolean);
  return names.filter((name) => !everywhere.test(name) && !name.startsWith("statically"));
}
