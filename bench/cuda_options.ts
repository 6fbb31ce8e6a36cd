import { parseArgs } from "node:util";
import { type Contender, contenders } from "./cuda_child.js";
import type { Dtype } from "./cuda_runner.js";
import { oneOf } from "./report.js";

/** What is measured where: on a GPU, and on the host, kernels and all, to see that the benchmark itself works. */
export const settings = {
  cuda: {
    models: ["seresnet50", "resnet50", "seresnet18", "resnet18"],
    image: [3, 224, 224],
    numClasses: 1000,
    batches: [128, 1, 256, 32], // what is asked for most comes first
    rounds: 7,
    /** Milliseconds that a turn takes. */
    turn: 200,
    /** Bytes: many times the caches. */
    scratch: 2 ** 30,
    /** A convolution 1x1 of as many channels as it has in and out: a large product of matrices. */
    product: [2, 4096, 64, 64],
  },
  "cuda-sim": {
    models: ["seresnet14_cifar", "resnet14_cifar"],
    image: [3, 9, 8],
    numClasses: 10,
    batches: [2, 1],
    rounds: 2,
    turn: 0,
    scratch: 2 ** 12,
    product: [1, 8, 4, 4],
  },
} as const;

const dtypes: readonly Dtype[] = ["float16", "bfloat16", "tf32", "float32"];
/** A case to measure. */
export interface Wanted {
  readonly model: string;
  readonly dtype: Dtype;
  readonly batch: number;
}

export interface Options {
  readonly device: keyof typeof settings;
  readonly cases: readonly Wanted[];
  readonly rounds: number;
  /** No new case is begun after so many. */
  readonly minutes: number;
  readonly contenders: readonly Contender[];
  readonly python: string;
  /** Seconds that each answer of a contender may take. */
  readonly patience: number;
  /** A folder with what the reference says, computed elsewhere. */
  readonly logits?: string;
  /** Only starts the contenders, which fills the caches that they keep from process to process. */
  readonly warm: boolean;
  /** The folder of the results file. */
  readonly results?: string;
}

const text = { type: "string" } as const;
const words = {
  device: { ...text, default: "cuda" },
  model: text,
  dtype: text,
  batch: text,
  cases: text,
  rounds: text,
  minutes: text,
  peers: { ...text, default: "eager,compile" },
  python: { ...text, default: process.env.SERESNET_PYTHON || "python3" },
  results: text,
  patience: { ...text, default: "600" },
  logits: text,
  warm: { type: "boolean", default: false },
} as const;

/** The words of the command line. Throws what is wrong with them. */
export function parse(args: readonly string[]): Options {
  const { values } = parseArgs({ args: [...args], options: words });
  const device = oneOf("--device", values.device, Object.keys(settings)) as Options["device"];
  const { models, batches, rounds } = settings[device];
  const list = (name: "model" | "dtype" | "peers", known: readonly string[]) =>
    values[name]?.split(",").map((word) => oneOf(`--${name}`, word, known)) ?? known;
  const number = (name: "rounds" | "minutes", otherwise: number) =>
    values[name] === undefined ? otherwise : positive(`--${name}`, values[name]);
  const peers = values.peers === "none" ? [] : list("peers", ["eager", "compile"]);
  const lists = ["model", "dtype", "batch"].find((name) => values[name as "model"] !== undefined);
  if (values.cases !== undefined && lists) throw new Error(`bench: expected --cases or --${lists}, got both`);
  const sizes = values.batch?.split(",").map((word) => positive("--batch", word)) ?? batches;
  const all = list("dtype", dtypes).flatMap((dtype) =>
    sizes.flatMap((batch) => list("model", models).map((model) => ({ model, dtype, batch }) as Wanted)),
  );
  return {
    device,
    cases: values.cases?.split(",").map((word) => caseOf(word, models)) ?? all,
    patience: positive("--patience", values.patience),
    logits: values.logits,
    warm: values.warm,
    rounds: number("rounds", rounds),
    minutes: number("minutes", Number.POSITIVE_INFINITY),
    contenders: contenders.filter((name) => name === "seresnet" || peers.includes(name.split(" ")[1])),
    python: values.python,
    results: values.results,
  };
}

/** "seresnet50:float16:128". */
function caseOf(word: string, models: readonly string[]): Wanted {
  const [model, dtype, batch, ...rest] = word.split(":");
  if (batch === undefined || rest.length > 0)
    throw new Error(`bench: expected --cases like ${models[0]}:float16:128, got ${word}`);
  return {
    model: oneOf("--cases", model, models),
    dtype: oneOf("--cases", dtype, dtypes) as Dtype,
    batch: positive("--cases", batch),
  };
}

function positive(name: string, word: string): number {
  if (!/^[1-9]\d{0,5}$/.test(word)) throw new Error(`bench: expected ${name} to be a whole number, got ${word}`);
  return Number(word);
}
