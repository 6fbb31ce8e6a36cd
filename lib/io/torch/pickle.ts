import { expected, WeightsError } from "../../errors.js";
import { quoted } from "../json.js";

/**
 * Something that a pickle asks for and weights have no use for: a name, or what calling it would have made. It runs nothing
 * and holds nothing; whatever is done to it leaves it as it is.
 */
export class Inert {
  constructor(
    /** `module.name`, as messages show it. */
    readonly name: string,
    /** What a function is called with; undefined for the function itself. */
    readonly args?: readonly unknown[],
  ) {}
}

/** What a pickle may name, and what that means here. Nothing outside is ever reached. */
export interface PickleWorld {
  /** Stands in messages. */
  readonly file: string;
  /** What `module.name` stands for: a `PickleFunction` or plain data; undefined makes it `Inert`. */
  global(name: string): unknown;
  /** Ends what is read, for a pickle that cannot be read on; `asked` is the first name that was inert. */
  refuse(asked: string): never;
  /** The object that a persistent id, which the program that wrote the file made up, stands for; undefined for none of ours. */
  persistent(id: unknown): unknown;
}

/**
 * What REDUCE may call; undefined for arguments that it does not take. `charge` counts work that is not proportional to
 * the bytes of the pickle.
 */
export type PickleFunction = (args: readonly unknown[], charge: (work: number) => void) => unknown;

/** The pickle of a state dict has some 50 bytes and 40 operations a tensor: these are limits for thousands of models. */
const mostBytes = 16 * 2 ** 20;
const mostWork = 1_000_000;
const longestName = 1024;
/** What an empty dict counts for, which takes far more memory than the byte that asks for it. */
export const dictWork = 8;

/**
 * Reads one pickle (protocols 2 to 5) that starts at byte `start`: None, booleans, numbers, strings, bytes, lists and
 * tuples and sets (arrays), dicts (Maps), what `world` makes of globals and persistent ids, and `Inert` for other globals. It has no operation that could
 * create anything else, does not recurse, and its work and memory are bounded.
 * Throws WeightsError for every other operation, and for a truncated, damaged or oversized pickle.
 */
export function unpickle(
  bytes: Uint8Array,
  start: number,
  world: PickleWorld,
): { value: unknown; end: number; asked: string | undefined } {
  const reader = new PickleReader(bytes, start, world);
  const value = reader.run();
  return { value, end: reader.at, asked: reader.asked };
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

class PickleReader {
  at: number;
  readonly #end: number;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #world: PickleWorld;
  readonly #stack: unknown[] = [];
  /** Heights of the stack at which MARKs were set. */
  readonly #marks: number[] = [];
  readonly #memo = new Map<number, unknown>();
  #work = 0;
  /** The first name that this world has no use for. */
  asked: string | undefined;

  constructor(bytes: Uint8Array, start: number, world: PickleWorld) {
    this.at = start;
    this.#end = Math.min(bytes.length, start + mostBytes);
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#world = world;
  }

  /** Runs to STOP. */
  run(): unknown {
    for (;;) {
      this.#charge(1);
      const at = this.at;
      const opcode = this.#uint(1);
      if (opcode === 0x2e) return this.#result();
      if (!(this.#runData(opcode) || this.#runContainer(opcode) || this.#runReference(opcode)))
        this.#fail("operations that weights need", `opcode 0x${opcode.toString(16).padStart(2, "0")} at byte ${at}`);
    }
  }

  /** Numbers, strings and frames. False for an opcode of another kind. */
  #runData(opcode: number): boolean {
    switch (opcode) {
      case 0x80: // PROTO
        return this.#checkProtocol(this.#uint(1));
      case 0x95: // FRAME
        return this.#take(8).length === 8;
      case 0x4e: // NONE
        return this.#push(null);
      case 0x88: // NEWTRUE
        return this.#push(true);
      case 0x89: // NEWFALSE
        return this.#push(false);
      case 0x4b: // BININT1
        return this.#push(this.#uint(1));
      case 0x4d: // BININT2
        return this.#push(this.#uint(2));
      case 0x4a: // BININT
        return this.#push(this.#uint(4) | 0);
      case 0x8a: // LONG1
        return this.#push(toInteger(this.#take(this.#uint(1))));
      case 0x8b: // LONG4
        return this.#push(toInteger(this.#take(this.#uint(4))));
      case 0x47: // BINFLOAT
        this.#take(8);
        return this.#push(this.#view.getFloat64(this.at - 8));
      case 0x8c: // SHORT_BINUNICODE
      case 0x55: // SHORT_BINSTRING, a str of Python 2
        return this.#push(this.#text(this.#take(this.#uint(1))));
      case 0x58: // BINUNICODE
      case 0x54: // BINSTRING
        return this.#push(this.#text(this.#take(this.#uint(4))));
      case 0x43: // SHORT_BINBYTES
        return this.#push(this.#take(this.#uint(1)));
      case 0x42: // BINBYTES
        return this.#push(this.#take(this.#uint(4)));
      case 0x8d: // BINUNICODE8
        return this.#push(this.#text(this.#take(this.#length())));
      case 0x8e: // BINBYTES8
      case 0x96: // BYTEARRAY8
        return this.#push(this.#take(this.#length()));
      default:
        return false;
    }
  }

  /** Lists, tuples and dicts. */
  #runContainer(opcode: number): boolean {
    switch (opcode) {
      case 0x28: // MARK
        this.#marks.push(this.#stack.length);
        return true;
      case 0x5d: // EMPTY_LIST
      case 0x29: // EMPTY_TUPLE
      case 0x8f: // EMPTY_SET
        return this.#push([]);
      case 0x91: // FROZENSET
        return this.#push(this.#popToMark());
      case 0x30: // POP
        return this.#popMany(1).length === 1;
      case 0x31: // POP_MARK
        return this.#popToMark().length >= 0;
      case 0x32: // DUP
        return this.#push(this.#top());
      case 0x7d: // EMPTY_DICT
        this.#charge(dictWork);
        return this.#push(new Map());
      case 0x85: // TUPLE1
      case 0x86: // TUPLE2
      case 0x87: // TUPLE3
        return this.#push(this.#popMany(opcode - 0x84));
      case 0x74: // TUPLE
        return this.#push(this.#popToMark());
      case 0x61: // APPEND
        return this.#append([this.#pop()]);
      case 0x65: // APPENDS
      case 0x90: // ADDITEMS
        return this.#append(this.#popToMark());
      case 0x73: // SETITEM
        return this.#setItems(this.#popMany(2));
      case 0x75: // SETITEMS
        return this.#setItems(this.#popToMark());
      default:
        return false;
    }
  }

  /** The memo, globals, and what is made of them. */
  #runReference(opcode: number): boolean {
    switch (opcode) {
      case 0x71: // BINPUT
        return this.#remember(this.#uint(1));
      case 0x72: // LONG_BINPUT
        return this.#remember(this.#uint(4));
      case 0x94: // MEMOIZE
        return this.#remember(this.#memo.size);
      case 0x68: // BINGET
        return this.#recall(this.#uint(1));
      case 0x6a: // LONG_BINGET
        return this.#recall(this.#uint(4));
      case 0x63: // GLOBAL
        return this.#global(this.#line(), this.#line());
      case 0x69: // INST: a global and a call of it; no global of ours is called this way, but it is refused by its name
        this.#global(this.#line(), this.#line());
        return false;
      case 0x93: {
        // STACK_GLOBAL
        const [module, name] = this.#popMany(2);
        return this.#global(module, name);
      }
      case 0x51: // BINPERSID
        return this.#push(
          this.#world.persistent(this.#pop()) ??
            this.#fail("references to storages of tensors", "one to something else"),
        );
      case 0x52: {
        // REDUCE
        const [callee, args] = this.#popMany(2);
        if (callee instanceof Inert && Array.isArray(args)) return this.#push(this.#inert(callee.name, args));
        if (typeof callee !== "function" || !Array.isArray(args))
          this.#fail("calls of functions with tuples", "something else");
        const result = (callee as PickleFunction)(args, (work) => this.#charge(work));
        if (result === undefined) this.#fail("calls with the arguments they take", `others before byte ${this.at}`);
        return this.#push(result);
      }
      case 0x81: // NEWOBJ
      case 0x92: {
        // NEWOBJ_EX
        const [type, ...args] = this.#popMany(opcode === 0x81 ? 2 : 3);
        return type instanceof Inert && this.#push(this.#inert(type.name, args));
      }
      case 0x62: // BUILD
        return this.#build(this.#pop());
      default:
        return false;
    }
  }

  /** What cannot be read on after a name of no use here is most often about that. */
  #fail(what: string, got: string): never {
    if (this.asked !== undefined) this.#world.refuse(this.asked);
    throw new WeightsError(expected(this.#world.file, `a pickle with ${what}`, got));
  }

  #charge(work: number): void {
    this.#work += work;
    if (this.#work > mostWork) this.#fail(`at most ${mostWork} operations`, "more");
  }

  #inert(name: string, args?: readonly unknown[]): Inert {
    this.#charge(dictWork);
    return new Inert(name, args);
  }

  /** A length of 8 bytes. */
  #length(): number {
    this.#take(8);
    return Number(this.#view.getBigUint64(this.at - 8, true));
  }

  #checkProtocol(protocol: number): boolean {
    if (protocol > 5) this.#fail("protocol 2 to 5", `${protocol}`);
    return true;
  }

  #take(length: number): Uint8Array {
    const from = this.at;
    if (from + length > this.#end) {
      const isCut = this.#end === this.#bytes.length;
      if (isCut) this.#fail("an end", `a file truncated at byte ${this.#end}`);
      this.#fail(`at most ${mostBytes} bytes`, "more");
    }
    this.at += length;
    return this.#bytes.subarray(from, this.at);
  }

  /** An unsigned little-endian integer of 1, 2 or 4 bytes. */
  #uint(length: 1 | 2 | 4): number {
    this.#take(length);
    const from = this.at - length;
    if (length === 1) return this.#view.getUint8(from);
    return length === 2 ? this.#view.getUint16(from, true) : this.#view.getUint32(from, true);
  }

  #text(bytes: Uint8Array): string {
    try {
      return utf8.decode(bytes);
    } catch {
      this.#fail("text in UTF-8", `bytes that are not, before byte ${this.at}`);
    }
  }

  #line(): string {
    const from = this.at;
    const end = this.#bytes.subarray(from, Math.min(from + longestName, this.#end)).indexOf(0x0a);
    if (end < 0) {
      this.#take(longestName);
      this.#fail(`names of at most ${longestName} bytes`, `a longer one at byte ${from}`);
    }
    this.at = from + end + 1;
    return this.#text(this.#bytes.subarray(from, from + end));
  }

  #push(value: unknown): true {
    this.#stack.push(value);
    return true;
  }

  /** The last `count` values of the stack, none of them from below a MARK. */
  #popMany(count: number): unknown[] {
    if (this.#stack.length - count < (this.#marks.at(-1) ?? 0))
      this.#fail("values before what is made of them", `too few before byte ${this.at}`);
    return this.#stack.splice(this.#stack.length - count);
  }

  #pop(): unknown {
    return this.#popMany(1)[0];
  }

  #popToMark(): unknown[] {
    const mark = this.#marks.pop();
    if (mark === undefined) this.#fail("marks before what ends there", `none before byte ${this.at}`);
    return this.#stack.splice(mark);
  }

  /** The value that stays on the stack. */
  #top(): unknown {
    const value = this.#pop();
    this.#stack.push(value);
    return value;
  }

  #append(items: readonly unknown[]): true {
    const list = this.#top();
    if (list instanceof Inert) return true;
    if (!Array.isArray(list)) this.#fail("items that go to a list", "items of something else");
    for (const item of items) list.push(item);
    return true;
  }

  #setItems(items: readonly unknown[]): true {
    const dict = this.#top();
    if (dict instanceof Inert) return true;
    if (!(dict instanceof Map) || items.length % 2 !== 0)
      this.#fail("keys and values that go to a dict", "something else");
    for (let i = 0; i < items.length; i += 2) dict.set(items[i], items[i + 1]);
    return true;
  }

  #remember(index: number): true {
    this.#memo.set(index, this.#top());
    return true;
  }

  #recall(index: number): true {
    if (!this.#memo.has(index)) this.#fail("references to what came before", `one to ${index}, which did not`);
    return this.#push(this.#memo.get(index));
  }

  #global(module: unknown, name: unknown): true {
    if (typeof module !== "string" || typeof name !== "string") this.#fail("globals with names", "one without");
    const full = `${module}.${name}`;
    const shown = /^[\w.]{1,120}$/.test(full) ? full : quoted(full);
    const known = this.#world.global(shown);
    if (known === undefined) this.asked ??= shown;
    return this.#push(known ?? this.#inert(shown));
  }

  /** The attributes of an ordered dict (a state dict's `_metadata`) are not weights, nor are those of what is inert. */
  #build(_attributes: unknown): true {
    const object = this.#top();
    if (!(object instanceof Map || object instanceof Inert))
      this.#fail("attributes only on dicts", "attributes of something else");
    return true;
  }

  #result(): unknown {
    if (this.#stack.length !== 1 || this.#marks.length > 0)
      this.#fail("one object", `${this.#stack.length} at its end, at byte ${this.at}`);
    return this.#stack[0];
  }
}

/** A little-endian two's complement integer; a bigint where a number would be inexact. */
function toInteger(bytes: Uint8Array): number | bigint {
  if (bytes.length === 0) return 0;
  const hex = Buffer.from(bytes).reverse().toString("hex");
  const value = BigInt.asIntN(bytes.length * 8, BigInt(`0x${hex}`));
  return BigInt.asIntN(53, value) === value ? Number(value) : value;
}
