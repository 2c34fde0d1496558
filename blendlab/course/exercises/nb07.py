"""Checkers of notebook 07, noise editing."""

from collections.abc import Callable

import torch

from ...noise import Noise
from ...papers.layout import move_blocks
from .common import advise, close, guarded, say, tensor, tried, writes


def exchange(noise, comes, goes, block):
    """The package's exchange of blocks of one noise (C,h,w), for `attempt`."""
    origin = torch.arange(noise[0].numel() // block**2)
    comes, goes = torch.as_tensor(comes), torch.as_tensor(goes)
    origin[goes], origin[comes] = comes, goes
    return move_blocks(noise[None], origin[None].to(noise.device), block)[0]


@guarded
def check_07_1(is_permutation: Callable) -> bool:
    """is_permutation(before, moved, block) -> are the blocks the same in another order?"""
    before = Noise(12, 1, "initial")((2, 4, 4))[0]
    swapped = before.clone()
    swapped[:, :2, :2], swapped[:, 2:, 2:] = before[:, 2:, 2:], before[:, :2, :2]
    rows, channels = (
        before.flip(1),
        before.flip(0),
    )  # rows are torn apart; each channel still has its numbers
    apart = torch.cat([swapped[:1], before[1:]])  # one channel moved, the other stayed
    twice = before.clone()
    twice[:, :2, :2] = before[:, 2:, 2:]  # one block is there twice, another is gone
    mine = tried(
        lambda: [
            is_permutation(before, x, 2)
            for x in (swapped, before, before + 0.1, rows, channels, apart, twice)
        ]
    )
    if mine is not None:
        same, itself, other, torn, mixed, alone, lost = (bool(answer) for answer in mine)
        wrong = {
            "two blocks changed places, and you say no.": not same,
            "nothing moved: that is a permutation, too.": not itself,
            "other numbers are no permutation.": other,
            "one block came twice and another is gone: each exactly once.": lost,
            "the same numbers, but the blocks were torn apart.": torn,
            "the channels of a block have to travel together.": mixed or alone,
        }
        return advise(wrong, "nothing is lost, nothing is new: the noise is as likely as before.")


@guarded
def check_07_2(candidates: Callable) -> bool:
    """candidates(heat, inside) -> cells outside that look more than A_min, and inside less."""
    heat = torch.tensor([0.9, 0.1, 0.5, 0.3, 0.8, 0.2, 0.7, 0.4])
    inside = torch.tensor(
        [0, 0, 1, 1, 0, 0, 1, 0], dtype=torch.bool
    )  # A_min is the third largest: 0.7
    mine = tried(candidates, heat, inside)
    if mine is not None:
        sets = [tensor(cells) for cells in mine] if len(mine) == 2 else [None]
        if any(cells is None for cells in sets):
            return say(False, "", "give back two lists of cells: those that come, those that go.")
        marks = all(isinstance(c, torch.Tensor) and c.dtype == torch.bool for c in mine)
        sets = [cells.flatten().nonzero()[:, 0] if marks else cells.flatten() for cells in sets]
        comes, goes = ({int(i) for i in cells} for cells in sets)
        wrong = {
            "more than A_min: the cell that has A_min itself stays.": 6 in comes | goes,
            "blocks come from outside the box, and go from inside.": bool(comes & {2, 3, 6})
            or bool(goes - {2, 3, 6}),
            "the cells that come are wrong: how large is s here, and so A_min?": comes != {0, 4},
            "the cells that go are wrong: which cells inside have less than A_min?": goes != {2, 3},
        }
        return advise(wrong, "as many must come as may go: the paper draws pairs at random.")


@guarded
def check_07_3(agreement_of: Callable) -> bool:
    """agreement_of(gaps) -> share of comparisons in which the diagonal is the nearer one."""
    gaps = torch.tensor([[0.2, 0.8, 0.1], [0.4, 0.6, 0.7], [0.3, 0.9, 0.5]])
    mine = tried(agreement_of, gaps)
    if mine is not None:
        mine, right = float(mine), 3 / 6
        other = float(agreement_of(gaps.T.flip(0, 1) + torch.eye(3)))
        wrong = {
            "leave the diagonal out: a pair cannot be nearer than itself.": abs(mine - 3 / 9)
            < 1e-6,
            "row by row: gaps[i, i] against the other entries of row i.": abs(mine - right) > 1e-6,
            "with larger gaps on the diagonal the share must fall to 0.": other != 0,
        }
        return advise(wrong, "a half here: no better than chance.")


@guarded
def check_07_4(my_rule: Callable) -> bool:
    """my_rule(heat, inside) -> origin (cells,), a permutation that brings attention inside."""
    heat, inside = Noise(13, 1, "initial")((16,))[0].abs(), torch.zeros(16, dtype=torch.bool)
    inside[4:8] = True
    mine = tried(my_rule, heat, inside)
    if mine is not None:
        origin = torch.as_tensor(mine).flatten()
        whole = not origin.is_floating_point() and sorted(origin.tolist()) == list(range(16))
        got, before = heat[origin][inside].sum() if whole else 0, heat[inside].sum()
        wrong = {
            "whole numbers, as of torch.arange: origin picks cells.": origin.is_floating_point(),
            "every block exactly once: a permutation of 0 .. 15.": not whole,
            "nothing was moved.": whole and origin.tolist() == list(range(16)),
            "there is less attention in the box than before.": whole and bool(got < before),
            "less than half of the possible attention came in: which cells have the most?": whole
            and bool(got - before < 0.5 * (heat.topk(4).values.sum() - before)),
        }
        share = f"{got / max(heat.topk(4).values.sum(), 1e-9):.0%}" if whole else ""
        return advise(
            wrong, f"a rule of your own, with {share} of the attention that four cells can have."
        )


@writes("my_exchange")
def check_07_5(my_exchange: Callable) -> bool:
    """my_exchange(noise, comes, goes, block) -> noise (C,h,w) in which block comes[i] and block
    goes[i] have changed places; blocks are numbered row by row.
    """
    noise = Noise(21, 1, "initial")((2, 4, 6))[0]
    kept = noise.clone()
    mine = tried(lambda: my_exchange(noise, [0, 2], [4, 5], 2))
    if mine is None:
        return None
    right = kept.clone()
    place = lambda i: (slice(i // 3 * 2, i // 3 * 2 + 2), slice(i % 3 * 2, i % 3 * 2 + 2))  # noqa: E731
    copied, other = kept.clone(), kept.clone()
    for a, b in ((0, 4), (2, 5)):
        (ay, ax), (by, bx) = place(a), place(b)
        right[:, ay, ax], right[:, by, bx] = kept[:, by, bx], kept[:, ay, ax]
        copied[:, by, bx] = kept[:, ay, ax]
        other[:, ay, ax] = kept[:, by, bx]
    first = right.clone()
    first[1] = kept[1]
    wrong = {
        "your function changed the noise it was given: work on a copy.": not torch.equal(
            noise, kept
        ),
        "nothing was moved.": close(mine, kept),
        "the blocks were copied: what stood there has to go the other way.": close(mine, copied)
        or close(mine, other),
        "all channels of a block travel together.": close(mine, first),
        "other blocks were moved: how many blocks are in a row?": not close(mine, right),
    }
    return advise(wrong, "an exchange: the noise stays as likely as it was.")
