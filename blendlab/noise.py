"""Randomness with a name: one stream per seed, sample and purpose.

Sample 3 draws the same whatever the batch is, and "with and without augmentation, same seed" means
what it says. Drawn on the CPU, so that a seed gives the same picture on every machine.
"""

import hashlib
from numbers import Integral

import torch

from .errors import Refused
from .options import number


class Noise:
    """`noise(shape) -> (n, *shape)` float32, standard normal; each call draws further on.

    seed: int; a method with streams of its own joins it to a text. n: samples, or their numbers.
    purpose: "initial", "step", "background", "augment" or any other word.
    start: the number of the first sample, so that a batch can begin in the middle.
    shape: of one sample; with it the noise is called without arguments.
    """

    def __init__(self, seed, n, purpose, device="cpu", start=0, shape=None):
        if not isinstance(seed, str):
            number("seed", seed)
        if not isinstance(n, list | tuple | range):
            number("n", n)
        rows = range(n) if isinstance(n, Integral) else n
        for row in rows:
            number("n", row, span=(0, 10**9, "it numbers a sample, so take 0 or more"))
        number("start", start)
        if not isinstance(purpose, str):
            raise Refused(f"purpose is {purpose!r}: pass a word, as in 'initial'")
        self.device, self.shape = torch.device(device), shape
        self.streams = [_stream(f"{seed}/{start + i}/{purpose}") for i in rows]

    def __call__(self, shape=None):
        shape = shape or self.shape
        if not isinstance(shape, list | tuple) or not all(type(i) is int and i > 0 for i in shape):
            raise Refused(f"shape is {shape!r}: pass the sizes of one sample, as in (4, 8, 8)")
        on_gpu = self.device.type == "cuda"
        drawn = torch.empty(len(self.streams), *shape, pin_memory=on_gpu)
        for row, stream in zip(drawn, self.streams, strict=True):
            torch.randn(shape, generator=stream, out=row)
        return drawn.to(self.device, non_blocking=on_gpu)  # pinned: the GPU is not waited for


def _stream(name):
    digest = hashlib.sha256(name.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))  # it reads 32 bits
