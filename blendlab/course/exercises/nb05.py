"""Checkers of notebook 05, mask shrinking."""

from collections.abc import Callable

import torch

from ...masks import dilate, stages
from .common import advise, close, fresh, guarded, say, sized, tensor, tried, writes


@guarded
def check_05_1(my_dilate: Callable) -> bool:
    """my_dilate(mask, radius) -> the mask with its ones grown by radius on every side."""
    mask = torch.zeros(1, 1, 9, 9)
    mask[..., 4, 2:4] = 1
    my_dilate = fresh(my_dilate)
    mine = tried(my_dilate, mask, 2)
    if mine is not None:
        right = dilate(mask, 2)
        along = [torch.zeros(1, 1, 9, 9) for _ in range(2)]
        along[0][..., 4, 0:6], along[1][..., 2:7, 2:4] = 1, 1
        if not sized(mine, mask):
            return say(False, "", "the size must stay: padding is the radius.")
        wrong = {
            "it grows by too little: how wide is the window around a cell?": close(
                mine, dilate(mask, 1)
            ),
            "it grew along one axis only.": any(close(mine, one) for one in along),
            "each 1 must become a square: what is inside it, and what is outside?": not close(
                mine, right
            ),
        }
        if not any(wrong.values()):
            others = tried(lambda: [my_dilate(mask, radius) for radius in (0, 1, 3)])
            if others is None:
                return None
            hint = "with radius 0, 1 or 3 it is not right: where does the radius enter?"
            wrong[hint] = not all(map(close, others, (dilate(mask, r) for r in (0, 1, 3))))
        return advise(wrong, "two lines in place of a square.")


@guarded
def check_05_2(my_radii: Callable) -> bool:
    """my_radii(steps, radii) -> the radius of each move's mask, the widest first, 0 last."""
    mine = tried(
        lambda: [
            my_radii(*asked)
            for asked in ((8, (2, 3, 1)), (10, (2,)), (50, tuple(range(1, 10))), (7, (1, 2)))
        ]
    )
    if mine is not None:
        first, second, long, odd = ([int(r) for r in radii] for radii in mine)
        right = [3, 3, 2, 2, 1, 1, 0, 0]
        wrong = {
            "the widest comes first.": first != sorted(first, reverse=True),
            "the mask itself has to come last: one part more than radii.": 0 not in first,
            "as many radii as there are moves.": [len(first), len(second), len(long)]
            != [8, 10, 50],
            "the parts are not of equal length: in which part is move i?": first != right
            or second != [2] * 5 + [0] * 5,
            "parts as equal as whole moves allow: 3, 2 and 2 of 7.": odd
            != sorted(odd, reverse=True)
            or sorted(map(odd.count, (2, 1, 0))) != [2, 2, 3],
            "with nine dilations the mask itself is not reached.": len(long) == 50
            and long[-1] != 0,
        }
        return advise(wrong, "every stage is reached, and the last is the mask.")


@guarded
def check_05_3(surviving: Callable) -> bool:
    """surviving(mask, f) -> share of the mask's area in cells whose centre pixel is masked."""
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 0:8, 1:3] = 1  # holds the centre (2) of its cells, 4 pixels wide
    mask[..., 8:16, 5:6] = 1  # misses the centre (6)
    mask[..., 0, 1:3], mask[..., 2:4, 3] = 0, 1  # holds no corner of its first cell
    mine = tried(surviving, mask, 4)
    if mine is not None:
        mine = float(mine)
        wrong = {
            "that counts cells; count pixels of the mask that lie in them.": abs(mine - 2 / 16)
            < 1e-6,
            "of the mask's area, not of the picture's.": abs(mine - 16 / 256) < 1e-6,
            "which share of the mask's pixels lies in cells that are kept?": not abs(mine - 16 / 24)
            <= 1e-6,
        }
        return advise(wrong, "two thirds stay; the other stroke falls between the centres.")


@guarded
def check_05_4(my_schedule: Callable) -> bool:
    """my_schedule(mask_small, steps) -> steps masks that start wider and end with the mask."""
    mask = torch.zeros(1, 1, 12, 12)
    mask[..., 3:9, 5:7] = 1
    mine = tried(my_schedule, mask, 10)
    if mine is not None:
        shaped = len(mine) == 10 and all(sized(m, mask) for m in mine)
        mine = [tensor(m).view_as(mask) for m in mine] if shaped else mine
        areas = [float(m.sum()) for m in mine] if shaped else []
        paper = stages(mask, 10, (1, 2, 3))
        wrong = {
            "ten moves want ten masks of the size of the mask.": not shaped,
            "the last mask has to be the one that was asked for.": shaped
            and not close(mine[-1], mask),
            "it never gets wider than the mask.": shaped and max(areas) <= areas[-1],
            "a mask must hold at least the cells of the last one.": shaped
            and any((m < mask - 1e-6).any() for m in mine),
            "a later mask is wider than an earlier one: it must only shrink.": areas
            != sorted(areas, reverse=True),
            "that is the paper's: try another shape.": shaped
            and all(close(m, p) for m, p in zip(mine, paper, strict=True)),
        }
        return advise(
            wrong, "a schedule of your own. In how many of twelve strokes does something appear?"
        )


@writes("my_mask_schedule")
def check_05_5(my_mask_schedule: Callable) -> bool:
    """my_mask_schedule(mask_small, moves, radii) -> one mask a move: the mask dilated by each of
    `radii`, the widest first, then the mask itself, in equal parts.
    """
    mask = torch.zeros(1, 1, 12, 12)
    mask[..., 3:9, 5:7] = 1
    asked = [(mask, 8, (2, 3, 1)), (mask, 10, (2,)), (mask, 7, (1, 2))]
    mine = tried(lambda: [my_mask_schedule(*each) for each in asked])
    if mine is None:
        return None
    if [len(masks) for masks in mine] != [8, 10, 7]:
        return say(False, "", "as many masks as there are moves.")
    first, right = [tensor(m) for m in mine[0]], stages(*asked[0])
    same = lambda got, want: all(close(m, p) for m, p in zip(got, want, strict=True))  # noqa: E731
    wrong = {
        "the widest mask comes first.": same(first, right[::-1]),
        "the last masks have to be the mask itself.": not close(first[-1], mask),
        "only the widest mask is used: each radius gets its part.": close(first[2], right[0]),
        "an early mask is narrower than the one asked for: dilate, do not erode.": bool(
            first[0].sum() < mask.sum()
        ),
        "parts not in order, or of unequal length: list the radius of each move.": not all(
            same(got, stages(*each)) for got, each in zip(mine, asked, strict=True)
        ),
    }
    return advise(wrong, "wide while the picture is noise, exact at the end: section 4.3.")
