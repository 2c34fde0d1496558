"""What the jobs do to pictures: keep them in bytes, cut windows around objects, lay them out on a sheet.

Objects cover a tenth of a scene and are what everything here is about. Read next: autoencoder.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def to_bytes(image: Tensor) -> Tensor:
    """(B,3,H,W) in [-1,1] to uint8: a quarter of the memory."""
    return ((image.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def from_bytes(image: Tensor) -> Tensor:
    return image.float() / 127.5 - 1


def closer_looks(start: int, n: int, smallest: float) -> Tensor:
    """Windows (n,4) in fractions for pictures start .. start+n-1: the whole, and for every fourth a part of it."""
    g = torch.Generator().manual_seed(start)
    side = smallest + (1 - smallest) * torch.rand(n, 1, generator=g)
    side[torch.arange(start, start + n) % 4 != 3] = 1.0
    corner = torch.rand(n, 2, generator=g) * (1 - side)
    return torch.cat([corner, corner + side], dim=1)


def middles(objects: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """A pixel (y, x) of each picture, (B,) each, drawn from its objects (B,1,H,W), or anywhere if it has none."""
    chance = (objects.float() + 1e-3).flatten(1)
    draw = torch.empty(chance.shape).exponential_(generator=g).to(objects.device)
    middle, W = (chance / draw).argmax(1), objects.shape[-1]
    return middle // W, middle % W


def crop(maps: Tensor, y: Tensor, x: Tensor, side: int) -> Tensor:
    """Windows (B,C,side,side) of (B,C,H,W) around the cells (y, x), (B,) each, moved to lie inside the picture."""
    B, _, H, W = maps.shape
    reach = torch.arange(side, device=maps.device)
    rows = (y - side // 2).clamp(0, H - side)[:, None] + reach  # (B,side)
    columns = (x - side // 2).clamp(0, W - side)[:, None] + reach
    index = torch.arange(B, device=maps.device)[:, None, None]
    return maps[index, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def sheet(rows: list[Tensor]):
    """Rows of pictures (n,3,H,W) in [-1,1], one below the other, as one PIL picture."""
    from PIL import Image

    strips = [torch.cat(list(F.pad(row.detach().float().cpu(), (1, 1, 1, 1), value=1)), dim=-1) for row in rows]
    width = max(strip.shape[-1] for strip in strips)
    page = torch.cat([F.pad(strip, (0, width - strip.shape[-1]), value=1) for strip in strips], dim=-2)
    return Image.fromarray(((page.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy())
