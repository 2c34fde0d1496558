"""One picture inside the mask, another outside: x_fg * m + x_bg * (1 - m).

Blended Diffusion (2111.14818), algorithm 2, and Blended Latent Diffusion (2206.02779), algorithm 1.
Next: masks.py for the mask at latent size, papers/blended_latent.py for the algorithm.
"""

import torch
from torch import Tensor

from .errors import Refused


def blend(mask: Tensor, edit: Tensor, keep: Tensor) -> Tensor:
    """`edit` where the mask is 1, `keep` where it is 0, bit for bit; a mix in between.

    mask: (1 or B,1,H,W) in [0,1], 1 = edit. edit, keep: (1 or B,C,H,W).
    """
    alike(mask, edit, keep)
    mixed = mask * edit + (1 - mask) * keep
    return torch.where(mask == 1, edit, torch.where(mask == 0, keep, mixed))


def alike(mask: Tensor, edit: Tensor, keep: Tensor) -> None:
    """Refuse shapes that do not lie over each other; values are not looked at."""
    given = {"mask": mask, "edit": edit, "keep": keep}
    for name, x in given.items():
        if not isinstance(x, Tensor) or x.is_complex() or x.dtype == torch.bool:
            kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise Refused(f"{name} is a {kind}: pass a tensor of real numbers, as {name}.float()")
    try:
        torch.broadcast_shapes(*(x.shape for x in given.values()))
    except RuntimeError:
        said = ", ".join(f"{name} {tuple(x.shape)}" for name, x in given.items())
        raise Refused(f"{said} do not lie over each other: pass one size for all") from None
