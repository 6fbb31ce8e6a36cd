import { spawn } from "node:child_process";

const endings = ["SIGINT", "SIGTERM", "SIGHUP"];
const hasGroups = process.platform !== "win32";

/**
 * Runs a program to its end: its status, and what it printed. `hear` is given all that it printed to stdout so far, each time
 * there is more. It leads a group of processes, which a signal that ends this process ends first: make and its compilers would
 * go on by themselves.
 */
export function runGroup(command, args, options, hear = () => {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { ...options, detached: hasGroups, stdio: ["ignore", "pipe", "pipe"] });
    let [stdout, stderr] = ["", ""];
    let ending;
    const end = (signal) => {
      ending = signal;
      try {
        process.kill(hasGroups ? -child.pid : child.pid, signal);
      } catch ({ code, message }) {
        if (code !== "ESRCH") stderr += message; // or it has just ended
      }
    };
    for (const signal of endings) process.on(signal, end);
    child.stdout.setEncoding("utf8").on("data", (text) => {
      stdout += text;
      hear(stdout);
    });
    child.stderr.setEncoding("utf8").on("data", (text) => {
      stderr += text;
    });
    child.on("error", ({ message }) => {
      stderr += message; // "close" follows
    });
    // not "exit": what the group's other processes print belongs to it
    child.on("close", (status) => {
      for (const signal of endings) process.off(signal, end);
      if (ending) process.kill(process.pid, ending);
      else resolve({ status, output: `${stdout}${stderr}` });
    });
  });
}
