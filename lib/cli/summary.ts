import type { Command } from "commander";
import { createModel, type ModelOptions } from "../../models/index.js";
import { mostClasses } from "../classifier/counts.js";
import { summary } from "../compile/summary.js";
import { usualInput } from "./models.js";
import { jsonOption, modelOptionsOption, parseCountUpTo, parseInputShape } from "./options.js";
import { print, printJson } from "./output.js";

interface Options {
  input?: number[];
  classes?: number;
  modelOptions?: ModelOptions;
  json?: boolean;
}

export function addSummary(program: Command): void {
  program
    .command("summary")
    .description("Show a model's layers, parameters and multiply-adds.")
    .argument("<model>", "a name that `seresnet models` lists")
    .option("--input <shape>", "N,C,H,W (default: one image of the model's usual size)", parseInputShape)
    .option("--classes <count>", "outputs of the classifier (default: the model's own)", parseCountUpTo(mostClasses))
    .addOption(modelOptionsOption())
    .addOption(jsonOption())
    .addHelpText(
      "after",
      `
Examples:
  seresnet summary seresnet50
  seresnet summary seresnet20_cifar --input 1,1,28,28 --classes 10 --json`,
    )
    .action((name: string, { input = [1, ...usualInput(name)], classes, modelOptions, json }: Options) => {
      const model = createModel(name, { inChannels: input[1], numClasses: classes, ...modelOptions });
      const result = summary(model, input);
      if (!json) return print(result.toString());
      const { parameters, macs, layers } = result;
      printJson({ model: name, input, parameters, macs, layers });
    });
}
