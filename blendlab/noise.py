"""Randomness with a name: one stream per seed, sample and purpose.

Sample 3 draws the same whatever the batch is, and "with and without augmentation, same seed" means
what it says. Drawn on the CPU, so that a seed gives the same picture on every machine.
"""

import hashlib

import torch


class Noise:
    """`noise(shape) -> (n, *shape)` float32, standard normal; a further call draws further on in
    the streams.

    seed: int. n: samples. purpose: "initial", "step", "background", "augment" or any other word.
    start: the number of the first sample, so that a batch can begin in the middle.
    """

    def __init__(self, seed, n, purpose, device="cpu", start=0):
        self.device = torch.device(device)
        self.streams = [_stream(f"{seed}/{start + i}/{purpose}") for i in range(n)]

    def __call__(self, shape):
        on_gpu = self.device.type == "cuda"
        drawn = torch.empty(len(self.streams), *shape, pin_memory=on_gpu)
        for row, stream in zip(drawn, self.streams, strict=True):
            torch.randn(shape, generator=stream, out=row)
        return drawn.to(self.device, non_blocking=on_gpu)  # pinned: the GPU is not waited for


def _stream(name):
    digest = hashlib.sha256(name.encode()).digest()
    return torch.Generator().manual_seed(
        int.from_bytes(digest[:4], "big")
    )  # torch reads 32 bits of it
