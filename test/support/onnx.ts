import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import protobuf from "protobufjs";
import { pythonWith } from "./python.js";

/** The part of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto) that a network needs, as it stands there. */
const proto = `
syntax = "proto2";
package onnx;
message AttributeProto {
  enum AttributeType { UNDEFINED = 0; FLOAT = 1; INT = 2; STRING = 3; TENSOR = 4; GRAPH = 5; FLOATS = 6; INTS = 7; STRINGS = 8; }
  optional string name = 1;
  optional AttributeType type = 20;
  optional float f = 2;
  optional int64 i = 3;
  optional bytes s = 4;
  repeated float floats = 7;
  repeated int64 ints = 8;
}
message ValueInfoProto { optional string name = 1; optional TypeProto type = 2; }
message NodeProto {
  repeated string input = 1;
  repeated string output = 2;
  optional string name = 3;
  optional string op_type = 4;
  optional string domain = 7;
  repeated AttributeProto attribute = 5;
}
message StringStringEntryProto { optional string key = 1; optional string value = 2; }
message ModelProto {
  optional int64 ir_version = 1;
  repeated OperatorSetIdProto opset_import = 8;
  optional string producer_name = 2;
  optional string producer_version = 3;
  optional GraphProto graph = 7;
  repeated StringStringEntryProto metadata_props = 14;
}
message GraphProto {
  repeated NodeProto node = 1;
  optional string name = 2;
  repeated TensorProto initializer = 5;
  repeated ValueInfoProto input = 11;
  repeated ValueInfoProto output = 12;
  repeated ValueInfoProto value_info = 13;
}
message TensorProto {
  enum DataType { UNDEFINED = 0; FLOAT = 1; UINT8 = 2; INT8 = 3; UINT16 = 4; INT16 = 5; INT32 = 6; INT64 = 7; STRING = 8; BOOL = 9; FLOAT16 = 10; DOUBLE = 11; BFLOAT16 = 16; }
  repeated int64 dims = 1;
  optional int32 data_type = 2;
  optional string name = 8;
  optional bytes raw_data = 9;
}
message TensorShapeProto {
  message Dimension { oneof value { int64 dim_value = 1; string dim_param = 2; } }
  repeated Dimension dim = 1;
}
message TypeProto {
  message Tensor { optional int32 elem_type = 1; optional TensorShapeProto shape = 2; }
  oneof value { Tensor tensor_type = 1; }
}
message OperatorSetIdProto { optional string domain = 1; optional int64 version = 2; }
`;

export interface OnnxNode {
  input: string[];
  output: string[];
  name: string;
  op_type: string;
  attribute: { name: string; type: string; i?: number; f?: number; ints?: number[] }[];
}

interface OnnxValue {
  name: string;
  type: { tensor_type: { elem_type: number; shape: { dim: { dim_value?: number; dim_param?: string }[] } } };
}

export interface OnnxFile {
  ir_version: number;
  producer_name: string;
  producer_version: string;
  opset_import: { domain: string; version: number }[];
  metadata_props: { key: string; value: string }[];
  graph: {
    name: string;
    node: OnnxNode[];
    initializer: { name: string; dims: number[]; data_type: number; raw_data: Uint8Array }[];
    input: OnnxValue[];
    output: OnnxValue[];
    value_info: OnnxValue[];
  };
}

/** Reads an ONNX file by the specification alone, without our writer's schema. */
export function readOnnx(path: string): OnnxFile {
  const type = protobuf.parse(proto, { keepCase: true }).root.lookupType("onnx.ModelProto");
  const message = type.decode(readFileSync(path));
  return type.toObject(message, { longs: Number, enums: String, arrays: true }) as OnnxFile;
}

/** `[N, 3, 32, 32]`, as a file declares a value. */
export const declared = ({ type }: OnnxValue) =>
  type.tensor_type.shape.dim.map(({ dim_value, dim_param }) => dim_param ?? dim_value);

/** What the tests use of onnxruntime-node. */
export interface OnnxRuntime {
  Tensor: new (type: "float32" | "uint8", data: Float32Array | Uint8Array, dims: readonly number[]) => object;
  InferenceSession: {
    create(
      path: string,
      options: { intraOpNumThreads: number },
    ): Promise<{
      run(feeds: Record<string, object>): Promise<Record<string, { data: Float32Array; dims: number[] }>>;
      release(): Promise<void>;
    }>;
  };
}

/** onnxruntime-node of bench/peers. Undefined where the peers are not installed; the log says so. */
export function onnxRuntime(): OnnxRuntime | undefined {
  const folder = join(__dirname, "../../bench/peers");
  if (existsSync(join(folder, "node_modules/onnxruntime-node")))
    return createRequire(join(folder, "package.json"))("onnxruntime-node") as OnnxRuntime;
  console.warn("LEFT OUT onnxruntime's answers: `npm ci --ignore-scripts` in bench/peers brings it");
}

/** What onnxruntime makes of the input `x` with a file, in one thread. */
export async function runOnnx(
  ort: OnnxRuntime,
  path: string,
  type: "float32" | "uint8",
  data: Float32Array | Uint8Array,
  shape: readonly number[],
): Promise<{ data: Float32Array; dims: number[] }> {
  const session = await ort.InferenceSession.create(path, { intraOpNumThreads: 1 });
  try {
    const { output } = await session.run({ input: new ort.Tensor(type, data, shape) });
    return output;
  } finally {
    await session.release();
  }
}

/** The full check infers every shape and compares it with the one that the file declares. */
const checker = `import onnx, sys
for line in sys.stdin:
    try:
        onnx.checker.check_model(line.strip(), full_check=True)
        print("accepted", flush=True)
    except Exception as error:
        print(" ".join(str(error).split()), flush=True)`;

/** The ONNX project's own checker, in one Python process for any number of files. */
export class OnnxChecker {
  readonly #process: ChildProcessByStdio<Writable, Readable, null>;
  readonly #lines: AsyncIterator<string>;

  private constructor(python: string) {
    this.#process = spawn(python, ["-c", checker], { stdio: ["pipe", "pipe", "inherit"] });
    this.#lines = createInterface({ input: this.#process.stdout })[Symbol.asyncIterator]();
  }

  /** Undefined where no Python has the package onnx; the log says so. */
  static open(): OnnxChecker | undefined {
    const python = pythonWith(["onnx"], "the ONNX checker");
    return python === undefined ? undefined : new OnnxChecker(python);
  }

  /** `accepted`, or what the checker says against the file. */
  async check(path: string): Promise<string> {
    this.#process.stdin.write(`${path}\n`);
    const { done, value } = await this.#lines.next();
    return done ? "the checker ended" : value;
  }

  async close(): Promise<void> {
    this.#process.stdin.end();
    if (this.#process.exitCode === null) await once(this.#process, "exit");
  }
}
