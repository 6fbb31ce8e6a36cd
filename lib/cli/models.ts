import Table from "cli-table3";
import type { Command } from "commander";
import { createModel, listModels } from "../../models/index.js";
import { summary } from "../compile/summary.js";
import { jsonOption } from "./options.js";
import { print, printJson } from "./output.js";

export function addModels(program: Command): void {
  program
    .command("models")
    .description("List every model, with its size.")
    .addOption(jsonOption())
    .addHelpText("after", "\nExample:\n  seresnet models --json")
    .action(({ json }: { json?: boolean }) => {
      const models = listModels().map(describe);
      if (json) return printJson(models);
      const table = new Table({
        head: ["model", "family", "parameters", "input"],
        colAligns: ["left", "left", "right", "right"],
        style: { head: [], border: [], compact: true },
      });
      for (const { name, family, parameters, input } of models)
        table.push([name, family, parameters.toLocaleString("en"), input.join(" x ")]);
      print(table.toString());
    });
}

function describe(name: string): { name: string; family: string; parameters: number; input: number[] } {
  const input = usualInput(name);
  return { name, family: familyOf(name), parameters: summary(createModel(name), [1, ...input]).parameters, input };
}

/** Channels, height and width of the images a model is usually given. */
export function usualInput(name: string, channels = 3): number[] {
  return name.endsWith("_cifar") ? [channels, 32, 32] : [channels, 224, 224];
}

function familyOf(name: string): string {
  const families: readonly [prefix: string, family: string][] = [
    ["legacy_seresnet", "SE-ResNet, legacy"],
    ["seresnext", "SE-ResNeXt"],
    ["seresnet", "SE-ResNet"],
    ["resnext", "ResNeXt"],
    ["wide_resnet", "Wide ResNet"],
    ["resnet", "ResNet"],
    ["plain", "plain"],
  ];
  const family = families.find(([prefix]) => name.startsWith(prefix))?.[1] ?? "other";
  return name.endsWith("_cifar") ? `${family}, small images` : family;
}
