"""One of PyTorch's contenders of `npm run bench:cuda`, in a process of its own.

    python torch_peer.py eager|compile JOB

JOB is the JSON that bench/cuda_runner.ts is started with. Turns come as lines of JSON on stdin; answers go to stdout as
lines that begin with an @. Needs torch alone: the network is inferred from the names and shapes of its weights.
  eager    channels-last, as a model is: batch norms by themselves
  compile  channels-last, batch norms folded, torch.compile(mode="max-autotune"), which captures CUDA graphs
With the device "cuda-sim" it runs on the CPU, and `compile` with the backend "eager": that exercises this program.
"""

import json
import sys
import time

import torch
from torch import nn

DTYPES = {"float32": torch.float32, "tf32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
STORED = {"F32": torch.float32, "I64": torch.int64}


def load_weights(path):
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()
    state = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        flat = torch.frombuffer(bytearray(data[begin:end]), dtype=STORED[entry["dtype"]])
        state[name] = flat.reshape(entry["shape"])
    return state


def conv(state, name, channels, stride=1):
    out, depth, size, _ = state[f"{name}.weight"].shape
    return nn.Conv2d(channels, out, size, stride, size // 2, groups=channels // depth, bias=False)


class SqueezeExcite(nn.Module):
    def __init__(self, state, prefix):
        super().__init__()
        hidden, channels = state[f"{prefix}.fc1.weight"].shape[:2]
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x):
        gate = self.fc2(torch.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * torch.sigmoid(gate)


class Block(nn.Module):
    def __init__(self, state, prefix, channels, stride):
        super().__init__()
        self.depth = 3 if f"{prefix}.conv3.weight" in state else 2
        strided = self.depth - 1  # the 3x3 convolution that has the stride: the second of three, the first of two
        inner = channels
        for i in range(1, self.depth + 1):
            layer = conv(state, f"{prefix}.conv{i}", inner, stride if i == strided else 1)
            inner = layer.out_channels
            setattr(self, f"conv{i}", layer)
            setattr(self, f"bn{i}", nn.BatchNorm2d(inner))
        self.out_channels = inner
        self.se = SqueezeExcite(state, f"{prefix}.se") if f"{prefix}.se.fc1.weight" in state else None
        self.downsample = None
        if f"{prefix}.downsample.0.weight" in state:
            shortcut = conv(state, f"{prefix}.downsample.0", channels, stride)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(inner))

    def forward(self, x):
        y = x
        for i in range(1, self.depth + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            if i < self.depth:
                y = torch.relu(y)
        if self.se is not None:
            y = self.se(y)
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class Network(nn.Module):
    def __init__(self, state):
        super().__init__()
        out, channels, size, _ = state["conv1.weight"].shape
        self.large = size == 7
        self.conv1 = conv(state, "conv1", channels, 2 if self.large else 1)
        self.bn1 = nn.BatchNorm2d(out)
        self.stages = []
        for stage in range(1, 5):
            blocks = []
            while f"layer{stage}.{len(blocks)}.conv1.weight" in state:
                stride = 2 if stage > 1 and not blocks else 1
                blocks.append(Block(state, f"layer{stage}.{len(blocks)}", out, stride))
                out = blocks[-1].out_channels
            if blocks:
                self.add_module(f"layer{stage}", nn.Sequential(*blocks))
                self.stages.append(f"layer{stage}")
        self.fc = nn.Linear(out, state["fc.weight"].shape[0])
        self.load_state_dict(state)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        if self.large:
            x = nn.functional.max_pool2d(x, 3, 2, 1)
        for stage in self.stages:
            x = getattr(self, stage)(x)
        return self.fc(x.mean((2, 3)))


def fold_batch_norms(module):
    """Each batch norm goes into the convolution before it."""
    before = None
    for name, child in list(module.named_children()):
        fold_batch_norms(child)
        if isinstance(child, nn.BatchNorm2d) and before is not None:
            setattr(module, before, nn.utils.fusion.fuse_conv_bn_eval(getattr(module, before), child))
            setattr(module, name, nn.Identity())
        before = name if isinstance(child, nn.Conv2d) else None


class Peer:
    def __init__(self, mode, job):
        self.on_gpu = job["device"] == "cuda"
        self.device = torch.device("cuda" if self.on_gpu else "cpu")
        self.dtype = DTYPES[job["dtype"]]
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = job["dtype"] == "tf32"
        torch.backends.cudnn.benchmark = True
        network = Network(load_weights(job["model"]["weights"])).eval()
        if mode == "compile":
            fold_batch_norms(network)
        network = network.to(self.device, self.dtype, memory_format=torch.channels_last)
        self.mean, self.std = (
            torch.tensor(job[name], device=self.device).reshape(1, -1, 1, 1) for name in ("mean", "std")
        )
        normalize = lambda x: ((x.float() / 255 - self.mean) / self.std).to(self.dtype)
        if mode == "compile":
            how = {"mode": "max-autotune"} if self.on_gpu else {"backend": "eager"}
            network = torch.compile(network, **how)
            normalize = torch.compile(normalize, **({} if self.on_gpu else {"backend": "eager"}))
        self.network, self.normalize = network, normalize

        with open(job["pixels"], "rb") as file:
            images = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)
        n, c, h, w = job["shape"]
        images = images.reshape(-1, c, h, w)
        self.distinct = images.shape[0]
        pixels = images[torch.arange(n) % self.distinct].contiguous()
        floats = (pixels.float() / 255 - self.mean.cpu()) / self.std.cpu()
        pin = (lambda x: x.pin_memory()) if self.on_gpu else (lambda x: x)
        self.host = {"uint8": pin(pixels), "float32": pin(floats)}
        self.resident = self.on_device(floats.to(self.device).to(self.dtype))
        for feed in ("resident", "float32", "uint8"):
            for _ in range(3):
                self.run(feed)
        self.synchronize()

    def on_device(self, x):
        return x.contiguous(memory_format=torch.channels_last)

    def synchronize(self):
        if self.on_gpu:
            torch.cuda.synchronize()

    def run(self, feed):
        if feed == "resident":
            return self.network(self.resident)
        x = self.host[feed].to(self.device, non_blocking=True)
        x = self.normalize(x) if feed == "uint8" else x.to(self.dtype)
        return self.network(self.on_device(x)).float().to("cpu", non_blocking=self.on_gpu)

    def logits(self, turn):
        result = self.run(turn["feed"])
        self.synchronize()
        return result[: self.distinct].flatten().tolist()

    def times(self, turn):
        feed, calls = turn["feed"], turn["calls"]
        self.synchronize()
        start = time.perf_counter()
        self.run(feed)
        self.synchronize()
        latency = 1e3 * (time.perf_counter() - start)
        if feed == "resident" and self.on_gpu:
            first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            first.record()
            for _ in range(calls):
                self.run(feed)
            last.record()
            torch.cuda.synchronize()
            total = first.elapsed_time(last)
        else:
            start = time.perf_counter()
            for _ in range(calls):
                self.run(feed)
            self.synchronize()
            total = 1e3 * (time.perf_counter() - start)
        most = torch.cuda.max_memory_reserved() if self.on_gpu else 0
        return {"latency": latency, "milliseconds": total / calls, "most": most}


def versions():
    found = {"torch": torch.__version__, "python": sys.version.split()[0], "cuda": torch.version.cuda}
    if torch.backends.cudnn.is_available():
        found["cudnn"] = torch.backends.cudnn.version()
    return found


@torch.no_grad()
def main(mode, job):
    def say(what):
        print("@" + json.dumps(what), flush=True)

    start = time.perf_counter()
    try:
        if job["device"] == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("this PyTorch sees no CUDA device")
        peer = Peer(mode, job)
    except Exception as error:
        return say({"failed": f"{type(error).__name__}: {error}"})
    say({"answer": {"ready": 1e3 * (time.perf_counter() - start), "versions": versions()}})
    for line in sys.stdin:
        turn = json.loads(line)
        try:
            say({"answer": getattr(peer, turn["ask"])(turn)})
        except Exception as error:
            say({"failed": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
