import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { createModel, loadWeights, saveSafetensors, tensor } from "seresnet";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { pythonWith } from "./support/python.js";
import { fill } from "./support/weights.js";

/*
 * What only Python can say: that its safetensors opens our files, that torchvision and timm load them with strict=True,
 * and that the program the guide prints writes a golden file which `seresnet verify` takes. CI has the first package;
 * where the others are missing, names, shapes and numbers are still compared with theirs in zoo.test.ts and verify.test.ts.
 */

const execute = promisify(execFile);
const root = join(__dirname, "..");
const safetensors = pythonWith(["numpy", "safetensors"], "Python's safetensors");
const timm = pythonWith(["numpy", "safetensors", "torch", "torchvision", "timm"], "timm and torchvision");
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "seresnet-python-"));
});
afterAll(() => rm(folder, { recursive: true }));

async function python(program: string | undefined, source: string, ...args: string[]): Promise<string> {
  const script = join(folder, "script.py");
  await writeFile(script, source);
  return (await execute(program as string, [script, ...args], { cwd: folder })).stdout;
}

describe.runIf(safetensors)("Python's safetensors", () => {
  it("opens what saveSafetensors wrote: names, dtypes, shapes, numbers, metadata", async () => {
    const path = join(folder, "ours.safetensors");
    const tensors = {
      "conv.weight": tensor(Float32Array.of(1.5, -2, 1e-40, 3), [2, 2]),
      half: tensor([0.5, -0.25], [2], { dtype: "float16" }),
      long: tensor(BigInt64Array.of(2n ** 53n + 1n), []),
      int: tensor(Int32Array.of(-7), [1, 1]),
      byte: tensor(Uint8Array.of(0, 255), [2]),
    };
    await saveSafetensors(path, tensors, { note: "é" });
    const source = `import json, sys
from safetensors import safe_open
with safe_open(sys.argv[1], framework="np") as f:
    arrays = {name: f.get_tensor(name) for name in f.keys()}
    print(json.dumps([f.metadata(), {n: [str(a.dtype), list(a.shape), a.astype("f8").ravel().tolist()] for n, a in arrays.items()}]))`;
    expect(JSON.parse(await python(safetensors, source, path))).toEqual([
      { note: "é" },
      {
        "conv.weight": ["float32", [2, 2], [1.5, -2, Math.fround(1e-40), 3]],
        half: ["float16", [2], [0.5, -0.25]],
        long: ["int64", [], [2 ** 53]],
        int: ["int32", [1, 1], [-7]],
        byte: ["uint8", [2], [0, 255]],
      },
    ]);
  });

  it("opens a whole network's", async () => {
    const path = join(folder, "network.safetensors");
    const state = createModel("seresnet14_cifar").stateDict();
    await saveSafetensors(path, state);
    const source = `import json, sys
from safetensors.numpy import load_file
print(json.dumps({name: list(a.shape) for name, a in load_file(sys.argv[1]).items()}))`;
    const shapes = Object.fromEntries(Object.entries(state).map(([name, { shape }]) => [name, [...shape]]));
    expect(JSON.parse(await python(safetensors, source, path))).toEqual(shapes);
  });
});

/** timm wants torchvision's operators declared; its library may be for another PyTorch than the one installed. */
const imports = `import glob, importlib.util, sys, torch
folder = importlib.util.find_spec("torchvision").submodule_search_locations[0]
try:
    torch.ops.load_library(glob.glob(folder + "/_C*.so")[0])
except Exception:
    for name in ("nms", "qnms"):
        torch.library.define("torchvision::" + name, "(Tensor a, Tensor b, float c) -> Tensor")
import timm, torchvision
from safetensors.torch import load_file
`;

const models = [
  ["resnet18", "torchvision.models"],
  ["resnet50", "torchvision.models"],
  ["wide_resnet50_2", "torchvision.models"],
  ["resnext50_32x4d", "torchvision.models"],
  ["seresnet18", "timm"],
  ["seresnet50", "timm"],
  ["seresnext50_32x4d", "timm"],
  ["legacy_seresnet18", "timm"],
  ["legacy_seresnet50", "timm"],
] as const;

describe.runIf(timm)("timm and torchvision", () => {
  const said: Record<string, string> = {};
  beforeAll(async () => {
    for (const [name] of models)
      await saveSafetensors(join(folder, `${name}.safetensors`), fill(createModel(name), name).stateDict());
    const makers = models.map(([name, library]) =>
      library === "timm" ? `"${name}": lambda: timm.create_model("${name}")` : `"${name}": torchvision.models.${name}`,
    );
    // one process for all: it takes seconds to import them
    const source = `${imports}
for name, make in {${makers.join(", ")}}.items():
    model = make()
    torch.save(model.state_dict(), name + ".pth")
    try:
        print(name, model.load_state_dict(load_file(name + ".safetensors"), strict=True))
    except RuntimeError as error:
        print(name, " ".join(str(error).split()))`;
    for (const line of (await python(timm, source)).trim().split("\n")) {
      const [name, ...answer] = line.split(" ");
      said[name] = answer.join(" ");
    }
  }, 300_000);

  it.each(models)("%s of %s loads ours with strict=True, and we load theirs", async (name) => {
    expect(said[name]).toBe("<All keys matched successfully>");
    const theirs = await loadWeights(join(folder, `${name}.pth`));
    expect(createModel(name).loadStateDict(theirs)).toEqual({ missingKeys: [], unexpectedKeys: [] });
  });

  it("the guide's program writes a golden file that seresnet verify takes", async () => {
    const guide = await readFile(join(root, "lib/docs/export.md"), "utf8");
    const program = (/```python\n([\s\S]*?)```/.exec(guide)?.[1] ?? "")
      .replace("import numpy, timm, torch", `${imports}import numpy`)
      .replace('timm.create_model("seresnet50.a1_in1k", pretrained=True)', 'timm.create_model("seresnet18")')
      .replace("1, 3, 224, 224", "1, 3, 64, 64");
    const weights = `\ntorch.save(model.state_dict(), "seresnet18.pth")`;
    await python(timm, program + weights);
    const args = ["verify", "golden.npz", "--weights", "seresnet18.pth", "--model", "seresnet18", "--json"];
    const { stdout } = await execute(process.execPath, [join(root, "dist/lib/cli/main.js"), ...args], { cwd: folder });
    const { passed, deviations } = JSON.parse(stdout);
    expect(passed).toBe(true);
    const layers = deviations.map(({ layer }: { layer: string }) => layer);
    expect(layers).toEqual(expect.arrayContaining(["conv1", "bn1", "layer1", "layer4", "fc", "logits"]));
    for (const { error } of deviations) expect(error).toBeLessThan(1e-5);
  });
});
