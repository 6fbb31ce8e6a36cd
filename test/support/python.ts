import { execFileSync } from "node:child_process";
import { join } from "node:path";

const probe = `import importlib.util, sys
sys.exit(any(importlib.util.find_spec(name) is None for name in sys.argv[1:]))`;

/**
 * A Python that has all of `packages`: SERESNET_PYTHON, the one that `.ci/run` made in build/python, or python3. Undefined
 * where none has them, and then the log says that `what` was left out.
 */
export function pythonWith(packages: readonly string[], what: string): string | undefined {
  const candidates = [process.env.SERESNET_PYTHON, join(__dirname, "../../build/python/bin/python"), "python3"];
  for (const python of candidates.filter((name) => name !== undefined))
    try {
      execFileSync(python, ["-c", probe, ...packages], { stdio: "ignore" });
      return python;
    } catch {}
  console.warn(`LEFT OUT ${what}: no Python with ${packages.join(" and ")} (SERESNET_PYTHON names one)`);
}
