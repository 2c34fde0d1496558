"""Gradient-domain blending (Perez et al. 2003): the edit's differences inside the mask, the source outside it.

The picture that Blended Latent Diffusion (2206.02779, section 4.2) compares with: no seam, but the edit takes
the colours of what surrounds it. Its code uses OpenCV's seamlessClone, which is unsafe for a mask at the border
(general_utils/seamless_cloning.py:5-31). Next: decoder.py.
"""

import numpy as np
import torch
from torch import Tensor


def poisson(mask: Tensor, edit: Tensor, keep: Tensor) -> Tensor:
    """`keep` outside the mask, bit for bit; inside, the picture whose neighbours differ as the edit's do.

    mask: (1 or B,1,H,W) in {0,1}, 1 = edit, of any shape and in any number of parts; a 0 in each.
    edit, keep: (1 or B,C,H,W). Returns (B,C,H,W) in the edit's dtype, solved in float64, not clamped.

    At each masked pixel p, summed over its neighbours q: sum (f_p - f_q) = sum (edit_p - edit_q), with f_q = keep_q
    where q is not masked. Pixels at the border of the picture just have fewer neighbours (Neumann).
    """
    B = max(len(mask), len(edit), len(keep))
    edit, keep = edit.expand(B, -1, -1, -1), keep.expand(B, -1, -1, -1)
    if len(mask) == 1:
        solved = edit + _membrane(mask[0, 0] == 1, keep - edit)
    else:
        solved = torch.cat([edit[[b]] + _membrane(mask[b, 0] == 1, (keep - edit)[[b]]) for b in range(B)])
    return torch.where(mask == 1, solved, keep)


def _membrane(inside: Tensor, values: Tensor) -> Tensor:
    """The values (B,C,H,W) outside, and between them inside (H,W) the smoothest sheet that they hold up."""
    from scipy.sparse.linalg import splu

    inside, sheet = inside.flatten().cpu().numpy(), values.flatten(0, 1).flatten(1).T.cpu().double().numpy()  # (HW,BC)
    rows = _laplacian(*values.shape[-2:])[inside]
    # Symmetric and positive, as every masked pixel is connected to one that is not.
    matrix, options = rows[:, inside].tocsc(), dict(permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0)
    solution = splu(matrix, options={"SymmetricMode": True}, **options).solve(-rows[:, ~inside] @ sheet[~inside])
    sheet = sheet.copy()
    sheet[inside] = solution
    return torch.from_numpy(sheet.T.copy()).reshape(values.shape).to(values)


def _laplacian(height: int, width: int):
    """The matrix (HW,HW) that sums at each pixel how much it exceeds its neighbours in the picture."""
    from scipy import sparse

    def line(n):
        neighbours = np.full(n, 2.0)
        neighbours[[0, -1]] = 1.0
        return sparse.diags([-np.ones(n - 1), neighbours, -np.ones(n - 1)], [-1, 0, 1])

    return sparse.csr_matrix(sparse.kronsum(line(width), line(height)))
