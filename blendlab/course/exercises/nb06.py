"""Checkers of notebook 06, exemplar inpainting."""

from collections.abc import Callable

import torch

from ...guidance import cfg
from ...noise import Noise
from ...sampler import Prediction
from .common import (
    advise,
    check_augmentation,
    close,
    guarded,
    sized,
    smooth_pictures,
    tensor,
    tried,
    writes,
)


def nine_guided(net, z, t, token, null, holed, keep, w):
    """The package's guided estimate from nine channels, for `attempt`."""

    def conditioned(x, t, cond):
        beside = torch.cat([holed, keep], dim=1).expand(len(x), -1, -1, -1)
        return Prediction(net(torch.cat([x, beside], dim=1), t, cond))

    return cfg(conditioned, token, null, w)(z, t).x0_hat


@guarded
def check_06_1(ninth: Callable) -> bool:
    """ninth(mask, f) -> (1,1,H/f,W/f), 1 = keep, from the first pixel of each cell."""
    mask = torch.zeros(1, 1, 12, 12)
    mask[..., 4:9, 2:8] = 1
    mine = tried(ninth, mask, 4)
    other = None if mine is None else tried(ninth, mask, 3)
    if other is not None:
        right, area = 1 - mask[..., ::4, ::4], torch.nn.functional.avg_pool2d(mask, 4)
        wrong = {
            "the polarity is wrong: in the ninth channel 1 means keep.": close(mine, 1 - right),
            "one value for each cell, H / f by W / f of them.": not sized(mine, right),
            "that is the mean over each cell; read one pixel of it.": close(mine, 1 - area),
            "which pixel of each cell do you read? It must be the first one.": not close(
                mine, right
            ),
            "a cell has f pixels a side, for any f.": not close(other, 1 - mask[..., ::3, ::3]),
            "four axes, as a network wants them: (1,1,H/f,W/f).": getattr(mine, "ndim", 4) != 4,
        }
        return advise(wrong, "1 where the picture stays; in a mask that you pass, 1 is edit.")


@guarded
def check_06_2(dropped: Callable) -> bool:
    """dropped(tokens, null, u, share) -> tokens, a share of the samples replaced by null."""
    tokens, null, u = (
        torch.ones(5, 1, 3),
        torch.full((1, 1, 3), -2.0),
        torch.tensor([0.1, 0.9, 0.15, 0.5, 0.3]),
    )
    mine = tried(dropped, tokens, null, u, 0.2)
    if mine is not None:
        right = torch.tensor([-2.0, 1, -2, 1, 1]).view(5, 1, 1).expand(5, 1, 3)
        zeros = right.clamp(min=0)
        wrong = {
            "that is one decision for the whole batch: each sample needs its own.": isinstance(
                mine, torch.Tensor
            )
            and mine.unique().numel() == 1,
            "the wrong samples are replaced: compare u with share again.": close(mine, -1 - right),
            "zeros are not the null vector: `null` was learned.": close(mine, zeros),
            "as many tokens as came in, (B,1,d).": not isinstance(mine, torch.Tensor)
            or mine.shape != tokens.shape,
            "some samples are wrong: compare each u with share.": not close(mine, right)
            or not close(
                dropped(tokens, null, u, 0.4),
                torch.where(u < 0.4, -2.0, 1.0).view(5, 1, 1).expand(5, 1, 3),
            ),
        }
        return advise(
            wrong, "each for itself. Per batch, four of five batches would forget nothing at all."
        )


@guarded
def check_06_3(cut_out: Callable) -> bool:
    """cut_out(picture, box, pad) -> the piece, pad pixels wider on each side that has room."""
    picture = torch.arange(2 * 3 * 8 * 10).float().view(2, 3, 8, 10)[:1]
    mine = tried(cut_out, picture, (2, 1, 5, 4), 2)
    edge = tried(cut_out, picture, (7, 5, 10, 8), 2) if mine is not None else None
    if mine is not None and edge is not None:
        wrong = {
            "x is along the width, the last axis; y along the height.": close(
                mine, picture[..., 0:7, 0:6]
            ),
            "a negative start counts from the other end of the picture.": isinstance(
                mine, torch.Tensor
            )
            and 0 in mine.shape,
            "pad more on each side.": close(mine, picture[..., 1:4, 2:5]),
            "pictures are (1,3,H,W): rows are y0 .. y1, columns x0 .. x1.": not close(
                mine, picture[..., 0:6, 0:7]
            ),
            "at the other border, too, the picture ends.": not close(edge, picture[..., 3:8, 5:10]),
            "pad is a number that may change.": not close(
                cut_out(picture, (2, 1, 5, 4), 1), picture[..., 0:5, 1:6]
            ),
        }
        return advise(wrong, "that is where every training pair comes from.")


@guarded
def check_06_4(my_augmentation: Callable) -> bool:
    """my_augmentation(pieces, u) -> references (B,3,S,S) changed as u (B,) says."""
    pieces, u = smooth_pictures(3, seed=11), torch.tensor([0.2, 0.5, 0.8])

    def seen(x):  # at a quarter of the size, whatever its light
        small = torch.nn.functional.avg_pool2d(x, 4)
        around = small - small.mean((2, 3), keepdim=True)
        return torch.nn.functional.normalize(around.flatten(1), dim=1)

    def lost(mine):
        alike = [(seen(mine) * seen(one)).sum(1) for one in (pieces, pieces.flip(-1))]
        return (torch.maximum(*alike) < 0.4).any()

    def inverted(mine):  # its colours point the other way
        return ((mine.mean((2, 3)) * pieces.mean((2, 3))).sum(1) < 0).any()

    also = {
        "pictures stay in [-1, 1]: clamp them.": lambda mine: mine.abs().max().item() > 1,
        "the colours are inverted: the object must stay the same object.": inverted,
        "the object is lost: move, turn or blur it a little, or change its light.": lost,
    }
    return check_augmentation(
        my_augmentation, pieces, u, also, "the same object, another picture: copying fails now."
    )


@writes("my_nine_guided")
def check_06_5(my_nine_guided: Callable) -> bool:
    """my_nine_guided(net, z, t, token, null, holed, keep, w) -> the guided clean estimate.

    net(nine, t, token) -> the clean estimate (B,4,h,w) from nine channels (B,9,h,w): the noisy
    latent z, the latent of the holed picture, the mask (1 = keep).
    """
    z, holed, weight = Noise(20, 3, "initial")((4, 3, 3)).split(1)
    keep = torch.ones(1, 1, 3, 3)
    keep[..., 1, 1] = 0
    token, null = torch.full((1, 1, 2), 0.5), torch.full((1, 1, 2), -0.3)

    def net(nine, t, token):
        if nine.shape[1] != 9:
            raise ValueError(f"the network takes 9 channels, and got {nine.shape[1]}")
        a, b, mask = nine.split([4, 4, 1], dim=1)
        said = token.mean((1, 2)).view(-1, 1, 1, 1)
        return a * weight * (1 + t / 1000) + (said + said**2) * (b + mask)

    mine = tried(my_nine_guided, net, z, 500, token, null, holed, keep, 3.0)
    if mine is None:
        return None

    def estimate(order, which):
        return net(torch.cat(order, dim=1), 500, which)

    order = [z, holed, keep]
    both = estimate(order, null), estimate(order, token)

    right = nine_guided(net, z, 500, token, null, holed, keep, 3.0)
    swapped = [holed, z, keep]
    guided = lambda u, p, w: u + w * (p - u)  # noqa: E731
    wrong = {
        "the noisy latent comes first, then the holed picture, then the mask.": close(
            mine, guided(estimate(swapped, null), estimate(swapped, token), 3.0)
        ),
        "1 is keep in the ninth channel.": close(
            mine, guided(*(estimate([z, holed, 1 - keep], which) for which in (null, token)), 3.0)
        ),
        "that is the estimate with the token alone: w = 1.": close(mine, both[1]),
        "token and null are exchanged: u is what null gives.": close(
            mine, guided(*both[::-1], 3.0)
        ),
        "the null vector was learned; zeros are another token.": close(
            mine, guided(estimate(order, torch.zeros_like(null)), both[1], 3.0)
        ),
        "that is u + (w + 1) * (p - u): w = 1 must give the token alone.": close(
            mine, guided(*both, 4.0)
        ),
        "guide the estimates, not the vectors: run the network twice.": close(
            mine, estimate(order, null + 3.0 * (token - null))
        ),
        "u + w * (p - u), both from nine channels.": tensor(mine) is None
        or not close(mine, right)
        or not close(
            my_nine_guided(net, z, 500, token, null, holed, keep, 1.5), guided(*both, 1.5)
        ),
    }
    return advise(wrong, "nine channels in, one token beside, and away from the null vector.")
