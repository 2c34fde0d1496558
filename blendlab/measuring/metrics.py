"""How edits are measured: tasks with a known truth, the judge's verdicts, numbers with intervals.

After the protocol of Blended Latent Diffusion (2206.02779, section 5): a box in a picture, a
prompt, and a classifier that guided nothing. Precision is the share of edits in whose box it sees
what was asked for. There the boxes and the ImageNet classes are random; here every box is where an
object of that name really could stand, because the truth is the same scene with the object in it.
Next: tables.py, what is measured.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .. import images, world
from ..errors import Refused
from ..masks import rms
from ..options import tensor

BLOCK = 16  # tasks are drawn in blocks, so that any part of them can be drawn again
MARGIN = (
    0.03  # a mask is the object's box and this much more on every side, in fractions of the picture
)


# Numbers with intervals


def proportion(successes: int, n: int) -> tuple[float, float, float]:
    """The share successes/n with its 95% interval (Wilson's score, honest at 0 and at n)."""
    if not 0 <= successes <= n or n < 1:
        raise Refused(f"{successes} of {n} is no share; count successes among one or more")
    from scipy.stats import binomtest

    wilson = binomtest(successes, n).proportion_ci(method="wilson")
    return successes / n, float(wilson.low), float(wilson.high)


def mean(values) -> tuple[float, float, float]:
    """The mean with its 95% interval (Student's t); that of one value alone is nan."""
    from scipy.stats import t

    values = torch.as_tensor(values, dtype=torch.float64).flatten().cpu()
    if not len(values):
        raise Refused("there are no values to take a mean of: pass one or more")
    n, m = len(values), values.mean().item()
    half = t.ppf(0.975, n - 1) * values.std().item() / math.sqrt(n) if n > 1 else math.nan
    return m, m - half, m + half


def resampled(values: list, share: bool = False) -> tuple[float, float, float]:
    """The mean of a value for each scene or prompt with its 95% interval, by bootstrap over those
    that have one (None: it has none). Results of one scene are alike, so each counts once.

    Where all agree there is nothing to draw: a share of 0 or 1 then gets Wilson's interval.
    """
    from scipy.stats import bootstrap

    values = [v for v in values if v is not None]
    if len(values) < 2:
        return (values or [math.nan])[0], math.nan, math.nan
    m = sum(values) / len(values)
    if min(values) == max(values):
        agreed = share and m in (0, 1)
        return (
            proportion(round(m * len(values)), len(values)) if agreed else (m, math.nan, math.nan)
        )
    how = dict(n_resamples=4000, method="percentile", vectorized=True, random_state=0)
    low, high = bootstrap((values,), np.mean, **how).confidence_interval
    return m, float(low), float(high)


# Pictures against pictures


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """(B,) peak signal-to-noise ratio in dB of pictures (B,3,H,W) in [-1,1]; infinite if equal."""
    _alike(a=a, b=b)
    return decibels(rms((a - b) / 2, torch.ones_like(a[:, :1])))


def background_error(result: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """(B,) root mean square change outside the mask, as a share of the range from black to white.

    result (B,3,H,W), image (B or 1,3,H,W) in [-1,1]; mask (B or 1,1,H,W), 1 = edit. As a PSNR:
    `decibels`. A mask that is white everywhere is refused.
    """
    _alike(result=result, image=image, mask=mask)
    if (mask.flatten(1).amin(1) == 1).any():
        raise Refused("a mask is white everywhere, so there is no background: leave it out")
    return rms((result - image) / 2, 1 - mask)


def border(result: Tensor, source: Tensor, mask: Tensor) -> Tensor:
    """(B,) how much more visible the border of the mask is than in the untouched source: 1 is not
    at all, and the source scores 1 exactly.

    For each pixel of the mask (B or 1,1,H,W), 1 = edit, and its neighbour outside, the jump of
    colour is compared with the source's own jump at the same place; what exceeds it is averaged
    over the border, in units of the source's mean jump between neighbours anywhere. So a horizon
    that crosses the border costs nothing, as the source has it too. Result and source are
    (B or 1,3,H,W) in [-1,1]. The truth scores a little above 1 where a shadow leaves the mask.
    """
    _alike(result=result, source=source, mask=mask)
    more, usual = [], []
    for x, y, m in ((result, source, mask), (result.mT, source.mT, mask.mT)):
        jump, own = (z.diff().abs().mean(1, keepdim=True) for z in (x, y))  # (B,1,H,W-1)
        edge = m.diff() != 0
        excess = (jump - own).clamp(min=0) * edge
        more.append(torch.stack([excess.sum((1, 2, 3)), (edge + 0 * excess).sum((1, 2, 3))]))
        usual.append(own.mean((1, 2, 3)))
    total, count = more[0] + more[1]  # (B,) each
    if (count == 0).any():
        raise Refused(
            "a mask has no border inside the picture: take a mask with black and white areas"
        )
    return 1 + total / count / (sum(usual) / 2 + 2 / 255)


def seam(result: Tensor, mask: Tensor, ring: int = 3) -> Tensor:
    """(B,) how visible the border of the mask is in pictures (B,3,H,W) in [-1,1]: 1 is not at all.

    The mean jump of colour from a pixel in the mask (B or 1,1,H,W), 1 = edit, to its neighbour
    outside it, over the mean jump between the neighbours next to such a pair: those up to `ring`
    pixels before and behind it, in its own row or column and not across the border themselves. A
    grey level is added to both, so that flat pictures have a value too. Where the mask ends at the
    edge of the picture there is no neighbour and nothing counts; a mask that has no border inside
    the picture is refused, and so is one without a neighbour in the ring. Look at means over many
    pictures: in an unedited one a horizon along the border doubles the value, and an object just
    beside the border halves it.
    """
    _alike(result=result, mask=mask)
    parts = []
    for x, m in ((result, mask), (result.mT, mask.mT)):  # along the rows, and down the columns
        jump = x.diff().abs().mean(1, keepdim=True)  # (B,1,H,W-1)
        border = (m.diff() != 0).float()
        close = F.max_pool2d(border, (1, 2 * ring + 1), stride=1, padding=(0, ring)) - border
        parts.append([part.flatten(1) for part in (jump, border, close)])
    jump, border, close = (
        torch.cat(part, dim=1) for part in zip(*parts, strict=True)
    )  # (B or 1,pairs)
    if (border.sum(1) == 0).any() or (close.sum(1) == 0).any():
        raise Refused(
            "a mask has no border inside the picture, or no pixels beside it that are not border: "
            "take a mask with black and white areas, and a ring of 1 or more"
        )
    level = 2 / 255
    across, beside = ((jump * where).sum(1) / where.sum(1) + level for where in (border, close))
    return across / beside


def appeared(result: Tensor, before: Tensor, mask: Tensor, least: float = 0.08) -> Tensor:
    """(B,) bool: inside the mask the picture changed by more than `least` of the range (rms).

    before: the picture without the edit, best the source as the autoencoder decodes it.
    """
    _alike(result=result, before=before, mask=mask)
    _has_inside(mask)
    return rms((result - before) / 2, mask) > least


def decibels(error: Tensor) -> Tensor:
    """A root mean square error, as a share of the range, as a PSNR in dB."""
    return -20 * error.log10()


def truth_error(result: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """(B,) root mean square difference inside the mask, as a share of the range."""
    _alike(result=result, truth=truth, mask=mask)
    _has_inside(mask)
    return rms((result - truth) / 2, mask)


def light_error(result: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """(B,) how far the mean colour inside the mask is from the truth's, as a share of the range."""
    _alike(result=result, truth=truth, mask=mask)
    _has_inside(mask)
    mean = (mask * (result - truth)).sum((2, 3)) / mask.sum((2, 3))  # (B,3)
    return mean.abs().mean(1) / 2


def stayed_behind(result: Tensor, source: Tensor, truth: Tensor, mine: Tensor) -> Tensor:
    """(B,) how much of a removed object's shadow or reflection is left: 1 is all, 0 is none.

    truth: the same scene without the object; mine (1 or B,1,H,W): the object itself, which does
    not count. What the object did to the picture beside itself (more than four grey levels) is
    looked for in the result, as a projection. NaN where it did nothing, as in the sky.
    """
    _alike(result=result, source=source, truth=truth, mine=mine)
    if (mine.flatten(1).amin(1) > 0).any():
        raise Refused("mine is white everywhere, so nothing is beside the object: leave it out")
    did = source - truth
    where = (did.abs().amax(1, keepdim=True) > 8 / 255) & (mine == 0)  # (1 or B,1,H,W)
    return ((result - truth) * did * where).sum((1, 2, 3)) / (did * did * where).sum((1, 2, 3))


def diversity(distance, images: Tensor) -> float:
    """The mean distance of all pairs of pictures (B,3,H,W); NaN where there are fewer than two.

    distance: a function of two batches that gives (B,), as perceptual.lpips_distance("vgg").
    """
    i, j = torch.triu_indices(len(images), len(images), 1)
    parts = [distance(images[a], images[b]) for a, b in zip(i.split(32), j.split(32), strict=True)]
    return torch.cat(parts).mean().item() if len(i) else math.nan


def _alike(**tensors):
    """Refuse what cannot be compared: pictures, and masks, which are called mask or mine."""
    for name, x in tensors.items():
        is_mask = name in ("mask", "mine")
        tensor(name, x, "B,1,H,W" if is_mask else "B,3,H,W")
        if not is_mask and not x.is_floating_point():
            raise Refused(f"{name} holds {x.dtype}: pass floats in [-1,1]")
        if not x.isfinite().all():
            raise Refused(f"{name} has NaN or infinite values: make it in torch.float32")
        low, high = x.min().item(), x.max().item()
        if not is_mask:
            images.warn_of_range(name, low, high)
        elif low < 0 or high > 1:
            raise Refused(f"{name} has values outside [0,1]: divide it by 255 if that is white")
    sizes = {x.shape[-2:] for x in tensors.values()}
    if len(sizes) > 1 or len({1, *map(len, tensors.values())}) > 2:
        shapes = (f"{name} is {tuple(x.shape)}" for name, x in tensors.items())
        raise Refused(f"{', '.join(shapes)}: give all the same size, and as many or one")


def _has_inside(mask):
    if (mask.flatten(1).amax(1) == 0).any():
        raise Refused("a mask is black everywhere, so there is nothing inside: leave it out")


# Tasks


@dataclass(frozen=True)
class Tasks:
    """n edits to make, each of a scene of its own, and what they should come to. On the CPU.

    Make `prompts[i]` appear in `image[i]` inside `mask[i]`; then judge against `kind[i]` and
    `colour[i]`, or compare with `truth[i]`, which is the same scene with the object in it (its
    shadow may leave the mask).
    """

    image: Tensor  # (n,3,S,S) in [-1,1]
    mask: Tensor  # (n,1,S,S) in {0,1}, 1 = edit: the object's box, a little wider
    truth: Tensor  # (n,3,S,S) in [-1,1]
    scenes: world.Scenes  # of the truth
    slot: Tensor  # (n,) which of its objects is the new one
    prompts: list[str]  # "a red mushroom"
    kind: list[str]  # "mushroom"
    colour: list[str]  # "red"

    def __len__(self):
        return len(self.prompts)


def tasks(
    n: int, start: int = 0, seed: int = world.HELD_OUT, size: int = 64, simple: bool = False
) -> Tasks:
    """Tasks number start .. start+n-1 of a seed, as pictures of size x size.

    Task i depends on (seed, i) alone; size only says how finely it is drawn. The usual seed is for
    reporting: choose settings on another one (world.HELD_OUT + 1), or the report flatters them. The
    scenes to edit hold up to two objects. simple: only objects of the simple world, see
    world.simple.
    """
    if n < 1 or start < 0:
        raise Refused(
            f"there are no tasks {start} to {start + n - 1}; take n of 1 or more, from 0 on"
        )
    parts = [_block(seed, b, simple) for b in range(start // BLOCK, (start + n - 1) // BLOCK + 1)]
    scenes, slots, boxes = (list(part) for part in zip(*parts, strict=True))
    rows = slice(start % BLOCK, start % BLOCK + n)
    scenes, slot, boxes = world.cat(scenes)[rows], torch.cat(slots)[rows], torch.cat(boxes)[rows]

    each = torch.arange(n)
    return Tasks(
        image=world.render(world.without(scenes, slot), size).image,
        mask=box_mask(boxes, size),
        truth=world.render(scenes, size).image,
        scenes=scenes,
        slot=slot,
        prompts=world.describe(scenes, slot),
        kind=[world.KINDS[k] for k in scenes.kind[each, slot].tolist()],
        colour=[world.COLOURS[c] for c in scenes.colour[each, slot].tolist()],
    )


@lru_cache(maxsize=64)
def _block(seed: int, block: int, simple: bool) -> tuple[world.Scenes, Tensor, Tensor]:
    """BLOCK true scenes, the slot of the new object in each, and its box (BLOCK,4) in fractions."""
    before = world.sample(2 * BLOCK, seed, start=2 * BLOCK * block)
    before = before[before.count < 3][: BLOCK + 4]  # five in six hold so few
    after, slot = world.added(before, seed=seed * 1009 + block), before.count
    after = world.simple(after) if simple else after
    view, each = world.render(after, 64), torch.arange(len(before))
    wider = torch.tensor([-MARGIN, -MARGIN, MARGIN, MARGIN])
    boxes = (view.boxes[each, slot] + wider).clamp(0, 1)

    # A task is fair if its truth would be judged right: enough of the object shows, and it
    # dominates its box.
    inside = (view.masks * box_mask(boxes, 64)).mean((2, 3))  # (B,SLOTS) share of the picture
    mine = inside[each, slot]
    fair = ((mine > 0.01) & (mine > 1.5 * (inside.sum(1) - mine))).nonzero()[:BLOCK, 0]
    return after[fair], slot[fair], boxes[fair]


def box_mask(boxes: Tensor, size: int) -> Tensor:
    """Masks (B,1,size,size), 1 in one box each; boxes (B,4) are x0, y0, x1, y1 in fractions."""
    middle = (torch.arange(size, device=boxes.device) + 0.5) / size
    x0, y0, x1, y1 = boxes[:, :, None].unbind(1)  # (B,1) each
    across, down = (middle >= x0) & (middle < x1), (middle >= y0) & (middle < y1)  # (B,size)
    return (down[:, None, :, None] & across[:, None, None, :]).float()


# Pictures against words


def precision(judge, images: Tensor, tasks: Tasks) -> tuple[Tensor, Tensor]:
    """(n,) bool twice: the judge sees the prompted class in the mask; and in its colour, too.

    images (n,3,S,S): one for each task. The rule is `Judge.agrees`. On the CPU.
    """
    _has_inside(tasks.mask)
    if len(images) != len(tasks):
        raise Refused(f"there are {len(images)} pictures for {len(tasks)} tasks: pass one for each")
    right, mask = [], tasks.mask.to(images.device)
    for i, (kind, colour) in enumerate(zip(tasks.kind, tasks.colour, strict=True)):
        one = images[i : i + 1], mask[i : i + 1], kind
        right.append([judge.agrees(*one).item(), judge.agrees(*one, colour).item()])
    in_class, in_both = torch.tensor(right, dtype=torch.bool).view(-1, 2).unbind(1)
    return in_class, in_both
