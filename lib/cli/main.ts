#!/usr/bin/env node
import { Command, CommanderError } from "commander";
import { packageVersion } from "../paths.js";
import { addBench } from "./bench.js";
import { addBuild } from "./build.js";
import { addClassify } from "./classify.js";
import { addDemo } from "./demo.js";
import { addEvaluate } from "./evaluate.js";
import { addExport } from "./export.js";
import { addInspect } from "./inspect.js";
import { addModels } from "./models.js";
import { endQuietlyWithoutReader, reportError, tellOfWarnings } from "./output.js";
import { addSummary } from "./summary.js";
import { addTrain } from "./train.js";
import { addCompare, addVerify } from "./verify.js";

const wrongUsage = 2;

function createProgram(): Command {
  const program = new Command("seresnet")
    .description("Residual and squeeze-and-excitation networks for Node.js.")
    .version(packageVersion())
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, "seresnet: ")) })
    .addHelpText(
      "after",
      `
Examples:
  seresnet inspect                                                  which devices work here
  seresnet demo                                                     see it at work on real images
  seresnet classify boot.png                                        name what is on an image
  seresnet evaluate /usr/share/datasets/fashion-mnist --limit 1000  measure accuracy
  seresnet summary seresnet50                                       look into a model
  seresnet export seresnet50 --onnx seresnet50.onnx                 write it for other runtimes

The answer goes to stdout, progress and complaints to stderr. Exit status: 0 done, 1 failed, 2 wrong usage.
SERESNET_DEVICE overrides --device auto; SERESNET_DEBUG=1 shows where an error came from.`,
    );
  // subcommands inherit the settings above because they are added below
  const commands = [
    addClassify,
    addEvaluate,
    addTrain,
    addDemo,
    addModels,
    addSummary,
    addExport,
    addVerify,
    addCompare,
    addBench,
    addInspect,
    addBuild,
  ];
  for (const add of commands) add(program);
  return program;
}

async function main(): Promise<void> {
  endQuietlyWithoutReader();
  tellOfWarnings();
  try {
    await createProgram().parseAsync();
  } catch (error) {
    if (error instanceof CommanderError) {
      process.exitCode = error.exitCode === 0 ? 0 : wrongUsage; // commander has said why
      return;
    }
    reportError(error);
    process.exitCode = 1;
  }
}

void main();
