"""One training step of the latent model in a process of its own, whenever a line comes in: for
bench.py.

    python bench/training_step.py now       # as harness.train makes it
    python bench/training_step.py before    # as it was made at first; same network, same data

The two differ in what a whole process has (the allocator), so they cannot share one.
"""

import os
import sys

import torch

from blendlab.training import harness
from blendlab.training.latent import Latent


def before(job, precision):
    """The step of version 0.1: the default kernels and allocator, AdamW tensor by tensor."""
    optimizer = torch.optim.AdamW(
        job.net.parameters(), job.lr, betas=(0.9, 0.99), weight_decay=0.01, fused=False
    )

    def step(k):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = job.loss(job.batch(k))["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(job.net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def now(job, precision):
    """The step of harness.train."""
    optimizer = harness.make_optimizer(job, harness.Options(steps=1, lr=job.lr))

    def step(k):
        with harness.fast_attention(job.device):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss = job.loss(job.batch(k))["loss"]
            loss.backward()
        torch.nn.utils.clip_grad_norm_(job.net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def main(how: str) -> None:
    job = Latent(pool=64, optimizer="adamw")  # in both: Muon is another question
    job.fill(0)
    step = {"now": now, "before": before}[how](job, harness.pick_precision())
    for k in range(2):  # one whole batch, one of crops
        step(k)
    allocator = "jemalloc" if "jemalloc" in os.environ.get("LD_PRELOAD", "") else "plain"
    print(f"ready, allocator: {allocator}", flush=True)
    for _ in sys.stdin:
        for k in range(2):
            step(k)
        print("done", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)  # as training runs: a process a core
    if sys.argv[1] == "now":
        harness.with_jemalloc(sys.argv)
    main(sys.argv[1])
