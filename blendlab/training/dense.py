"""A second task, so that networks learn what objects look like: predict what stands in each cell.

The world knows what every pixel shows, so a linear layer on a network's features can be asked for
class and colour, cell by cell, as representation alignment does with another network's features
(arXiv 2410.06940). It speeds training up, and it is thrown away: what ships is the network alone.
Read next: pixel.py, clip.py.
"""

from contextlib import contextmanager

import torch.nn.functional as F
from torch import Tensor, nn

from .. import world

KINDS, COLOURS = len(world.KINDS) + 1, len(world.COLOURS) + 1  # and nothing


def head(width: int) -> nn.Module:
    """Features (B,width,h,w) to logits (B,KINDS+COLOURS,h,w)."""
    return nn.Conv2d(width, KINDS + COLOURS, 1)


def shown(view) -> dict[str, Tensor]:
    """What a pool keeps of a batch: coverage of the slots in bytes, names as numbers from 1."""
    named = {"kind": view.scenes.kind + 1, "colour": view.scenes.colour + 1}
    return {
        "planes": (view.masks * 255).round().byte(),
        **{key: value.byte() for key, value in named.items()},
    }


def labels(planes: Tensor, kind: Tensor, colour: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """Class and colour of each cell, (B,cells,cells), 0 = none, of coverage (B,SLOTS,H,W)."""
    most, slot = F.adaptive_avg_pool2d(planes, cells).max(1)  # (B,cells,cells)
    there, slot = most > 0.25, slot.flatten(1)
    kind, colour = (v.long().gather(1, slot).view_as(most) * there for v in (kind, colour))
    return kind, colour


def dense_loss(logits: Tensor, kind: Tensor, colour: Tensor) -> Tensor:
    """Cross-entropy of logits (B,KINDS+COLOURS,h,w) with `labels` (B,h,w)."""
    kinds, colours = logits.float().split([KINDS, COLOURS], dim=1)
    return F.cross_entropy(kinds, kind) + F.cross_entropy(colours, colour)


@contextmanager
def features(module: nn.Module):
    """Collect what a module returns, in a list, for the length of a `with`."""
    seen = []
    hook = module.register_forward_hook(lambda _, inputs, output: seen.append(output))
    try:
        yield seen
    finally:
        hook.remove()
