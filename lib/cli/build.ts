import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import type { Command } from "commander";
import { packageRoot } from "../paths.js";

export function addBuild(program: Command): void {
  program
    .command("build")
    .description(
      "Build the native addon from source, where no platform package fits: needs CMake, a C++ compiler, oneDNN.",
    )
    .addHelpText("after", "\nNothing is ever built unless this command is given: the package has no install script.")
    .action(async () => {
      const child = spawn(process.execPath, [join(packageRoot, "native", "build.mjs")], { stdio: "inherit" });
      const [code] = (await once(child, "exit")) as [number | null];
      process.exitCode = code ?? 1;
    });
}
