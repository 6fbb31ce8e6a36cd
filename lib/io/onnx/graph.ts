import type { DType, HostArray } from "../../dtype.js";
import { encodeElements } from "../safetensors.js";
import { type Attribute, attributeProto, elementTypes, type NodeProto, type TensorProto } from "./schema.js";

/** An ONNX graph as it is put together: nodes in order, initializers, names used once. */
export class OnnxGraph {
  readonly nodes: NodeProto[] = [];
  readonly initializers: TensorProto[] = [];
  readonly #names = new Set<string>();
  /** Integer operands (pads, axes, shapes) by contents: most are the same. */
  readonly #integers = new Map<string, string>();
  /** What the nodes added next are called after. */
  scope = "";

  /** @param opset the version of ONNX's operators that its nodes are of */
  constructor(readonly opset: number) {}

  /** `name`, or `name_1` and so on where it is taken. */
  unique(name: string): string {
    let free = name;
    for (let i = 1; this.#names.has(free); i++) free = `${name}_${i}`;
    this.#names.add(free);
    return free;
  }

  /** Adds a node with one output and returns the output's name. */
  add(opType: string, inputs: readonly string[], attributes: Readonly<Record<string, Attribute>> = {}): string {
    const name = this.unique(this.scope);
    const attribute = Object.entries(attributes).map(attributeProto);
    this.nodes.push({ input: inputs, output: [name], name, opType, attribute });
    return name;
  }

  /** Adds an initializer and returns its name. */
  constant(name: string, data: HostArray, shape: readonly number[], dtype: DType): string {
    const free = this.unique(name);
    const rawData = encodeElements(dtype, data);
    this.initializers.push({ name: free, dims: shape, dataType: elementTypes[dtype], rawData });
    return free;
  }

  /** An int64 vector, as the operands are that describe shapes. */
  integers(...values: readonly (number | bigint)[]): string {
    const key = values.join("_").replaceAll("-", "m");
    let name = this.#integers.get(key);
    if (name === undefined) {
      name = this.constant(`int64_${key}`, BigInt64Array.from(values, BigInt), [values.length], "int64");
      this.#integers.set(key, name);
    }
    return name;
  }

  /** Gives a value another name; one that no node makes gets a node that hands it through. */
  rename(name: string, to: string): void {
    const renew = (known: string) => (known === name ? to : known);
    if (!this.nodes.some(({ output }) => output.includes(name))) {
      this.nodes.push({ input: [name], output: [to], name: to, opType: "Identity", attribute: [] });
      return;
    }
    for (const [i, node] of this.nodes.entries())
      this.nodes[i] = { ...node, input: node.input.map(renew), output: node.output.map(renew) };
  }
}
