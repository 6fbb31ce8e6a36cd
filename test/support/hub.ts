import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** What a hub does wrong, by the part of its address it does it at. */
export interface Fault {
  readonly status?: number;
  readonly body?: string;
  readonly location?: string;
  /** Breaks the connection after so many bytes of a file. */
  readonly cutAfter?: number;
  /** Sends all of a file, whatever range was asked for. */
  readonly ignoresRanges?: boolean;
  /** Sends the second half of a file so many milliseconds after the first. */
  readonly pauses?: number;
}

/** A hub on loopback with one model, `me/net`, whose files lie behind a redirect, as the real one's do. */
export class Hub {
  readonly commit = "0123456789abcdef0123456789abcdef01234567";
  readonly files = new Map<string, Buffer>();
  /** Checksums that are not those of the files. */
  readonly lies = new Map<string, string>();
  /** Method, path and range of every request. */
  readonly requests: string[] = [];
  readonly faults = new Map<RegExp, Fault>();
  token: string | undefined;
  readonly #server: Server;

  private constructor() {
    this.#server = createServer((request, response) => {
      request.on("data", (chunk: Buffer) => body.push(chunk));
      const body: Buffer[] = [];
      request.on("end", () => this.#answer(request, response, Buffer.concat(body).toString()));
    });
  }

  static async open(): Promise<Hub> {
    const hub = new Hub();
    await new Promise<void>((resolve) => hub.#server.listen(0, "127.0.0.1", resolve));
    return hub;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  close(): Promise<void> {
    this.#server.closeAllConnections();
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }

  #answer(request: IncomingMessage, response: ServerResponse, body: string): void {
    const { method, url = "", headers } = request;
    this.requests.push([method, url.replace(/\?.*/, ""), headers.range].filter(Boolean).join(" "));
    const fault = [...this.faults].find(([where]) => where.test(url))?.[1] ?? {};
    const json = (value: unknown) => response.setHeader("content-type", "application/json").end(JSON.stringify(value));
    if (fault.location !== undefined) return void response.writeHead(302, { location: fault.location }).end();
    if (fault.body !== undefined) return void response.writeHead(fault.status ?? 200).end(fault.body);
    if (fault.status !== undefined) return void response.writeHead(fault.status).end();
    if (this.token !== undefined && !url.startsWith("/cdn/") && headers.authorization !== `Bearer ${this.token}`)
      return void response.writeHead(401).end();
    if (/^\/api\/models\/me\/net\/revision\/(main|v2)\?/.test(url))
      return void json({ id: "me/net", sha: this.commit });
    if (url === `/api/models/me/net/paths-info/${this.commit}`) {
      const { paths } = JSON.parse(body) as { paths: string[] };
      return void json(paths.filter((path) => this.files.has(path)).map((path) => this.#info(path)));
    }
    const [, place, path] = /^\/(?:me\/net\/(resolve)\/[0-9a-f]{40}|cdn)\/(.+)$/.exec(url) ?? [];
    const file = path === undefined ? undefined : this.files.get(path);
    if (!file) return void response.writeHead(404).end();
    if (place === "resolve") return void response.writeHead(302, { location: `/cdn/${path}` }).end();
    const from = fault.ignoresRanges ? 0 : Number(/^bytes=(\d+)-/.exec(headers.range ?? "")?.[1] ?? 0);
    response.writeHead(from > 0 ? 206 : 200, { "content-length": file.length - from });
    if (fault.pauses !== undefined) {
      const half = Math.floor((from + file.length) / 2);
      response.write(file.subarray(from, half));
      return void setTimeout(() => response.end(file.subarray(half)), fault.pauses);
    }
    if (fault.cutAfter === undefined) return void response.end(file.subarray(from));
    response.write(file.subarray(from, from + fault.cutAfter), () => setTimeout(() => response.destroy(), 20));
  }

  /** As the hub says it: git's checksum for small files, SHA-256 for those in LFS. */
  #info(path: string) {
    const file = this.files.get(path) as Buffer;
    const lie = this.lies.get(path);
    const git = createHash("sha1").update(`blob ${file.length}\0`).update(file).digest("hex");
    const isLarge = !path.endsWith(".json");
    const sha256 = lie ?? createHash("sha256").update(file).digest("hex");
    const lfs = isLarge ? { lfs: { oid: sha256, size: file.length, pointerSize: 130 } } : {};
    return { type: "file", path, size: file.length, oid: isLarge ? git : (lie ?? git), ...lfs };
  }
}
