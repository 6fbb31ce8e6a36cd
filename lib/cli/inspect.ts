import type { Command } from "commander";
import { addonStatus, nativeVersions } from "../devices/native/addon.js";
import { type DeviceInfo, listDevices, resolveDevice } from "../devices/resolve.js";
import { packageVersion } from "../paths.js";
import { jsonOption } from "./options.js";
import { colours, print, printJson } from "./output.js";

export function addInspect(program: Command): void {
  program
    .command("inspect")
    .description("Tell which devices work here, why the others do not, and what would mend them.")
    .addOption(jsonOption())
    .addHelpText("after", "\nExample:\n  seresnet inspect --json")
    .action(({ json }: { json?: boolean }) => {
      const report = inspect();
      if (json) printJson(report);
      else print(describe(report));
    });
}

interface Report {
  seresnet: string;
  node: string;
  platform: string;
  addon: ReturnType<typeof addonStatus> & { versions: ReturnType<typeof nativeVersions> };
  devices: DeviceInfo[];
  /** The device that "auto" takes, or why it takes none. */
  auto: { device: string; why: string } | { device: null; why: string };
}

function inspect(): Report {
  return {
    seresnet: packageVersion(),
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    addon: { ...addonStatus(), versions: nativeVersions() },
    devices: listDevices(),
    auto: automatic(),
  };
}

function automatic(): Report["auto"] {
  try {
    const { name, why } = resolveDevice("auto");
    return { device: name, why };
  } catch (error) {
    return { device: null, why: (error as Error).message }; // SERESNET_DEVICE may name one that does not work
  }
}

function describe({ seresnet, node, platform, addon, devices, auto }: Report): string {
  const mend = (fix: string | undefined) => (fix === undefined ? [] : [`           try: ${colours.bold(fix)}`]);
  const lines = [`seresnet ${seresnet}, node ${node}, ${platform}`];
  lines.push(
    addon.loaded ? `addon      loaded from ${addon.path} (${addon.origin})` : `addon      ${addon.reason}`,
    "",
  );
  for (const { name, usable, description, reason, fix } of devices) {
    lines.push(`${name.padEnd(10)} ${usable ? colours.green("works") : colours.red("does not work")}: ${description}`);
    if (!usable) lines.push(`           because ${reason}`, ...mend(fix));
  }
  lines.push("", `auto takes ${auto.device ?? "nothing"}: ${auto.why}`);
  return lines.join("\n");
}
