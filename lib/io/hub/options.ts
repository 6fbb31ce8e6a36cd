import type { OptionNames } from "../../options.js";

/** How far a download is, in bytes. */
export interface DownloadProgress {
  readonly file: string;
  readonly received: number;
  readonly total: number;
}

export interface HubOptions {
  /** Told now and then while a file comes. */
  readonly onProgress?: (progress: DownloadProgress) => void;
}

export const hubNames: OptionNames<HubOptions> = { onProgress: true };
