import { type ChildProcess, fork, spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { GpuAnswers, GpuJob, GpuStarted, GpuTurn } from "./cuda_runner.js";
import { root } from "./report.js";

/** Whoever answers: one of our processes, or PyTorch's in one of its modes. */
export const contenders = ["seresnet", "torch eager", "torch compile"] as const;
export type Contender = (typeof contenders)[number];

interface Reply {
  readonly answer?: unknown;
  readonly failed?: string;
}

/** A process at work on a job, seen from the bench: asked, it works; otherwise it waits. */
export class GpuChild {
  readonly #process: ChildProcess;
  readonly #send: (turn: GpuTurn) => void;
  #settle?: (reply: Reply) => void;

  private constructor(
    readonly contender: Contender,
    child: ChildProcess,
    send: (turn: GpuTurn) => void,
  ) {
    this.#process = child;
    this.#send = send;
    let words = "";
    child.stderr?.on("data", (chunk: Buffer) => {
      words = (words + chunk.toString()).slice(-2000);
    });
    const ended = (why: string) => this.#settle?.({ failed: `${contender}: ${why}${lastLine(words)}` });
    child.on("message", (reply: Reply) => this.#settle?.(reply));
    child.on("error", (error) => ended(`it could not be started: ${error.message}`));
    child.on("close", (code, signal) => ended(`the process ended with ${signal ?? `code ${code}`}`));
  }

  started!: GpuStarted;
  /** Seconds that every answer may take. */
  #patience = Number.POSITIVE_INFINITY;

  /** Starts a process and waits until it can be asked. Throws what it says when it cannot, or when it says nothing. */
  static async start(contender: Contender, job: GpuJob, python: string, patience: number): Promise<GpuChild> {
    const child = contender === "seresnet" ? GpuChild.#ours(job) : GpuChild.#torch(contender, job, python);
    child.#patience = patience;
    try {
      child.started = (await child.#reply()) as GpuStarted;
      return child;
    } catch (error) {
      await child.stop();
      throw error;
    }
  }

  static #ours(job: GpuJob): GpuChild {
    const child = fork(join(__dirname, "cuda_runner.js"), [JSON.stringify(job)], {
      serialization: "advanced",
      stdio: ["ignore", "ignore", "pipe", "ipc"],
    });
    return new GpuChild("seresnet", child, (turn) => child.send(turn));
  }

  /** Lines of JSON both ways; what else it prints does not begin with an @. */
  static #torch(contender: Contender, job: GpuJob, python: string): GpuChild {
    const words = [join(root, "bench/peers/torch_peer.py"), contender.split(" ")[1], JSON.stringify(job)];
    const child = spawn(python, words, { stdio: ["pipe", "pipe", "pipe"] });
    child.stdin.on("error", () => {}); // its end is told by its exit
    createInterface(child.stdout).on("line", (line) => {
      if (line.startsWith("@")) child.emit("message", JSON.parse(line.slice(1)));
    });
    return new GpuChild(contender, child, (turn) => child.stdin.write(`${JSON.stringify(turn)}\n`));
  }

  async ask<K extends keyof GpuAnswers>(turn: GpuTurn & { ask: K }): Promise<GpuAnswers[K]> {
    const reply = this.#reply();
    this.#send(turn);
    return (await reply) as GpuAnswers[K];
  }

  async stop(): Promise<void> {
    const { exitCode, signalCode } = this.#process;
    if (exitCode !== null || signalCode !== null || this.#process.pid === undefined) return;
    const ended = new Promise((resolve) => this.#process.once("exit", resolve));
    this.#process.kill("SIGKILL");
    await ended;
    // processes that it started may live on and hold these, which would keep this one alive
    for (const stream of [this.#process.stdin, this.#process.stdout, this.#process.stderr]) stream?.destroy();
  }

  #reply(): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const silent = `${this.contender}: no answer in ${this.#patience} s`;
      const timer = Number.isFinite(this.#patience)
        ? setTimeout(() => this.#settle?.({ failed: silent }), 1e3 * this.#patience)
        : undefined;
      this.#settle = ({ answer, failed }) => {
        this.#settle = undefined;
        clearTimeout(timer);
        if (failed === undefined) resolve(answer);
        else reject(new Error(failed));
      };
    });
  }
}

function lastLine(words: string): string {
  const last = words.trim().split("\n").at(-1);
  return last ? `: ${last}` : "";
}
