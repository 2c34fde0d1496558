"""Joins of a whole edited picture and its source: Laplacian pyramids, and the gradient domain.

Pyramids (Burt and Adelson, 1983) inspired Blended Diffusion (2111.14818); Blended Latent Diffusion
(2206.02779, section 4.2) is compared with gradient-domain blending (Perez et al. 2003): the edit's
differences inside the mask, the source outside it; no seam, but the edit takes the colours of what
surrounds it. Its code uses OpenCV's seamlessClone, which is unsafe for a mask at the border
(general_utils/seamless_cloning.py:5-31). Next: papers/decoder.py.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .blend import alike
from .errors import Refused
from .options import number, tensor

# Pyramids


def pyramid(mask: Tensor, edit: Tensor, keep: Tensor, levels: int | None = None) -> Tensor:
    """Join an edited picture and its source by bands: coarse ones slowly, fine ones fast.

    Burt and Adelson, "A multiresolution spline" (1983). mask: (1 or B,1,H,W) in [0,1], 1 = edit;
    edit, keep: (1 or B,3,H,W). levels: how often to halve; None: while the shorter side stays 8
                pixels or more. Returns
    (B,3,H,W), not clamped: the edit itself where the mask is 1 far around, and what to keep, bit
    for bit, where it is 0 far around. How far is far doubles with each level.
    """
    _check(mask, edit, keep)
    sides = [min(mask.shape[-2:])]
    while sides[-1] > 2:  # the reflected margin needs three pixels
        sides.append(-(-sides[-1] // 2))
    levels = max(0, sum(side >= 8 for side in sides) - 1) if levels is None else levels
    most = len(sides) - 1
    halved = f"a shorter side of {sides[0]} pixels can be halved 0 to {most} times"
    number("levels", levels, span=(0, most, halved))

    # Every step is linear, so the bands of the difference do for those of both: m A + (1 - m) B = B
    # + m (A - B).
    x, bands = edit - keep, []
    for _ in range(levels):
        small = halve(x)
        bands.append(mask * (x - double(small, x.shape[-2:])))
        x, mask = small, halve(mask)
    x = mask * x
    for band in reversed(bands):
        x = band + double(x, band.shape[-2:])
    return keep + x


def _check(mask, edit, keep):
    """Refuse what is not a mask and two pictures of one size."""
    alike(mask, edit, keep)
    tensor("mask", mask, "B,1,H,W")
    tensor("edit", edit, "B,C,H,W")
    tensor("keep", keep, "B,C,H,W")


def halve(x: Tensor) -> Tensor:
    """(B,C,H,W) blurred by 1 4 6 4 1, and every second of it: (B,C,ceil(H/2),ceil(W/2))."""
    return _blur(x)[..., ::2, ::2]


def double(x: Tensor, size) -> Tensor:
    """The way back to `size` (H,W): zeros between the pixels, and a blur four times as strong."""
    spread = x.new_zeros(*x.shape[:2], *size)
    spread[..., ::2, ::2] = 4 * x
    return _blur(spread)


def _blur(x):
    taps = x.new_tensor([1, 4, 6, 4, 1]) / 16
    C = x.shape[1]
    x = F.pad(x, (2, 2, 2, 2), mode="reflect")
    x = F.conv2d(x, taps.view(1, 1, 5, 1).expand(C, 1, 5, 1), groups=C)
    return F.conv2d(x, taps.view(1, 1, 1, 5).expand(C, 1, 1, 5), groups=C)


# The gradient domain


def poisson(mask: Tensor, edit: Tensor, keep: Tensor) -> Tensor:
    """`keep` outside the mask, bit for bit; inside, neighbours differ as the edit's do.

    mask: (1 or B,1,H,W) in {0,1}, 1 = edit, of any shape and in any number of parts; a 0 in each.
    edit, keep: (1 or B,C,H,W). Returns (B,C,H,W) in the edit's dtype, solved in float64, not
                clamped.

    At each masked pixel p, summed over its neighbours q: sum (f_p - f_q) = sum (edit_p - edit_q),
    with f_q = keep_q where q is not masked. Pixels at the border of the picture just have fewer
    neighbours (Neumann).
    """
    _check(mask, edit, keep)
    if not ((mask == 0) | (mask == 1)).all():
        raise Refused("the mask has greys: pass (mask > 0.5).float(), or take pyramid")
    if (mask.flatten(1).amin(1) == 1).any():
        raise Refused("a mask is white everywhere, so no border holds the edit: paste the edit")
    B = max(len(mask), len(edit), len(keep))
    edit, keep = edit.expand(B, -1, -1, -1), keep.expand(B, -1, -1, -1)
    if len(mask) == 1:
        solved = edit + _membrane(mask[0, 0] == 1, keep - edit)
    else:
        solved = torch.cat(
            [edit[[b]] + _membrane(mask[b, 0] == 1, (keep - edit)[[b]]) for b in range(B)]
        )
    return torch.where(mask == 1, solved, keep)


def _membrane(inside: Tensor, values: Tensor) -> Tensor:
    """The values (B,C,H,W) outside, and inside (H,W) the smoothest sheet between them."""
    from scipy.sparse.linalg import splu

    inside = inside.flatten().cpu().numpy()
    sheet = values.flatten(0, 1).flatten(1).T.cpu().double().numpy()  # (HW,BC)
    rows = _laplacian(*values.shape[-2:])[inside]
    # Symmetric and positive, as every masked pixel is connected to one that is not.
    how: dict = dict(permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0)
    factors = splu(rows[:, inside].tocsc(), options={"SymmetricMode": True}, **how)
    sheet[inside] = factors.solve(-rows[:, ~inside] @ sheet[~inside])
    return torch.from_numpy(sheet.T.copy()).reshape(values.shape).to(values)


def _laplacian(height: int, width: int):
    """The matrix (HW,HW) that sums how much each pixel exceeds its neighbours."""
    from scipy import sparse

    def line(n):
        neighbours = np.full(n, 2.0)
        neighbours[[0, -1]] = 1.0 if n > 1 else 0.0
        return sparse.diags([-np.ones(n - 1), neighbours, -np.ones(n - 1)], [-1, 0, 1])

    return sparse.csr_matrix(sparse.kronsum(line(width), line(height)))
