"""Projective warps: how copies of a picture are turned, moved and tilted before CLIP sees them.

The extending augmentations of Blended Diffusion (2111.14818, section 3.2). Next:
clip_guidance.py.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def warps(u: Tensor, unwarped: int = 0) -> Tensor:
    """Projective maps (B*N,3,3) of [-1,1]^2 onto itself from numbers u (B,N,12 or 13) in [0,1).

    Turned by up to 15 degrees and moved by up to a tenth of the side (in 7 of 10), then each corner
    pulled in by up to 0.7 of half the side (in 7 of 10), near to what augmentations.py:12-15 of the
    official code draws. Of the copies of each picture the first `unwarped` stay as they are. With
    12 numbers, as the saved tables were made, one is both the move in y and the first corner's.
    """
    turn, tilt = _parts(u, unwarped)
    return turn @ tilt


def warped_twice(pictures: Tensor, u: Tensor, unwarped: int = 0) -> Tensor:
    """Copies (B*N,3,H,W) warped as augmentations.py:12-15 does; u (B,N,13), see `warps`.

    Turned and moved in y alone (kornia takes translate=0.1 so), what is outside being the border's
    colour; of the result the corners are pulled in, what is outside being 0.
    """
    turn, tilt = _parts(u, unwarped)
    upright = turn.clone()
    upright[:, 0, 2] = 0
    return warp(warp(pictures, upright, "border"), tilt)


def _parts(u, unwarped):
    """The affine and the projective part of maps (B*N,3,3)."""
    B, N, numbers = u.shape
    u = u.reshape(B * N, numbers)
    plain = (torch.arange(B * N, device=u.device) % N < unwarped)[:, None]
    affine, perspective = (u[:, :1] < 0.7) & ~plain, (u[:, 1:2] < 0.7) & ~plain

    # The affine part, as the inverse map: where each place of the result comes from.
    moved = torch.where(affine, 2 * u[:, 2:5] - 1, 0.0)
    angle, x, y = moved[:, 0] * torch.pi / 12, moved[:, 1] * 0.2, moved[:, 2] * 0.2
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    turn = torch.stack([cos, -sin, x, sin, cos, y, zero, zero, zero + 1], dim=1).view(-1, 3, 3)

    # The projective part: solve for the map that takes the pulled-in corners back to the corners.
    corners = u.new_tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    pulled_by = 0.7 * torch.where(perspective, u[:, -8:], 0.0).view(-1, 4, 2)
    pulled = corners * (1 - pulled_by)  # (BN,4,2)
    px, py = pulled.unbind(-1)
    cx, cy = corners.expand_as(pulled).unbind(-1)  # (BN,4)
    one, none = torch.ones_like(px), torch.zeros_like(px)
    rows_x = torch.stack([px, py, one, none, none, none, -px * cx, -py * cx], dim=-1)
    rows_y = torch.stack([none, none, none, px, py, one, -px * cy, -py * cy], dim=-1)
    rows, wanted = torch.cat([rows_x, rows_y], dim=1), torch.cat([cx, cy], dim=1)
    solved, _ = torch.linalg.solve_ex(rows, wanted)  # (BN,8); a GPU is not waited for
    tilt = torch.cat([solved, one[:, :1]], dim=1).view(-1, 3, 3)
    return turn, tilt


def warp(pictures: Tensor, maps: Tensor, outside="zeros") -> Tensor:
    """Warp pictures (B,3,H,W); maps (B,3,3) say where in [-1,1]^2 each place comes from.

    outside: "zeros", or "border": the colour of the nearest place at the border.
    """
    H, W = pictures.shape[-2:]
    like: Any = {"device": pictures.device, "dtype": pictures.dtype}
    y, x = torch.meshgrid(
        *((torch.arange(n, **like) + 0.5) / n * 2 - 1 for n in (H, W)), indexing="ij"
    )
    # (B,HW,3)
    places = torch.stack([x, y, torch.ones_like(x)], dim=-1).view(1, H * W, 3) @ maps.to(x).mT
    grid = (places[..., :2] / places[..., 2:].clamp(min=1e-3)).view(-1, H, W, 2)
    return F.grid_sample(pictures, grid, padding_mode=outside, align_corners=False)
