"""PyTorch's side of `npm run bench -- training`: SGD steps of one network on the CPU, channels-last, eager.

    python torch_training.py JOB

JOB is the JSON that bench/training_runner.ts is started with. Lines of JSON {"steps": N} come on stdin; answers go to
stdout as lines that begin with an @.
"""

import json
import resource
import sys
import time

import torch
from torch.nn import functional

from torch_peer import Network, load_weights


def main(job):
    torch.set_num_threads(job["threads"])
    network = Network(load_weights(job["weights"])).to(memory_format=torch.channels_last)
    sgd = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, nesterov=True)
    with open(job["batch"], "rb") as file:
        data = file.read()
    count = torch.tensor(job["shape"]).prod().item()
    x = torch.frombuffer(bytearray(data[: 4 * count]), dtype=torch.float32).reshape(job["shape"])
    x = x.contiguous(memory_format=torch.channels_last)
    target = torch.frombuffer(bytearray(data[4 * count :]), dtype=torch.int32).long()

    def step():
        start = time.perf_counter()
        sgd.zero_grad()
        loss = functional.cross_entropy(network(x), target)
        loss.backward()
        sgd.step()
        value = loss.item()
        return 1e3 * (time.perf_counter() - start), value

    print("@" + json.dumps({"note": f"PyTorch {torch.__version__}"}), flush=True)
    for line in sys.stdin:
        times, losses = zip(*(step() for _ in range(json.loads(line)["steps"])))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print("@" + json.dumps({"times": times, "losses": losses, "peak": peak}), flush=True)


main(json.loads(sys.argv[1]))
