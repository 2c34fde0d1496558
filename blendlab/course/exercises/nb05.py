"""Checkers of notebook 05, mask shrinking."""

from collections.abc import Callable

import torch

from ...masks import dilate
from .common import advise, close, say, tried


def check_05_1(my_dilate: Callable) -> None:
    """my_dilate(mask, radius) -> the mask with its ones grown by radius on every side."""
    mask = torch.zeros(1, 1, 9, 9)
    mask[..., 4, 2:4] = 1
    mine = tried(my_dilate, mask, 2)
    if mine is not None:
        right = dilate(mask, 2)
        wrong = {
            "the size must stay: padding is the radius.": not isinstance(mine, torch.Tensor)
            or mine.shape != mask.shape,
            "radius cells on every side: a window of 2 * radius + 1.": close(mine, dilate(mask, 1)),
            "both axes: you grew it along one.": isinstance(mine, torch.Tensor)
            and (close(mine.sum(), right.sum() / 5) or close(mine.sum(), right.sum() / 3)),
            "a square around every 1.": not close(mine, right),
        }
        advise(wrong, "two lines in place of a square.")


def check_05_2(my_radii: Callable) -> None:
    """my_radii(steps, radii) -> the radius of each move's mask, the widest first, 0 last."""
    mine = tried(
        lambda: [my_radii(8, (1, 2, 3)), my_radii(10, (2,)), my_radii(50, tuple(range(1, 10)))]
    )
    if mine is not None:
        if None in mine:
            return say(False, "", "your function gives nothing back; end it with `return`.")
        first, second, long = (list(radii) for radii in mine)
        right = [3, 3, 2, 2, 1, 1, 0, 0]
        wrong = {
            "the widest comes first.": first == right[::-1] or first == [1, 1, 2, 2, 3, 3, 0, 0],
            "the mask itself has to come last: one part more than radii.": 0 not in first,
            "as many radii as there are moves.": [len(first), len(second), len(long)]
            != [8, 10, 50],
            "equal parts: move i belongs to part i * parts // steps.": first != right
            or second != [2] * 5 + [0] * 5,
            "with nine dilations the mask itself is not reached.": len(long) == 50
            and long[-1] != 0,
        }
        advise(wrong, "every stage is reached, and the last is the mask.")


def check_05_3(surviving: Callable) -> None:
    """surviving(mask, f) -> share of the mask's area in cells whose centre pixel is masked."""
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 0:8, 1:3] = 1  # holds the centre (2) of its cells, 4 pixels wide
    mask[..., 8:16, 5:6] = 1  # misses the centre (6)
    mine = tried(surviving, mask, 4)
    if mine is not None:
        mine = float(mine)
        wrong = {
            "that counts cells; count pixels of the mask that lie in them.": abs(mine - 2 / 16)
            < 1e-6,
            "of the mask's area, not of the picture's.": abs(mine - 16 / 256) < 1e-6,
            "every pixel of the mask that lies in a white cell, over all of them.": abs(
                mine - 16 / 24
            )
            > 1e-6,
        }
        advise(wrong, "two thirds stay; the other stroke falls between the centres.")


def check_05_4(my_schedule: Callable) -> None:
    """my_schedule(mask_small, steps) -> steps masks that start wider and end with the mask."""
    mask = torch.zeros(1, 1, 12, 12)
    mask[..., 3:9, 5:7] = 1
    mine = tried(my_schedule, mask, 10)
    if mine is not None:
        shaped = len(mine) == 10 and all(
            isinstance(m, torch.Tensor) and m.shape == mask.shape for m in mine
        )
        areas = [float(m.sum()) for m in mine] if shaped else []
        plain = [dilate(mask, r) for r in (3, 2, 1, 0) for _ in range(3)]
        wrong = {
            "ten moves want ten masks of the size of the mask.": not shaped,
            "the last mask has to be the one that was asked for.": shaped
            and not close(mine[-1], mask),
            "it never gets wider than the mask.": shaped and max(areas) <= areas[-1],
            "a mask must not lose what the final one has.": shaped
            and any((m < mask - 1e-6).any() for m in mine),
            "it grows on the way: shrink.": areas != sorted(areas, reverse=True),
            "that is the paper's: try another shape.": shaped
            and all(any(close(m, p) for p in plain) for m in mine),
        }
        advise(wrong, "a schedule of your own. Which lamp is the better one?")
