import { monitorEventLoopDelay } from "node:perf_hooks";
import { ImageClassifier } from "../lib/index.js";

/** What a process of bench/photos.ts is to do. */
export interface PhotosJob {
  readonly paths: readonly string[];
  readonly weights?: string;
  readonly draft?: boolean;
  readonly withoutAddon?: boolean;
}

export interface PhotosAnswer {
  readonly perSecond: number;
  /** Milliseconds that the event loop was late: the 99th percentile, and the most. */
  readonly p99: number;
  readonly longest: number;
  /** Resident memory at its peak, in MiB. */
  readonly peak: number;
  /** Milliseconds that one image by itself takes. */
  readonly alone: number;
}

async function measure({ paths, weights, draft }: PhotosJob): Promise<PhotosAnswer> {
  const classifier = await ImageClassifier.load(weights, { draft });
  await classifier.classify(paths.slice(0, 2)); // plans and threads
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const start = performance.now();
  await classifier.classify(paths, { topK: 1 });
  const seconds = (performance.now() - start) / 1000;
  delay.disable();
  const { maxRSS } = process.resourceUsage();
  const alone: number[] = [];
  for (const path of paths.slice(0, 7)) {
    const begin = performance.now();
    await classifier.classify(path, { topK: 1 });
    alone.push(performance.now() - begin);
  }
  await classifier.dispose();
  return {
    perSecond: paths.length / seconds,
    p99: delay.percentile(99) / 1e6,
    longest: delay.max / 1e6,
    peak: maxRSS / 1024,
    alone: alone.sort((a, b) => a - b)[3],
  };
}

void measure(JSON.parse(process.argv[2]) as PhotosJob).then((answer) => {
  process.send?.(answer);
  process.disconnect();
});
