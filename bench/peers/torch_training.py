"""PyTorch's side of `npm run bench -- training`: SGD steps of one network, channels-last.

    python torch_training.py eager|compile JOB

JOB is the JSON that bench/training_runner.ts is started with. Lines of JSON {"steps": N} come on stdin; answers go to
stdout as lines that begin with an @. Mixed precision is torch.autocast, with a GradScaler for float16.
"""

import json
import resource
import sys
import time

import torch
from torch.nn import functional

from torch_peer import DTYPES, Network, load_weights


def main(mode, job):
    on_gpu = job["device"] == "cuda"
    if on_gpu and not torch.cuda.is_available():
        sys.exit("this PyTorch sees no CUDA device")
    device = torch.device("cuda" if on_gpu else "cpu")
    torch.set_num_threads(job["threads"])
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    network = Network(load_weights(job["weights"])).to(device, memory_format=torch.channels_last)
    fastest = {"fused": True} if on_gpu else {}
    sgd = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, nesterov=True, **fastest)
    scaler = torch.amp.GradScaler(device.type, enabled=job["dtype"] == "float16")
    with open(job["batch"], "rb") as file:
        data = file.read()
    count = torch.tensor(job["shape"]).prod().item()
    x = torch.frombuffer(bytearray(data[: 4 * count]), dtype=torch.float32).reshape(job["shape"])
    x = x.to(device).contiguous(memory_format=torch.channels_last)
    target = torch.frombuffer(bytearray(data[4 * count :]), dtype=torch.int32).long().to(device)
    if mode == "compile":
        network = torch.compile(network)

    def step():
        sgd.zero_grad()
        with torch.autocast(device.type, DTYPES[job["dtype"]], enabled=job["dtype"] != "float32"):
            loss = functional.cross_entropy(network(x), target)
        scaler.scale(loss).backward()
        scaler.step(sgd)
        scaler.update()
        return loss.detach()

    def steps(number):
        if on_gpu:  # which works on by itself
            torch.cuda.synchronize()
            start = time.perf_counter()
            losses = [step() for _ in range(number)]
            torch.cuda.synchronize()
            total = 1e3 * (time.perf_counter() - start)
            peak = torch.cuda.max_memory_reserved() / 2**20
            return {"times": [total / number] * number, "losses": [loss.item() for loss in losses], "peak": peak}
        times, losses = [], []
        for _ in range(number):
            start = time.perf_counter()
            losses.append(step().item())
            times.append(1e3 * (time.perf_counter() - start))
        return {"times": times, "losses": losses, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}

    # what is there before the first step says that this side works at all
    print("@" + json.dumps({"note": f"PyTorch {torch.__version__} {mode}"}), flush=True)
    for line in sys.stdin:
        print("@" + json.dumps(steps(json.loads(line)["steps"])), flush=True)


main(sys.argv[1], json.loads(sys.argv[2]))
