"""Checkers of notebook 07, noise editing."""

from collections.abc import Callable

import torch

from ...noise import Noise
from .common import advise, say, tried


def check_07_1(is_permutation: Callable) -> None:
    """is_permutation(before, moved, block) -> whether the blocks of (C,h,w) are the same ones in
    another order.
    """
    before = Noise(12, 1, "initial")((2, 4, 4))[0]
    swapped = before.clone()
    swapped[:, :2, :2], swapped[:, 2:, 2:] = before[:, 2:, 2:], before[:, :2, :2]
    rows, channels = (
        before.flip(1),
        before.flip(0),
    )  # rows are torn apart; each channel still has its numbers
    mine = tried(
        lambda: [
            is_permutation(before, x, 2) for x in (swapped, before, before + 0.1, rows, channels)
        ]
    )
    if mine is not None:
        if None in mine:
            return say(False, "", "your function gives nothing back; end it with `return`.")
        same, itself, other, torn, mixed = (bool(answer) for answer in mine)
        wrong = {
            "two blocks changed places, and you say no.": not same,
            "nothing moved: that is a permutation, too.": not itself,
            "other numbers are no permutation.": other,
            "the same numbers, but the blocks were torn apart.": torn,
            "the channels of a block have to travel together.": mixed,
        }
        advise(wrong, "nothing is lost, nothing is new: the noise is as likely as before.")


def check_07_2(candidates: Callable) -> None:
    """candidates(heat, inside) -> cells outside that look more than A_min, cells inside that look
    less.
    """
    heat = torch.tensor([0.9, 0.1, 0.5, 0.3, 0.8, 0.2, 0.7, 0.4])
    inside = torch.tensor(
        [0, 0, 1, 1, 0, 0, 1, 0], dtype=torch.bool
    )  # A_min is the third largest: 0.7
    mine = tried(candidates, heat, inside)
    if mine is not None:
        comes, goes = ({int(i) for i in cells} for cells in mine)
        wrong = {
            "more than A_min: the cell that has A_min itself stays.": 6 in comes | goes,
            "come: from outside; go: from inside.": bool(comes & {2, 3, 6})
            or bool(goes - {2, 3, 6}),
            "s is the number of cells in the region, 3 here.": comes != {0, 4},
            "all cells inside that look less.": goes != {2, 3},
        }
        advise(wrong, "as many must come as may go: the paper draws pairs at random.")


def check_07_3(agreement_of: Callable) -> None:
    """agreement_of(gaps) -> share of comparisons, off the diagonal, in which the diagonal is the
    nearer one.
    """
    gaps = torch.tensor([[0.1, 0.5, 0.6], [0.2, 0.3, 0.7], [0.1, 0.2, 0.4]])
    mine = tried(agreement_of, gaps)
    if mine is not None:
        mine, right = float(mine), 3 / 6
        wrong = {
            "leave the diagonal out: a pair cannot be nearer than itself.": abs(mine - 3 / 9)
            < 1e-6,
            "row by row: gaps[i, i] against the other entries of row i.": abs(mine - right) > 1e-6,
        }
        advise(wrong, "a half here: no better than chance.")


def check_07_4(my_rule: Callable) -> None:
    """my_rule(heat, inside) -> origin (cells,), a permutation that brings attention into the
    region.
    """
    heat, inside = Noise(13, 1, "initial")((16,))[0].abs(), torch.zeros(16, dtype=torch.bool)
    inside[4:8] = True
    mine = tried(my_rule, heat, inside)
    if mine is not None:
        origin = torch.as_tensor(mine).flatten()
        whole = sorted(origin.tolist()) == list(range(16))
        got = heat[origin][inside].sum() if whole else 0
        wrong = {
            "every block exactly once: a permutation of 0 .. 15.": not whole,
            "nothing was moved.": whole and origin.tolist() == list(range(16)),
            "there is less attention in the region than before.": whole
            and bool(got < heat[inside].sum()),
        }
        share = f"{got / max(heat.topk(4).values.sum(), 1e-9):.0%}" if whole else ""
        advise(
            wrong, f"a rule of your own, with {share} of the attention that four cells can have."
        )
