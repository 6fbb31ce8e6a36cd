import type { DType, HostArray } from "../dtype.js";
import type { Attributes } from "./attributes.js";

/** Shape and dtype of a value before it exists. */
export interface ValueType {
  readonly shape: readonly number[];
  readonly dtype: DType;
}

/** State that outlives a plan, as a graph sees it; lib/lazy/variable.ts has the rest. */
export interface VariableRef extends ValueType {
  readonly name: string;
  readonly requiresGrad: boolean;
}

/** What a variable holds between two writes, as a graph sees it. */
export interface VersionRef {
  readonly variable: VariableRef;
  readonly state: "current" | "replaced" | "failed";
  readonly error?: unknown;
  readonly contents: unknown;
}

/**
 * One result of one node: an edge of the recorded graph. A value is a *leaf* when its contents are known without
 * running its node: a host constant or a result kept because it was asked for (`kept`), or a variable's contents (`version`).
 */
export class Value implements ValueType {
  kept?: HostArray;
  version?: VersionRef;
  /** Set on what a read of a variable gives: gradients are taken with respect to these. */
  variable?: VariableRef;
  /** Asked for in a flush under way: `kept` will be there before any later flush runs. */
  underWay = false;
  /** Why the last flush that should have computed it failed: told to those who asked while it was under way. */
  failure?: unknown;

  constructor(
    readonly node: Node,
    readonly index: number,
    readonly shape: readonly number[],
    readonly dtype: DType,
  ) {}

  get isLeaf(): boolean {
    return this.kept !== undefined || this.version !== undefined || this.underWay;
  }
}

/** Whether a leaf is read from its variable rather than from the host. */
export function isVariable(leaf: Value): boolean {
  return leaf.version !== undefined && leaf.kept === undefined && !leaf.underWay;
}

let nodes = 0;

/** One recorded operation. Immutable, but that it forgets its inputs once nobody can need them. */
export class Node {
  /** Counts all nodes: one that reads another has the larger number. */
  readonly number = nodes++;
  readonly outputs: readonly Value[];
  /** Whether a gradient could flow back through it to a variable that wants one. */
  readonly differentiable: boolean;
  #inputs: readonly Value[];

  constructor(
    readonly op: string,
    readonly attributes: Attributes,
    inputs: readonly Value[],
    outputs: readonly ValueType[],
  ) {
    this.#inputs = inputs;
    this.outputs = outputs.map((type, index) => new Value(this, index, type.shape, type.dtype));
    this.differentiable =
      op !== "detach" && inputs.some(({ variable, node }) => variable?.requiresGrad || node.differentiable);
  }

  get inputs(): readonly Value[] {
    return this.#inputs;
  }

  /** Lets go of the history of results that are all kept and through which no gradient flows. */
  forget(): void {
    if (!this.differentiable && this.outputs.every((output) => output.kept)) this.#inputs = [];
  }
}

/** The only output of a new node. */
export function op(name: string, attributes: Attributes, inputs: readonly Value[], type: ValueType): Value {
  return new Node(name, attributes, inputs, [type]).outputs[0];
}

/** A leaf that holds host data. The array must never change afterwards. */
export function constantValue(data: HostArray, shape: readonly number[], dtype: DType): Value {
  const value = new Node("constant", {}, [], [{ shape, dtype }]).outputs[0];
  value.kept = data;
  return value;
}

/** A leaf that stands for data not known yet: the input of a graph recorded in isolation. */
export function placeholder(shape: readonly number[], dtype: DType): Value {
  return new Node("placeholder", {}, [], [{ shape, dtype }]).outputs[0];
}

/** The leaves that `roots` need, themselves included where they are leaves. */
export function leavesUnder(roots: readonly Value[]): Value[] {
  const leaves = new Set(roots.filter((root) => root.isLeaf));
  for (const node of topological(roots, (value) => value.isLeaf))
    for (const input of node.inputs) if (input.isLeaf) leaves.add(input);
  return [...leaves];
}

/**
 * Every node that `roots` need, in the order in which they were recorded, so each after the nodes it reads. Stops at values
 * for which `isLeaf` holds.
 */
export function topological(roots: Iterable<Value>, isLeaf: (value: Value) => boolean): Node[] {
  const found = new Set<Node>();
  const visit = (value: Value) => {
    if (!isLeaf(value)) found.add(value.node);
  };
  for (const root of roots) visit(root);
  for (const node of found) node.inputs.forEach(visit); // a set's iteration comes to what is added on the way
  return [...found].sort((a, b) => a.number - b.number);
}
