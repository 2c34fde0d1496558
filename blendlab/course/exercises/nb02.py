"""Checkers of notebook 02, per-step blending."""

from collections.abc import Callable

import torch

from ...blend import blend
from ...noise import Noise
from ...schedule import Schedule
from .common import advise, close, say, tried


def check_02_1(skip_for: Callable) -> None:
    """skip_for(schedule, steps, least) -> the smallest skip k / steps whose first level has a >=
    least.
    """
    schedule, steps = Schedule.scaled_linear(), 25
    right = [
        next(
            k / steps
            for k in range(steps)
            if schedule.levels(schedule.timesteps(steps, k / steps)[0])[0] >= a
        )
        for a in (0.2, 0.5, 0.8)
    ]
    mine = tried(lambda: [skip_for(schedule, steps, a) for a in (0.2, 0.5, 0.8)])
    if mine is not None:
        if None in mine:
            return say(False, "", "your function gives nothing back; end it with `return`.")
        mine = [float(skip) for skip in mine]
        later = [skip + 1 / steps for skip in right]
        wrong = {
            "a share, not a number of steps: divide by steps.": max(mine) > 1,
            "one step too late: at least means >=.": all(
                abs(m - r) < 1e-6 for m, r in zip(mine, later, strict=True)
            ),
            "look at levels(timesteps(steps, skip)[0])[0], skip by skip.": any(
                abs(m - r) > 1e-6 for m, r in zip(mine, right, strict=True)
            ),
        }
        advise(wrong, "the later the start, the more of a scribble is left.")


def check_02_2(canvas_mask: Callable) -> None:
    """canvas_mask(height, width, grow) -> (1,1,height,width+2*grow), 1 where a wider canvas is
    still empty.
    """
    mine = tried(canvas_mask, 4, 6, 3)
    if mine is not None:
        right = torch.ones(1, 1, 4, 12)
        right[..., 3:9] = 0
        wrong = {
            "1 is edit: the new columns, not the picture.": close(mine, 1 - right),
            "the canvas grows on both sides: width + 2 * grow.": not isinstance(mine, torch.Tensor)
            or mine.shape != right.shape,
            "the picture stands in the middle, grow columns from either side.": not close(
                mine, right
            ),
        }
        advise(wrong, "the picture in the middle, and room for two prompts.")


def check_02_3(two_bands: Callable) -> None:
    """two_bands(mask, edit, keep, blur) -> a pyramid of two bands."""
    noise = Noise(8, 2, "initial")((3, 8, 8))
    edit, keep, mask = noise[:1], noise[1:], torch.zeros(1, 1, 8, 8)
    mask[..., 2:6, 2:6] = 1
    blur = lambda x: torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)  # noqa: E731
    mine = tried(two_bands, mask, edit, keep, blur)
    if mine is not None:
        coarse, fine = (
            blend(blur(mask), blur(edit), blur(keep)),
            blend(mask, edit - blur(edit), keep - blur(keep)),
        )
        wrong = {
            "that is the naive paste: blur the mask of the coarse band.": close(
                mine, blend(mask, edit, keep)
            ),
            "that is a soft mask: the fine band keeps the sharp one.": close(
                mine, blend(blur(mask), edit, keep)
            ),
            "that is the coarse band alone: add the fine one.": close(mine, coarse),
            "coarse: all three blurred. Fine: what the blur took away, under the sharp mask.": not close(  # noqa: E501
                mine, coarse + fine
            ),
        }
        advise(wrong, "light crosses the border slowly, detail at once.")


def check_02_4(my_score: Callable) -> None:
    """my_score(inside, whole) -> scores (n,), smaller is better, from CLIP's two distances (n,)."""
    inside, whole = Noise(9, 2, "initial")((12,)).abs()
    mine = tried(my_score, inside, whole)
    if mine is not None:
        shaped = isinstance(mine, torch.Tensor) and mine.shape == inside.shape
        order = mine.argsort().tolist() if shaped else []
        turned = my_score(inside.flip(0), whole.flip(0)).flip(0) if shaped else None
        known = {
            "the mask alone": inside,
            "the whole picture alone": whole,
            "their mean": inside + whole,
        }
        wrong = {
            "one number for each result: a tensor (n,).": not shaped,
            "the place in the list must not matter.": shaped and not close(turned, mine),
        } | {f"that is {name}, which the package knows: try another.": order == x.argsort().tolist()
             for name, x in known.items()}  # fmt: skip
        advise(wrong, "an order of your own. Does it find whole objects more often?")
