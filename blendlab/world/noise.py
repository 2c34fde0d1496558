"""Random numbers that depend only on where they are used (counter-based), and a tile of noise.

A scene must not change with the batch that it is drawn in, nor with the device, so tinyworld never
touches a random
generator: each number is a hash of (seed, scene index, purpose, position). Next: scenes.py, which
           draws scenes with it.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

# Odd 63-bit constants; which ones does not matter, only that they differ.
_SEED, _INDEX, _PURPOSE, _SLOT = (
    0x1E3779B97F4A7C15,
    0x3F58476D1CE4E5B9,
    0x14D049BB133111EB,
    0x2545F4914F6CDD1D,
)


def _mix(x: Tensor) -> Tensor:
    """Scramble 64-bit integers (multiply and shift, twice); masks make the shifts logical."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * 0x3F58476D1CE4E5B9
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * 0x14D049BB133111EB
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def uniform(seed: int, index: Tensor, purpose: int, count: int) -> Tensor:
    """(B, count) float32 in [0, 1) for scene numbers index (B,), whatever the batch and device."""
    slot = torch.arange(count, device=index.device) * _SLOT
    key = _mix(index * _INDEX + seed * _SEED % 2**62 + purpose * _PURPOSE % 2**62)[:, None] + slot
    return ((_mix(key) >> 20) & 0xFFFFFF).float() / 2**24


@cache
def _tile(device: torch.device) -> Tensor:
    """(1, 4, 65, 65): four sheets of white noise in [0, 1] that repeat at the borders."""
    tile = uniform(11, torch.arange(4, device=device), 0, 64 * 64).view(1, 4, 64, 64)
    return F.pad(tile, (0, 1, 0, 1), mode="circular")


def noise(u: Tensor, v: Tensor) -> Tensor:
    """(B, 4, H, W) smooth noise in [0, 1] at u, v (B, H, W): a bump a unit, repeating every 64."""
    grid = torch.stack([u, v], -1).remainder(64) / 32 - 1  # (B, H, W, 2) in [-1, 1)
    return F.grid_sample(_tile(u.device).expand(len(u), -1, -1, -1), grid, align_corners=True)


def cells(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where u, v (B, H, W) lie in their cells, and four random numbers of each (B, 4, H, W)."""
    iu, iv = u.floor(), v.floor()
    index = (iv.long() % 64) * 65 + iu.long() % 64
    return u - iu, v - iv, _tile(u.device).view(4, -1)[:, index].transpose(0, 1)
