import { type Command, InvalidArgumentError, Option } from "commander";
import { ArgumentError, expected } from "../errors.js";
import type { Module } from "../nn/module.js";
import type { TrainingDType } from "../ops/autocast.js";
import {
  AdamW,
  constantSchedule,
  cosineSchedule,
  type Optimizer,
  oneCycleSchedule,
  type Schedule,
  SGD,
  stepSchedule,
  withoutNormDecay,
} from "../optim/index.js";
import { parseCount } from "./options.js";

/** How a network is trained: options of `seresnet train` that decide its numbers. */
export interface Recipe {
  epochs: number;
  optimizer: "sgd" | "adamw";
  lr?: number;
  momentum: number;
  weightDecay: number;
  normDecay: boolean;
  schedule: "cosine" | "onecycle" | "step" | "constant";
  warmup: number;
  accumulate: number;
  labelSmoothing: number;
  mixup: number;
  ema: number;
  clipNorm?: number;
  flip: number;
  padCrop?: number;
  erasing: number;
  randomCrop?: boolean;
  dtype?: TrainingDType;
  seed: number;
}

const number = (least: number, most: number) => (text: string) => {
  const value = Number(text);
  if (text.trim() === "" || !(value >= least && value <= most))
    throw new InvalidArgumentError(`Expected a number from ${least}${Number.isFinite(most) ? ` to ${most}` : " up"}.`);
  return value;
};
const positive = number(0, Number.POSITIVE_INFINITY);
const share = number(0, 1);

function parseSeed(text: string): number {
  const seed = Number(text);
  if (!Number.isSafeInteger(seed)) throw new InvalidArgumentError("Expected a whole number.");
  return seed;
}

export function addRecipeOptions(command: Command): Command {
  return command
    .requiredOption("--epochs <count>", "how often every image is seen", parseCount)
    .addOption(new Option("--optimizer <name>", "sgd has Nesterov's momentum").choices(["sgd", "adamw"]).default("sgd"))
    .option(
      "--lr <rate>",
      "highest learning rate (default: sgd 0.1, adamw 0.001, for a batch of 128, in proportion)",
      positive,
    )
    .option("--momentum <share>", "of sgd", number(0.001, 0.9999), 0.9)
    .option("--weight-decay <rate>", "pull of the weights towards zero", positive, 5e-4)
    .option("--norm-decay", "weight decay on norms and biases too", false)
    .addOption(
      new Option("--schedule <name>", "learning rate over time")
        .choices(["cosine", "onecycle", "step", "constant"])
        .default("cosine"),
    )
    .option("--warmup <epochs>", "epochs in which the learning rate rises", positive, 1)
    .option("--accumulate <count>", "batches whose gradients make one step", parseCount, 1)
    .option("--label-smoothing <share>", "of each label given to all classes", number(0, 0.99), 0.1)
    .option("--mixup <alpha>", "mix pairs of images (0: off)", positive, 0)
    .option("--ema <decay>", "average of the weights, which is what is kept (0: off)", number(0, 0.99999), 0.999)
    .option("--clip-norm <norm>", "largest global norm of a step's gradients", positive)
    .option("--flip <share>", "of the images to mirror", share, 0.5)
    .option("--pad-crop <pixels>", "shift by so many pixels at random (default: an eighth of small images)", positive)
    .option("--erasing <share>", "of the images to blank a rectangle in", share, 0)
    .option("--random-crop", "train on random parts of images (default: of large ones)")
    .option("--no-random-crop", "train on whole images")
    .addOption(
      new Option("--dtype <name>", "arithmetic of the passes; weights stay float32 (default: float32)").choices([
        "float32",
        "bfloat16",
        "float16",
      ]),
    )
    .option("--seed <number>", "of first weights, order and augmentation", parseSeed, 0);
}

/** The recipe's learning rate, which grows with the images a step sees (Goyal et al. 2017). */
export function learningRate({ lr, optimizer, accumulate }: Recipe, batch: number): number {
  return lr ?? ((optimizer === "sgd" ? 0.1 : 1e-3) * batch * accumulate) / 128;
}

export function makeOptimizer(recipe: Recipe, model: Module, batch: number): Optimizer {
  const { optimizer, momentum, weightDecay, normDecay } = recipe;
  const lr = learningRate(recipe, batch);
  const trained = model.parameters().filter(({ requiresGrad }) => requiresGrad);
  const parameters = normDecay ? trained : withoutNormDecay(model, weightDecay);
  return optimizer === "sgd"
    ? new SGD(parameters, { lr, momentum, weightDecay, nesterov: true })
    : new AdamW(parameters, { lr, weightDecay });
}

/** The recipe's learning rate at every step. Throws ArgumentError for a warm-up that is longer than the training. */
export function makeSchedule(recipe: Recipe, lr: number, stepsPerEpoch: number): Schedule {
  const { schedule, warmup, epochs } = recipe;
  const totalSteps = epochs * stepsPerEpoch;
  const given = Math.round(warmup * stepsPerEpoch);
  if (warmup > 1 && given >= totalSteps)
    throw new ArgumentError(expected("--warmup", `fewer than the ${epochs} epochs of training`, `${warmup}`));
  // the default of one epoch must not swallow a very short training
  const warmupSteps = Math.min(given, Math.floor(totalSteps / 4));
  switch (schedule) {
    case "onecycle":
      return oneCycleSchedule({ maxLr: lr, totalSteps, pctStart: Math.max(warmupSteps, 1) / totalSteps });
    case "step": {
      const milestones = [0.5, 0.75].map((part) => Math.floor(part * totalSteps) - warmupSteps);
      return stepSchedule({ lr, milestones, warmupSteps });
    }
    case "constant":
      return constantSchedule({ lr, warmupSteps });
    case "cosine":
      return cosineSchedule({ lr, totalSteps, warmupSteps });
  }
}
