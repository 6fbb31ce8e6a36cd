import { type ChildProcess, fork } from "node:child_process";
import { join } from "node:path";
import type { Answer, Job, Started, Turn } from "./runner.js";

/** A runner's process, seen from the bench: asked, it works; otherwise it waits, and its threads sleep. */
export class Child {
  readonly #process: ChildProcess;

  private constructor(
    readonly job: Job,
    process: ChildProcess,
    readonly started: Started,
  ) {
    this.#process = process;
  }

  /** Starts a runner and waits until it has loaded its network. Throws what the runner says when it cannot. */
  static async start(job: Job): Promise<Child> {
    const child = fork(join(__dirname, "runner.js"), [JSON.stringify(job)], { serialization: "advanced" });
    return new Child(job, child, await reply<Started>(child));
  }

  ask(turn: Turn): Promise<Answer> {
    const answer = reply<Answer>(this.#process);
    this.#process.send(turn);
    return answer;
  }

  async stop(): Promise<void> {
    const ended = new Promise((resolve) => this.#process.once("exit", resolve));
    this.#process.kill("SIGKILL");
    await ended;
  }
}

function reply<T>(child: ChildProcess): Promise<T> {
  return new Promise((resolve, reject) => {
    const settle = (work: () => void) => {
      child.off("message", message).off("exit", ended);
      work();
    };
    const message = (value: unknown) =>
      settle(() => {
        const { failed } = value as { failed?: string };
        if (failed === undefined) resolve(value as T);
        else reject(new Error(failed));
      });
    const ended = (code: number | null) => settle(() => reject(new Error(`the process ended with code ${code}`)));
    child.on("message", message).on("exit", ended);
  });
}
