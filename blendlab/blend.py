"""One picture inside the mask, another outside: x_fg * m + x_bg * (1 - m).

Blended Diffusion (2111.14818), algorithm 2, and Blended Latent Diffusion (2206.02779), algorithm 1.
Next: masks.py for the mask at latent size, papers/blended_latent.py for the algorithm.
"""

import torch
from torch import Tensor

from .errors import Refused
from .options import tensor


def blend(mask: Tensor, edit: Tensor, keep: Tensor) -> Tensor:
    """`edit` where the mask is 1, `keep` where it is 0, both bit for bit; a mix where the mask is
    soft.

    mask: (1 or B,1,H,W) in [0,1], 1 = edit. edit, keep: (1 or B,C,H,W).
    """
    alike(mask, edit, keep)
    mixed = mask * edit + (1 - mask) * keep
    return torch.where(mask == 1, edit, torch.where(mask == 0, keep, mixed))


def alike(mask: Tensor, edit: Tensor, keep: Tensor) -> None:
    """Refuse a mask and two pictures that do not lie over each other; their values are not looked
    at.
    """
    given = {"mask": mask, "edit": edit, "keep": keep}
    for name, x in given.items():
        tensor(name, x, "B,1,H,W" if name == "mask" else "B,C,H,W")
    sizes = {name: tuple(x.shape[-2:]) for name, x in given.items() if x[0, 0].numel() > 1}
    channels = {name: x.shape[1] for name, x in given.items() if x.shape[1] > 1}
    rows = {name: len(x) for name, x in given.items() if len(x) > 1}
    for what, each in {
        "size": sizes,
        "number of channels": channels,
        "number of rows": rows,
    }.items():
        if len(set(each.values())) > 1:
            said = ", ".join(f"{name} {value}" for name, value in each.items())
            raise Refused(f"{said} do not go together: pass one {what} for all")
