import type { Dataset } from "../data/dataset.js";
import { decodeImage } from "../image/decode.js";
import { loadSharp } from "../image/sharp.js";
import type { CheckpointInfo } from "../io/checkpoint.js";
import { writeTextFile } from "../io/text.js";
import type { Answer, Evaluation } from "./evaluate.js";
import type { EpochReport } from "./fit_options.js";
import { escapeHtml, page, percent, section, table } from "./html.js";
import { Plots } from "./plots.js";

/** What a report tells of. */
export interface ReportSource {
  readonly info: CheckpointInfo;
  /** How the model was trained, by name. */
  readonly settings: Readonly<Record<string, unknown>>;
  readonly history: readonly EpochReport[];
  /** What the model says about the images of `held`. */
  readonly evaluation: Evaluation | undefined;
  readonly held: Dataset | undefined;
}

/** How well a model tells one class from all others. */
export interface ClassScore {
  readonly label: string;
  readonly images: number;
  /** Share of what was called so that is so; null when nothing was called so. */
  readonly precision: number | null;
  /** Share of what is so that was called so; null when nothing is so. */
  readonly recall: number | null;
}

const mistakesShown = 24;
/** More classes than this and the confusion matrix is no image any more. */
const mostInMatrix = 40;

/** How often images of class `row` were called class `column`. */
export function confusionOf(answers: readonly Answer[], classes: number): number[][] {
  const counts = Array.from({ length: classes }, () => new Array<number>(classes).fill(0));
  for (const { truth, predicted } of answers) counts[truth][predicted]++;
  return counts;
}

export function scoresOf(answers: readonly Answer[], classes: readonly string[]): ClassScore[] {
  const counts = classes.map(() => ({ images: 0, called: 0, right: 0 }));
  for (const { truth, predicted } of answers) {
    counts[truth].images++;
    counts[predicted].called++;
    if (truth === predicted) counts[truth].right++;
  }
  return counts.map(({ images, called, right }, i) => {
    const share = (of: number) => (of > 0 ? right / of : null);
    return { label: classes[i], images, precision: share(called), recall: share(images) };
  });
}

/**
 * Writes how a training went as one HTML file that needs nothing else: no scripts, no fonts, no network.
 * Throws ArgumentError where it cannot be written.
 */
export async function writeReport(path: string, source: ReportSource): Promise<void> {
  await writeTextFile(path, await renderReport(source));
}

export async function renderReport({ info, settings, history, evaluation, held }: ReportSource): Promise<string> {
  const plots = await Plots.load();
  const { classes } = info;
  const last = history.at(-1);
  const sections = [
    section("Loss", plots.curves("loss", history, { training: "loss", validation: "validationLoss" }), legend),
    section(
      "Accuracy",
      plots.curves("accuracy (%)", history, { training: "accuracy", validation: "validationAccuracy" }, true),
      legend,
    ),
    section("Learning rate", plots.learningRate(history)),
  ];
  if (evaluation && held && evaluation.images > 0) {
    const { answers } = evaluation;
    if (classes.length <= mostInMatrix)
      sections.push(section("Confusion matrix", plots.confusion(confusionOf(answers, classes.length), classes)));
    sections.push(section("Classes", scoreTable(scoresOf(answers, classes))));
    sections.push(section("The worst mistakes", await mistakes(evaluation, held)));
  }
  sections.push(section("Epochs", epochTable(history)), section("Settings", settingsTable(settings)));
  const accuracy = last?.validationAccuracy ?? last?.accuracy;
  const facts = [
    `${last?.epoch ?? 0} epochs, ${last?.step ?? 0} steps`,
    ...(accuracy === undefined
      ? []
      : [`${last?.validationAccuracy === undefined ? "training" : "validation"} accuracy ${percent(accuracy)}`]),
    ...(evaluation ? [`${evaluation.images} images judged`] : []),
  ];
  return page({ title: `${info.model}: training report`, heading: info.model, facts, sections });
}

const legend =
  '<p class="legend"><span style="color:#8a94a6">━</span> training <span style="color:#2563eb">━</span> validation</p>';

function scoreTable(scores: readonly ClassScore[]): string {
  const share = (value: number | null) => (value === null ? "" : percent(value));
  return table(
    ["class", "images", "precision", "recall"],
    scores.map(({ label, images, precision, recall }) => [label, `${images}`, share(precision), share(recall)]),
  );
}

function epochTable(history: readonly EpochReport[]): string {
  const number = (value: number | undefined) => (value === undefined ? "" : value.toFixed(4));
  const share = (value: number | undefined) => (value === undefined ? "" : percent(value));
  return table(
    [
      "epoch",
      "loss",
      "accuracy",
      "validation loss",
      "validation accuracy",
      "images a second",
      "device idle",
      "skipped",
    ],
    history.map((epoch) => [
      `${epoch.epoch}`,
      number(epoch.loss),
      share(epoch.accuracy),
      number(epoch.validationLoss),
      share(epoch.validationAccuracy),
      `${Math.round(epoch.imagesPerSecond)}`,
      share(epoch.idle),
      `${epoch.skipped}`,
    ]),
  );
}

function settingsTable(settings: Readonly<Record<string, unknown>>): string {
  const rows = Object.entries(settings).map(([name, value]) => {
    const text = typeof value === "string" ? value : (JSON.stringify(value) ?? "");
    return [name, text.length > 120 ? `${text.slice(0, 120)}…` : text];
  });
  return table(["setting", "value"], rows);
}

/** The images the model was surest about and wrong. */
async function mistakes({ answers }: Evaluation, held: Dataset): Promise<string> {
  const worst = answers
    .filter(({ truth, predicted }) => truth !== predicted)
    .sort((a, b) => b.loss - a.loss)
    .slice(0, mistakesShown);
  if (worst.length === 0) return "<p>None.</p>";
  const figures = await Promise.all(
    worst.map(async ({ index, truth, predicted, confidence }) => {
      const caption = `<span class="wrong">${escapeHtml(held.classes[predicted])}</span> ${percent(confidence, 0)}<br>is ${escapeHtml(held.classes[truth])}`;
      return `<figure><img alt="" src="${await dataUrl(held, index)}"><figcaption>${caption}</figcaption></figure>`;
    }),
  );
  return `<div class="images">${figures.join("")}</div>`;
}

async function dataUrl({ pictures }: Dataset, index: number): Promise<string> {
  const sharp = loadSharp();
  if (pictures.kind === "pixels") {
    const { data, height, width } = pictures;
    const size = height * width;
    const raw = { height, width, channels: 1 as const };
    const png = await sharp(data.slice(index * size, (index + 1) * size), { raw })
      .png()
      .toBuffer();
    return `data:image/png;base64,${png.toString("base64")}`;
  }
  const { data, width, height, channels } = await decodeImage(pictures.paths[index]);
  const jpeg = await sharp(data, { raw: { width, height, channels } })
    .resize(264, 264, { fit: "inside", withoutEnlargement: true })
    .jpeg({ quality: 80 })
    .toBuffer();
  return `data:image/jpeg;base64,${jpeg.toString("base64")}`;
}
