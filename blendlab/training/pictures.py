"""What the jobs do to pictures: keep them in bytes, cut windows around objects, make sheets.

Objects cover a tenth of a scene and are what everything here is about. Read next: autoencoder.py.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import world

CLOSER = 4  # one of so many pictures is a closer look, as edits of a crop around the mask see it


def to_bytes(image: Tensor) -> Tensor:
    """(B,3,H,W) in [-1,1] to uint8: a quarter of the memory."""
    return ((image.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def from_bytes(image: Tensor) -> Tensor:
    return image.float() / 127.5 - 1


def closer_looks(start: int, n: int, smallest: float) -> Tensor:
    """Windows (n,4) in fractions for pictures from start on: the whole, for every fourth a part."""
    g = torch.Generator().manual_seed(start)
    side = smallest + (1 - smallest) * torch.rand(n, 1, generator=g)
    side[torch.arange(start, start + n) % 4 != 3] = 1.0
    corner = torch.rand(n, 2, generator=g) * (1 - side)
    return torch.cat([corner, corner + side], dim=1)


def middles(objects: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """A pixel (y, x) of each picture, (B,) each, of its objects (B,1,H,W), else anywhere."""
    chance = (objects.float() + 1e-3).flatten(1)
    draw = torch.empty(chance.shape).exponential_(generator=g).to(objects.device)
    middle, W = (chance / draw).argmax(1), objects.shape[-1]
    return middle // W, middle % W


def crop(maps: Tensor, y: Tensor, x: Tensor, side: int) -> Tensor:
    """Windows (B,C,side,side) of (B,C,H,W) around cells (y, x), (B,) each, moved to lie inside."""
    B, _, H, W = maps.shape
    reach = torch.arange(side, device=maps.device)
    rows = (y - side // 2).clamp(0, H - side)[:, None] + reach  # (B,side)
    columns = (x - side // 2).clamp(0, W - side)[:, None] + reach
    index = torch.arange(B, device=maps.device)[:, None, None]
    return maps[index, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def sheet(rows: list[Tensor]):
    """Rows of pictures (n,3,H,W) in [-1,1], one below the other, as one PIL picture."""
    from torchvision.transforms.functional import to_pil_image
    from torchvision.utils import make_grid

    strips = [make_grid(row.detach().float().cpu(), len(row), 2, pad_value=1.0) for row in rows]
    width = max(strip.shape[-1] for strip in strips)
    page = [F.pad(strip, (0, width - strip.shape[-1]), value=1) for strip in strips]
    return to_pil_image((torch.cat(page, dim=-2).clamp(-1, 1) + 1) / 2)


def one_object(scenes, seed: int) -> Tensor:
    """The slot (B,) of one object of each scene, drawn from the seed; 0 where there is none."""
    slot = torch.randint(2**20, (len(scenes),), generator=torch.Generator().manual_seed(seed))
    return slot.to(scenes.kind.device) % scenes.count.clamp(min=1)


def patterned(scenes, start: int):
    """The scenes of a stream from number start on; in half of them all objects get a pattern.

    In the world two of three objects are plain, here one of three: stripes and spots are thin, and
    little of a loss is about them.
    """
    pattern = scenes.pattern
    number = torch.arange(start, start + len(scenes), device=pattern.device)[:, None]
    slot = torch.arange(world.SLOTS, device=pattern.device)
    drawn = 1 + (number // 16 + slot) % 2
    return replace(scenes, pattern=torch.where(number // 8 % 2 == 1, drawn, pattern))


def looks(scenes, slot: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """Windows (n,4) in fractions, and which of them (n,) are closer looks at the object in `slot`.

    A closer look is a square 1.3 to 3 times as large as the object, placed so that it is not always
    in the middle.
    """
    n, g = len(scenes), torch.Generator().manual_seed(start)
    box = world.render(scenes, size=32).boxes.cpu()[torch.arange(n), slot.cpu()]  # (n,4)
    closer = ((torch.arange(start, start + n) % CLOSER) == CLOSER - 1) & (box[:, 2] > box[:, 0])
    larger = (box[:, 2:] - box[:, :2]).amax(1, keepdim=True)
    side = (larger * (1.3 + 1.7 * torch.rand(n, 1, generator=g))).clamp(0.2, 1)
    room = (side - larger).clamp(min=0)
    corner = (box[:, :2] + box[:, 2:] - side) / 2 + room * (
        torch.rand(n, 2, generator=g) - 0.5
    ) * 0.8
    corner = corner.clamp(min=0).minimum(1 - side)
    window = torch.cat([corner, corner + side], dim=1)
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0])
    window = torch.where(closer[:, None], window, whole)
    return window.to(scenes.kind.device), closer.to(scenes.kind.device)


def enlarged(image: Tensor, closer: Tensor, start: int) -> Tensor:
    """Pictures (n,3,S,S); every other closer look is blurred, as an enlarged crop is."""
    blurred = F.interpolate(F.avg_pool2d(image, 2), scale_factor=2.0, mode="bilinear")
    every_other = torch.arange(start, start + len(image), device=image.device) // CLOSER % 2 == 0
    return torch.where((closer & every_other)[:, None, None, None], blurred, image)
