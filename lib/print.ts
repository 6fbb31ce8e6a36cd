import type { DType, HostArray } from "./dtype.js";
import { isFloat } from "./dtype.js";
import { formatShape } from "./shape.js";

// How PyTorch prints (torch/_tensor_str.py): 4 digits, lines of 80 characters, three items from each end above 1000.
const precision = 4;
const lineWidth = 80;
const edgeItems = 3;
const threshold = 1000;

type Format = (value: number | bigint) => string;

/** A tensor as PyTorch prints it; `values` are its elements where they are known. */
export function tensorText(
  values: HostArray | undefined,
  { shape, dtype, requiresGrad = false }: { shape: readonly number[]; dtype: DType; requiresGrad?: boolean },
): string {
  const suffixes = [
    ...(dtype === "float32" || dtype === "int64" ? [] : [`dtype=${dtype}`]),
    ...(requiresGrad ? ["requires_grad=True"] : []),
  ];
  if (!values)
    return `tensor(${["...", `size=${formatShape(shape)}`, ...suffixes].join(", ")}; await data() for its values)`;
  const summarized = values.length > threshold;
  const shown = summarized ? edges(values, shape) : [...values];
  const text = nested(values, shape, 0, "tensor(".length, summarized, formatOf(shown, isFloat(dtype)));
  const lastLine = text.length - text.lastIndexOf("\n") - 1;
  const suffix = suffixes.join(", ");
  if (suffix === "") return `tensor(${text})`;
  const fits = lastLine + suffix.length + 2 + (text.includes("\n") ? 0 : "tensor(".length) <= lineWidth;
  return `tensor(${text},${fits ? " " : `\n${" ".repeat("tensor(".length)}`}${suffix})`;
}

/** Which indices of an extent are shown, and where others are left out. */
function shownIndices(extent: number, summarized: boolean): (number | undefined)[] {
  const all = [...Array(Math.min(extent, 2 * edgeItems + 1)).keys()];
  if (!summarized || extent <= 2 * edgeItems) return [...Array(extent).keys()];
  return all.map((i) => (i === edgeItems ? undefined : i < edgeItems ? i : extent - (2 * edgeItems + 1 - i)));
}

function edges(values: HostArray, shape: readonly number[], offset = 0): (number | bigint)[] {
  if (shape.length === 0) return [values[offset]];
  const [extent, ...rest] = shape;
  const stride = rest.reduce((product, each) => product * each, 1);
  return shownIndices(extent, true).flatMap((i) => (i === undefined ? [] : edges(values, rest, offset + i * stride)));
}

function nested(
  values: HostArray,
  shape: readonly number[],
  offset: number,
  indent: number,
  summarized: boolean,
  format: Format,
): string {
  if (shape.length === 0) return format(values[offset]);
  const [extent, ...rest] = shape;
  const inner = " ".repeat(indent + 1);
  const stride = rest.reduce((product, each) => product * each, 1);
  const indices = shownIndices(extent, summarized);
  if (rest.length > 0) {
    const slices = indices.map((i) =>
      i === undefined ? "..." : nested(values, rest, offset + i * stride, indent + 1, summarized, format),
    );
    return `[${slices.join(`,${"\n".repeat(rest.length)}${inner}`)}]`;
  }
  const items = indices.map((i) => (i === undefined ? " ..." : format(values[offset + i])));
  const width = (items.find((item) => item !== " ...") ?? "").length + 2;
  const perLine = Math.max(1, Math.floor((lineWidth - indent) / width));
  const lines = Array.from({ length: Math.ceil(items.length / perLine) }, (_, i) =>
    items.slice(i * perLine, (i + 1) * perLine).join(", "),
  );
  return `[${lines.join(`,\n${inner}`)}]`;
}

function formatOf(values: readonly (number | bigint)[], floats: boolean): Format {
  if (!floats) return padded(values, String);
  const numbers = values.map(Number).filter((value) => Number.isFinite(value) && value !== 0);
  const sizes = numbers.map(Math.abs);
  const most = sizes.reduce((a, b) => Math.max(a, b), 0);
  const least = sizes.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
  const whole = numbers.every(Number.isInteger);
  const scientific = numbers.length > 0 && (most / least > 1000 || most > 1e8 || (!whole && least < 1e-4));
  const finite: (value: number) => string = scientific
    ? (value) => exponent(value.toExponential(precision))
    : whole
      ? (value) => `${value.toFixed(0)}.`
      : (value) => value.toFixed(precision);
  const one = (value: number | bigint) => {
    const number = Number(value);
    if (Number.isFinite(number)) return Object.is(number, -0) ? `-${finite(0)}` : finite(number);
    return Number.isNaN(number) ? "nan" : number > 0 ? "inf" : "-inf";
  };
  return padded(numbers, one);
}

function padded(values: readonly (number | bigint)[], one: Format): Format {
  const width = values.reduce<number>((most, value) => Math.max(most, one(value).length), 1);
  return (value) => one(value).padStart(width);
}

/** Python writes at least two digits of an exponent. */
function exponent(text: string): string {
  return text.replace(/e([+-])(\d)$/, "e$10$2");
}

/** A number as Python prints it: `1e-05`. */
export function pythonNumber(value: number): string {
  const isSmall = value !== 0 && Math.abs(value) < 1e-4;
  return isSmall ? exponent(value.toExponential()) : String(value);
}

/** A pair as Python prints it: `(3, 3)`. */
export function pythonPair(pair: readonly number[]): string {
  return `(${pair.join(", ")})`;
}

/** A module as PyTorch prints it: what is said of itself, then its children, indented. */
export function moduleText(name: string, extra: string, children: Iterable<readonly [string, string]>): string {
  const lines = [...children].map(([key, text]) => `(${key}): ${text.replaceAll("\n", "\n  ")}`);
  if (lines.length === 0) return `${name}(${extra})`;
  const all = extra === "" ? lines : [extra, ...lines];
  return `${name}(\n  ${all.join("\n  ")}\n)`;
}
