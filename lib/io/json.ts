/** Far deeper than any file of ours; without a limit a few megabytes of brackets exhaust JSON.parse's memory. */
const deepest = 64;

/**
 * Parses `text` as JSON and also refuses what JSON.parse lets pass: an object that names a key twice (the last would
 * silently win) and absurd nesting. A key `__proto__` becomes an ordinary own property. Throws SyntaxError.
 */
export function parseStrictJson(text: string): unknown {
  checkNesting(text);
  return JSON.parse(text);
}

/**
 * Walks the brackets and strings; text that is not JSON passes through or throws, JSON.parse has the last word on it.
 * Inside an object every string directly after `{` or `,` is a key.
 */
function checkNesting(text: string): void {
  const open: (Set<string> | undefined)[] = []; // one entry for each open bracket; undefined for arrays
  let keyNext = false;
  for (let at = 0; at < text.length; at++) {
    switch (text[at]) {
      case "{":
      case "[":
        keyNext = text[at] === "{";
        open.push(keyNext ? new Set() : undefined);
        if (open.length > deepest) throw new SyntaxError(`nesting deeper than ${deepest} at position ${at}`);
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
        while (at < text.length && text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
        if (keyNext) addKey(open.at(-1), text.slice(start, at + 1), start);
        keyNext = false;
      }
    }
  }
}

function addKey(keys: Set<string> | undefined, literal: string, position: number): void {
  const key = JSON.parse(literal) as string; // an escape can spell the same key in another way
  if (keys?.has(key)) throw new SyntaxError(`duplicate key ${quoted(key)} at position ${position}`);
  keys?.add(key);
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
