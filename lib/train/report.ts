import type { Dataset } from "../data/dataset.js";
import type { CheckpointInfo } from "../io/checkpoint.js";
import { writeFileAtomic } from "../io/files.js";
import type { Evaluation } from "./evaluate.js";
import type { EpochReport } from "./fit.js";

/** What a report tells of. */
export interface ReportSource {
  readonly info: CheckpointInfo;
  readonly settings: Readonly<Record<string, unknown>>;
  readonly history: readonly EpochReport[];
  readonly evaluation: Evaluation | undefined;
  readonly held: Dataset | undefined;
}

export async function writeReport(path: string, { history }: ReportSource): Promise<void> {
  await writeFileAtomic(path, [Buffer.from(JSON.stringify(history))]);
}
