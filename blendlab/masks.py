"""Masks at latent size: four ways down, dilation, shrinking, boxes (2206.02779, section 4.3).

A latent cell stands for a block of pixels, so a thin stroke may fall between the cells. Masks are
float (B or 1,1,H,W), 1 = edit; `mask_small` is a mask at latent size; sizes are (height, width), as
in torch, and boxes (left, top, right, bottom), as in PIL. Next: papers/blended_latent.py blends
with them, step by step.
"""

import math
from numbers import Real

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from . import images
from .errors import Refused
from .options import check, choice, number, sides, tensor

RULES = ("corner", "centre", "area", "any")


def to_latent(
    mask: Tensor, size: tuple[int, int], rule: str = "centre", allow_empty: bool = False
) -> Tensor:
    """Bring a mask (B,1,H,W) to latent size (B,1,h,w) by a named rule for the cells.

    corner: the pixel in the cell's first corner (torch nearest, as diffusers does).
    centre: the pixel in the cell's middle (PIL nearest, as the official BLD code); thin strokes can
            vanish.
    area: the white share of the cell, in [0, 1]. any: white where one pixel is; nothing
          vanishes.
    Raises ValueError where a mask vanishes altogether, and warns where a part of it that touches
    nothing else does, unless allow_empty.
    """
    tensor("mask", mask, "B,1,H,W")
    sides(size)
    choice("mask rule", rule, RULES)
    if rule == "corner":
        small = F.interpolate(mask, size, mode="nearest")
    elif rule == "centre":
        ys, xs = map(_centres, mask.shape[-2:], size)
        small = mask[..., ys, :][..., xs]
    elif rule == "area":
        small = F.interpolate(mask, size, mode="area")
    else:
        small = F.adaptive_max_pool2d(mask, size)
    if not allow_empty and (small.flatten(1).amax(1) == 0).any():
        fix = "paint it thicker, or choose the rule 'any'"
        raise Refused(
            f"the mask vanishes at latent size {size[1]}x{size[0]} by the rule '{rule}': {fix}"
        )
    if not allow_empty and rule in ("corner", "centre"):
        thicker = "paint them thicker, or take the rule 'any' (a method's mask_rule=)"
        warn_of_lost_parts(mask, small, rule, thicker)
    return small


def warn_of_lost_parts(mask, small, rule, fix):
    """Say which connected parts of a mask hold no pixel that the rule looks at, and the fix."""
    from scipy import ndimage

    height, width = mask.shape[-2:]
    kept = F.interpolate(small, (height, width), mode="nearest")  # (B,1,H,W)
    lost = []
    for whole, cells in zip(mask[:, 0].cpu().numpy(), kept[:, 0].cpu().numpy(), strict=True):
        parts, count = ndimage.label(whole > 0, structure=np.ones((3, 3)))
        stays, area = set(parts[cells > 0].tolist()), np.bincount(parts.ravel())
        boxes = ndimage.find_objects(parts)
        lost += [(boxes[k - 1], area[k]) for k in range(1, count + 1) if k not in stays]
    if lost:
        pixels, (rows, columns) = sum(n for _, n in lost), lost[0][0]
        where = f"the first at x {columns.start} to {columns.stop - 1}"
        where += f", y {rows.start} to {rows.stop - 1}"
        parts = f"{len(lost)} part{'s' * (len(lost) > 1)}"
        images.warn(
            f"{pixels} pixels of the mask in {parts} ({where}) vanish at latent size by the rule "
            f"'{rule}', so nothing is edited there: {fix}"
        )


def _centres(full, small):
    """The pixels that PIL's nearest picks: its rounding at exact ties follows no short formula."""
    row = Image.fromarray(np.arange(full, dtype=np.int32)[None])
    return torch.from_numpy(np.array(row.resize((small, 1), Image.Resampling.NEAREST))[0]).long()


def survival(mask: Tensor, size: tuple[int, int], rule: str = "centre") -> float:
    """The share of the mask's area (B,1,H,W) that lies in cells that stay white at latent size."""
    tensor("mask", mask, "B,1,H,W")
    if mask.sum() == 0:
        raise Refused("the mask is black everywhere, so nothing of it can survive: paint it")
    small = to_latent(mask, size, rule, allow_empty=True)
    covered = F.interpolate(small, mask.shape[-2:], mode="nearest")  # (B,1,H,W)
    return ((mask * covered).sum() / mask.sum()).item()


def dilate(mask: Tensor, radius: int) -> Tensor:
    """Grow the white by `radius` pixels on each side, as two 1-D max-pools."""
    tensor("mask", mask, "B,1,H,W")
    number("radius", radius)
    side = 2 * radius + 1
    rows = F.max_pool2d(mask, (side, 1), stride=1, padding=(radius, 0))
    return F.max_pool2d(rows, (1, side), stride=1, padding=(0, radius))


def stages(mask_small: Tensor, steps: int, radii: tuple[int, ...] = (3, 2, 1)) -> list[Tensor]:
    """Progressive mask shrinking (BLD section 4.3): a mask for each step, the widest first.

    steps: how many moves are made, which is what is left after skip: len(timesteps) - 1. They fall
    into equal parts, one for each radius and one for the mask. The default is the paper's squares
    of 7, 5 and 3 cells. Every stage is reached, which the official schedule does not promise: with
    50 steps and 9 dilations its last mask is still a dilated one.
    """
    tensor("mask_small", mask_small, "B,1,H,W")
    number("steps", steps, span=(1, 10**6, "it counts the steps, so take 1 or more"))
    check("radii", radii, tuple[int, ...])
    masks = [dilate(mask_small, radius) for radius in sorted(radii, reverse=True)] + [mask_small]
    if steps < len(masks):
        fix = f"take at least {len(masks)} steps, or fewer radii"
        raise Refused(f"{steps} steps cannot pass through {len(masks)} masks: {fix}")
    return [masks[i * len(masks) // steps] for i in range(steps)]


def strengths(mask: Tensor, moves: int) -> list[Tensor]:
    """Differential Diffusion (2306.00950): one binary mask per move for a grey mask in [0,1].

    A grey says how strongly a place may change: white is edited from the first move on, half grey
    in the second half of them, black and anything darker than 1 / moves never. A black-and-white
    mask is itself at each move. A mask all of which is darker than 1 / moves is refused.
    """
    tensor("mask", mask, "B,1,H,W")
    number("moves", moves)
    each = [(mask >= (moves - i) / moves).to(mask.dtype) for i in range(moves)]
    if not each[-1].flatten(1).any(1).all():
        lightest = mask.amax((1, 2, 3)).min().item()
        raise Refused(
            f"the lightest grey of a mask is {lightest:.2g}, and {moves} moves edit nothing below "
            f"{1 / moves:.2g}: paint it lighter, or take more steps or a smaller skip"
        )
    return each


def square_around(mask: Tensor, around: float) -> tuple[int, int, int, int]:
    """The square (left, top, right, bottom), in pixels, around all but black of a mask (1,1,H,W).

    Its side is `around` times the longer side of the mask's box, or the picture's shorter side
    where that is less, and it lies inside the picture.
    """
    number("around", around, whole=False)
    left, top, right, bottom = edges(mask)
    height, width = mask.shape[-2:]
    longest, room = max(right - left, bottom - top), min(height, width)
    if longest > room:
        raise Refused(
            f"the mask is {right - left}x{bottom - top}, and no square inside the picture "
            f"{width}x{height} holds it: leave around= out"
        )
    return _square(mask, min(max(longest, round(around * longest)), room))


def square(mask: Tensor, least: int, step: int) -> tuple[int, int, int, int]:
    """The square (left, top, right, bottom) in cells around one mask at latent size (1,1,h,w).

    Its side has at least `least` cells and is a multiple of `step`, and it is a third more than the
    longer side of the mask's box or larger, so that there is something to see around the mask; the
    whole where that has no room.
    """
    left, top, right, bottom = edges(mask)
    wanted = max(least, 4 / 3 * max(right - left, bottom - top))
    side = math.ceil(wanted / step) * step
    if side >= min(mask.shape[-2:]):
        return 0, 0, mask.shape[-1], mask.shape[-2]
    return _square(mask, side)


def _square(mask, side):
    """The square of a side around the middle of a mask's box, moved into the picture."""
    left, top, right, bottom = edges(mask)
    height, width = mask.shape[-2:]
    x, y = (left + right - side) // 2, (top + bottom - side) // 2
    x, y = min(max(x, 0), width - side), min(max(y, 0), height - side)
    return x, y, x + side, y + side


def box(mask: Tensor) -> tuple[float, float, float, float]:
    """The smallest box (x0, y0, x1, y1), in fractions, around all but black of a mask (1,1,H,W)."""
    left, top, right, bottom = edges(mask)
    height, width = mask.shape[-2:]
    return left / width, top / height, right / width, bottom / height


def edges(mask: Tensor) -> tuple[int, int, int, int]:
    """The smallest box (left, top, right, bottom) around all but black of one mask (1,1,H,W), in
    its own pixels or cells; right and bottom are the first ones outside.
    """
    tensor("mask", mask, "B,1,H,W", bools=True)
    if mask.shape[0] != 1:
        raise Refused(f"there are {mask.shape[0]} masks: box takes one, mask[i : i + 1]")
    white = (mask[0, 0] > 0).nonzero()  # (pixels,2): y and x
    if not len(white):
        raise Refused("the mask is black everywhere, so it has no box: paint the area white")
    (top, left), (bottom, right) = white.amin(0).tolist(), (white.amax(0) + 1).tolist()
    return left, top, right, bottom


def from_box(box: tuple[float, float, float, float], size: tuple[int, int]) -> Tensor:
    """The mask (1,1,H,W) of a box in fractions: white where a pixel's centre lies inside."""
    x0, y0, x1, y1 = box = corners(box)
    sides(size)
    if max(box) > 1 or min(box) < 0:
        fix = "corners are fractions of the picture, so divide x by its width and y by its height"
        raise Refused(f"the box {tuple(box)} leaves the picture: {fix}")
    if not (x0 < x1 and y0 < y1):
        raise Refused(
            f"the box {tuple(box)} is empty: give left, top, right, bottom, with 0 at the top"
        )
    ys, xs = ((torch.arange(side) + 0.5) / side for side in size)
    inside = ((ys >= y0) & (ys < y1))[:, None] & ((xs >= x0) & (xs < x1))  # (H,W)
    if not inside.any():
        raise Refused(f"the box {tuple(box)} holds no pixel of {size[1]}x{size[0]}: make it larger")
    return inside[None, None].float()


def corners(box) -> tuple:
    """A box as a tuple of its four numbers, or a sentence about what it has."""
    fix = "give left, top, right, bottom in fractions"
    if not isinstance(box, list | tuple) or not all(isinstance(side, Real) for side in box):
        raise Refused(f"the box {box!r} is not of four numbers: {fix}")
    if len(box) != 4:
        raise Refused(f"the box {tuple(box)} has {len(box)} numbers: {fix}")
    return tuple(box)


def rms(difference: Tensor, where: Tensor) -> Tensor:
    """(B,) root mean square of (B,C,H,W) over the places in `where` (B or 1,1,H,W)."""
    squares = difference.square().mean(1, keepdim=True) * where  # (B,1,H,W)
    return (squares.sum((1, 2, 3)) / where.sum((1, 2, 3))).sqrt()
