/**
 * Parses `text` as JSON and also refuses objects that name a key twice, which JSON.parse silently resolves to the last.
 * A key `__proto__` becomes an ordinary own property. Throws SyntaxError, with the key and its position where one repeats.
 */
export function parseStrictJson(text: string): unknown {
  const value: unknown = JSON.parse(text);
  checkKeys(text);
  return value;
}

/** Walks text that JSON.parse accepted: inside an object every string directly after `{` or `,` is a key. */
function checkKeys(text: string): void {
  const open: (Set<string> | undefined)[] = []; // one entry for each open bracket; undefined for arrays
  let keyNext = false;
  for (let at = 0; at < text.length; at++) {
    switch (text[at]) {
      case "{":
        open.push(new Set());
        keyNext = true;
        break;
      case "[":
        open.push(undefined);
        break;
      case "}":
      case "]":
        open.pop();
        keyNext = false;
        break;
      case ",":
        keyNext = open.at(-1) !== undefined;
        break;
      case '"': {
        const start = at++;
        while (text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
        if (!keyNext) break;
        keyNext = false;
        const key = JSON.parse(text.slice(start, at + 1)) as string;
        const keys = open.at(-1) as Set<string>;
        if (keys.has(key)) throw new SyntaxError(`duplicate key ${quoted(key)} at position ${start}`);
        keys.add(key);
      }
    }
  }
}

/** A JSON object, as opposed to an array, null or a plain value. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** `value` as JSON on one line, cut to what fits a message (it may come from a hostile file). */
export function quoted(value: unknown, most = 80): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > most ? `${text.slice(0, most)}…` : text;
}
