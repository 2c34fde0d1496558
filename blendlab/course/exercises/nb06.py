"""Checkers of notebook 06, exemplar inpainting."""

from collections.abc import Callable

import torch

from ...noise import Noise
from .common import advise, check_augmentation, close, tried


def check_06_1(ninth: Callable) -> None:
    """ninth(mask, f) -> (1,1,H/f,W/f), 1 = keep, from the first pixel of each cell."""
    mask = torch.zeros(1, 1, 12, 12)
    mask[..., 4:9, 2:8] = 1
    mine = tried(ninth, mask, 4)
    if mine is not None:
        right, area = 1 - mask[..., ::4, ::4], torch.nn.functional.avg_pool2d(mask, 4)
        wrong = {
            "1 is keep in there: turn it round.": close(mine, 1 - right),
            "one value for each cell, H / f by W / f of them.": not isinstance(mine, torch.Tensor)
            or mine.shape != right.shape,
            "that is the area, as bilinear would have it; read the corner.": close(mine, 1 - area),
            "the first pixel of each cell, one minus it.": not close(mine, right),
        }
        advise(wrong, "1 where the picture stays: the other way round than at the door.")


def check_06_2(dropped: Callable) -> None:
    """dropped(tokens, null, u, share) -> tokens, a share of the samples replaced by null."""
    tokens, null, u = (
        torch.ones(5, 1, 3),
        torch.zeros(1, 1, 3),
        torch.tensor([0.1, 0.9, 0.15, 0.5, 0.3]),
    )
    mine = tried(dropped, tokens, null, u, 0.2)
    if mine is not None:
        right = torch.tensor([0.0, 1, 0, 1, 1]).view(5, 1, 1).expand(5, 1, 3)
        wrong = {
            "one decision for all of them: that is per batch.": isinstance(mine, torch.Tensor)
            and mine.unique().numel() == 1,
            "the other way round: replaced where u is below share.": close(mine, 1 - right),
            "as many tokens as came in, (B,1,d).": not isinstance(mine, torch.Tensor)
            or mine.shape != tokens.shape,
            "replaced where u < share, kept elsewhere.": not close(mine, right),
        }
        advise(
            wrong, "each for itself. Per batch, four of five batches would forget nothing at all."
        )


def check_06_3(cut_out: Callable) -> None:
    """cut_out(picture, box, pad) -> the piece, with pad pixels more on each side where there is
    room.
    """
    picture = torch.arange(2 * 3 * 8 * 10).float().view(2, 3, 8, 10)[:1]
    mine = tried(cut_out, picture, (2, 1, 5, 4), 2)
    edge = tried(cut_out, picture, (7, 5, 10, 8), 2) if mine is not None else None
    if mine is not None and edge is not None:
        wrong = {
            "x is along the width, the last axis; y along the height.": close(
                mine, picture[..., 0:7, 0:6]
            ),
            "nothing before the picture's start: max(x0 - pad, 0).": isinstance(mine, torch.Tensor)
            and 0 in mine.shape,
            "pad more on each side.": close(mine, picture[..., 1:4, 2:5]),
            "pictures are (1,3,H,W): rows are y0 .. y1, columns x0 .. x1.": not close(
                mine, picture[..., 0:6, 0:7]
            ),
            "at the other border, too, the picture ends.": not close(edge, picture[..., 3:8, 5:10]),
        }
        advise(wrong, "that is where every training pair comes from.")


def check_06_4(my_augmentation: Callable) -> None:
    """my_augmentation(pieces, u) -> references (B,3,S,S) changed as u (B,) says."""
    pieces, u = Noise(11, 2, "initial")((3, 16, 16)).clamp(-1, 1), torch.tensor([0.2, 0.8])
    also = {"pictures stay in [-1, 1]: clamp them.": lambda mine: mine.abs().max().item() > 1}
    check_augmentation(
        my_augmentation, pieces, u, also, "the same thing, another picture: copying no longer pays."
    )
