import Table from "cli-table3";
import { type Command, InvalidArgumentError, Option } from "commander";
import { type ClassifierOptions, loadClassifier } from "../classifier/source.js";
import { compareDevices, type Deviation, tolerances, verify } from "../compile/verify.js";
import { listDevices } from "../devices/resolve.js";
import { loadGolden } from "../io/golden.js";
import { Generator } from "../nn/random.js";
import { tensor } from "../tensor.js";
import {
  type ComputeType,
  type Device,
  dtypeOption,
  jsonOption,
  modelOption,
  modelOptionsOption,
  parseCount,
  weightsOption,
} from "./options.js";
import { colours, print, printJson, withDownloadBar } from "./output.js";

interface Options extends ClassifierOptions {
  devices?: Device[];
  dtype: ComputeType;
  tolerance?: number;
  maxUnpacked?: number;
  json?: boolean;
}

export function addVerify(program: Command): void {
  program
    .command("verify")
    .description("Compare a network's outputs with those another program computed, layer by layer, on every device.")
    .argument(
      "<golden>",
      "an .npz, .safetensors or .pt file with `input`, `logits`, and outputs of modules by name, if any",
    )
    .addOption(weightsOption())
    .addOption(modelOption())
    .addOption(modelOptionsOption())
    .addOption(devicesOption("which devices to run on (default: all that work)"))
    .addOption(dtypeOption())
    .addOption(toleranceOption())
    .option(
      "--max-unpacked <mebibytes>",
      "what the arrays of an .npz may take when unpacked (default: 1024)",
      parseCount,
    )
    .addOption(jsonOption())
    .addHelpText(
      "after",
      `
A golden file from PyTorch (timm's names of modules are ours):
  import numpy, timm, torch
  model = timm.create_model("seresnet50.a1_in1k", pretrained=True).eval()
  golden = {"input": torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))}
  for name, module in model.named_children():
      module.register_forward_hook(lambda _, __, y, name=name: golden.update({name: y.clone()}))
  with torch.no_grad():
      golden["logits"] = model(golden["input"])
  numpy.savez("golden.npz", **golden)

Example:
  seresnet verify golden.npz --weights hf:timm/seresnet50.a1_in1k`,
    )
    .action(
      async (golden: string, { devices = usable(), tolerance, maxUnpacked = 1024, json, ...options }: Options) => {
        const { network, info } = await load(options);
        const deviations = await verify(network, await loadGolden(golden, maxUnpacked * 2 ** 20), {
          devices,
          dtype: options.dtype,
        });
        report(info.model, deviations, tolerance ?? tolerances[options.dtype], json);
      },
    );
}

export function addCompare(program: Command): void {
  program
    .command("compare")
    .description("Compare a network's outputs on several devices with those on the first, layer by layer.")
    .addOption(weightsOption())
    .addOption(modelOption())
    .addOption(modelOptionsOption())
    .addOption(devicesOption("the judge, then the devices to compare with it (default: reference and all that work)"))
    .addOption(dtypeOption())
    .addOption(toleranceOption())
    .addOption(jsonOption())
    .addHelpText(
      "after",
      "\nExample:\n  seresnet compare --devices reference,cpu,cuda --weights seresnet50.safetensors --model seresnet50",
    )
    .action(async ({ devices, tolerance, json, ...options }: Options) => {
      const { network, info } = await load(options);
      const input = tensor(noise(info.inputSize.reduce((size, extent) => size * extent, 1)), [1, ...info.inputSize]);
      const chosen = devices ?? ["reference", ...usable().filter((name) => name !== "reference")];
      const deviations = await compareDevices(network, input, { devices: chosen, dtype: options.dtype });
      report(info.model, deviations, tolerance ?? tolerances[options.dtype], json);
    });
}

function load(options: ClassifierOptions) {
  return withDownloadBar((onProgress) => loadClassifier({ ...options, onProgress }));
}

/** Reproducible numbers in [-2, 2): what a normalised image's are, more or less. */
function noise(length: number): Float32Array {
  const generator = new Generator(0);
  return Float32Array.from({ length }, () => 4 * generator.uniform() - 2);
}

/** The devices that work here, each once. */
function usable(): Device[] {
  return [...new Set(listDevices().flatMap(({ name, usable }) => (usable ? [name] : [])))];
}

function devicesOption(description: string): Option {
  const names = ["cuda", "cpu", "reference"];
  return new Option("--devices <names>", description).argParser((text) => {
    const chosen = text.split(",");
    if (!chosen.every((name) => names.includes(name)) || new Set(chosen).size !== chosen.length)
      throw new InvalidArgumentError(`Expected some of ${names.join(", ")}, with commas between.`);
    return chosen;
  });
}

function toleranceOption(): Option {
  const text = Object.entries(tolerances).map(([dtype, most]) => `${dtype} ${most}`);
  return new Option(
    "--tolerance <error>",
    `the logits' largest relative error (default: ${text.join(", ")})`,
  ).argParser((value) => {
    if (!(Number(value) > 0)) throw new InvalidArgumentError("Expected a number above 0.");
    return Number(value);
  });
}

/** Layers downwards, devices to the right. Logits beyond the tolerance (or NaN) fail the command. */
function report(model: string, deviations: readonly Deviation[], tolerance: number, json: boolean | undefined): void {
  const passed = deviations.every(({ layer, error }) => layer !== "logits" || error <= tolerance);
  if (!passed) process.exitCode = 1;
  if (json) {
    printJson({ model, tolerance, passed, deviations });
    return;
  }
  const devices = [...new Set(deviations.map(({ device }) => device))];
  const table = new Table({
    head: ["layer", ...devices],
    colAligns: ["left", ...devices.map(() => "right" as const)],
    style: { head: [], border: [], compact: true },
  });
  for (const layer of new Set(deviations.map((deviation) => deviation.layer)))
    table.push([
      layer,
      ...devices.map((name) => {
        const { error } = deviations.find(({ device, layer: own }) => device === name && own === layer) as Deviation;
        return error <= tolerance ? error.toExponential(2) : colours.red(error.toExponential(2));
      }),
    ]);
  print(table.toString());
  const verdict = passed ? "the logits agree" : colours.red("the logits do not agree");
  print(`${model}: ${verdict} (relative error at most ${tolerance.toExponential(0)})`);
}
