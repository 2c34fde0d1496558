"""What every editing function returns, and how batches of it are dealt out.

Next: papers/blended_latent.py makes one; rank.py puts the best first.
"""

from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from . import images
from .errors import Refused


@dataclass
class Edit:
    """n edits of one picture, best first when they were ranked.

    tensor:   (n,3,H,W) in [-1,1], float32.           images: the same as a list of n PIL pictures
    latents:  (n,C,h,w) float32, of the square alone after around=; or None in pixel space
    scores:   n CLIP distances, smallest (best) first, or None when not ranked
    settings: everything that was used, also what was left to the model; "order" numbers the
              samples; "square" (after window= or around=) is a list of one for all or one for each,
              (left, top, right, bottom) in pixels of the picture
    """

    tensor: Tensor
    latents: Tensor | None = None
    scores: list[float] | None = None
    settings: dict = field(default_factory=dict)

    @cached_property
    def images(self):
        return images.to_pil(self.tensor)


def one_or_n(n: int, counts: dict[str, int]):
    """Refuse batches {name: how many} that hold neither one for all n edits nor one for each."""
    for name, given in counts.items():
        if given not in (1, n):
            raise Refused(
                f"{name} holds {given} for n={n} edits: pass one that serves all, or n={given}"
            )


def take(value, rows: range | list[int]):
    """The rows of a batch, or the one row that serves all; dicts and lists are walked."""
    if isinstance(value, dict):
        return {key: take(v, rows) for key, v in value.items()}
    if isinstance(value, list):
        return [take(v, rows) for v in value]
    if len(value) == 1:
        return value
    return value[rows.start : rows.stop] if isinstance(rows, range) else value[rows]
