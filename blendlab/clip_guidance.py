"""Guidance by CLIP in pixels: the losses, what they look at, and one guided step after another.

Blended Diffusion (2111.14818), sections 3.1 and 3.2; numbers of the official code by file and line.
Both of its algorithms are made of this: papers/clip_guided.py is algorithm 1, papers/blended.py
algorithm 2. Next: those two.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import Refused
from .guidance import loss_guided
from .options import Options, settle
from .rank import fit, look
from .sampler import resampled
from .warps import warp, warped_twice, warps


@dataclass(frozen=True)
class Guiding(Options):
    """How CLIP guides. The defaults are the paper's."""

    # Weight of the CLIP distance; None: what the model recommends.
    scale: float | None = None
    # Extending augmentations: copies of the estimate that CLIP sees, and how many are unwarped.
    augmentations: int | None = None
    unwarped: int = 0
    # How they are made: bicubic, warped once, on grey; or as augmentations.py does.
    copies: Literal["paper", "official"] = "paper"
    # Distance of unit vectors: 1 - cos, or half the square of the angle.
    distance: Literal["cosine", "spherical"] = "cosine"
    # What CLIP looks at: the clean estimate, or the official mixture of it with the state.
    looks_at: Literal["x0_hat", "mixture"] = "x0_hat"
    # What the gradient moves: the mean (times the variance), or the noise estimate (for DDIM).
    shift: Literal["mean", "epsilon"] | None = None
    # Differentiate through the network, or hold its noise estimate constant (faster, worse).
    through_network: bool = True
    # Weight of what leaves [-1,1]: the estimate is never clipped.
    range_scale: float = 0.0
    # Noise of the kept part: for the level that the state is on, or the one that it has just left;
    # one draw of it for each sample, or one for all.
    level: Literal["t_next", "t"] = "t_next"
    batch_noise: Literal["independent", "shared"] = "independent"
    # D_bg of `clip_guided`: the paper's (both pictures lack what the mask covers), or the code's.
    background_loss: Literal["paper", "official"] = "paper"
    # What comes out: the last state or its clean estimate; is the source put back outside?
    result: Literal["state", "x0_hat"] = "state"
    paste: bool = True
    # RePaint (2201.09865): moves at each level (above resample_above), with ways up between; None:
    # as often as the model recommends.
    resamplings: int | None = None
    resample_above: int | None = None
    # Differential Diffusion (2306.00950): greys of the mask say how strongly a place may change.
    soft: bool = False
    # What a network with classes is told: the number of one, or as the authors' code does, another
    # for each sample and step; None: that, where there are classes.
    classes: int | Literal["random"] | None = None
    eta: float | None = None
    steps: int | None = None
    skip: float | None = None


# The numbers of the paper and of its code: optimization/arguments.py:17-93, image_editor.py:84-235,
# losses.py:4-17, augmentations.py:12-39. "paper" leaves to the model: scale (the paper's is 1) and
# skip (algorithm 1 starts at the noisiest level, algorithm 2 at step 75 of 100, a skip of 0.25).
PRESETS = {
    "paper": Guiding(augmentations=16, steps=100, eta=1.0, shift="mean", resamplings=1),
    "official": Guiding(
        scale=1000.0,
        augmentations=8,
        unwarped=1,
        copies="official",
        background_loss="official",
        distance="spherical",
        looks_at="mixture",
        shift="mean",
        range_scale=50.0,
        level="t",
        batch_noise="shared",
        result="x0_hat",
        eta=1.0,
        steps=100,
        skip=0.25,
        resamplings=1,
    ),
}

# What neither a preset nor the model says: arguments.py:17-59, the copies as in the paper.
FALLBACK = dict(scale=1000.0, augmentations=16, steps=100, skip=0.25, eta=1.0, resamplings=1)


def guided_steps(denoise, loss, x, schedule, timesteps, how: Guiding, fresh=None, again=None):
    """Yield steps of guided diffusion, moved along the gradient; assign to step.x to steer on.

    denoise(x, t) -> Prediction; loss(x0_hat, x, t) -> (B,), None: nobody guides. x: (B,3,H,W) on
    level timesteps[0].
    fresh, again: functions that draw noise, for the moves (eta > 0) and for the ways up
    (resamplings > 1).
    """
    if not how.through_network:
        denoise = _noise_held(denoise, schedule)
    by_mean, (a, _) = how.shift == "mean", schedule.levels(timesteps[0])
    if not by_mean and a < 1e-3:  # it divides by a, as DDIM's form does
        raise Refused(f"the first level holds {a:.0e} of a picture: take skip=0.1, or eta=1")
    if not a and not how.through_network:  # and so does the estimate from a noise held constant
        raise Refused("the first level holds nothing of a picture: skip=1/steps leaves it out")
    guided = denoise
    if loss:
        guided = loss_guided(denoise, loss, schedule, scale=0.0 if by_mean else 1.0)
    ways = dict(passes=how.resamplings or 1, renewed=again, above=how.resample_above)
    for step in resampled(guided, x, schedule, timesteps, how.eta, fresh, **ways):
        if loss and by_mean:  # downhill, by the variance of this move times the gradient
            step.x = step.x - step.var * step.grad
        yield step


def _noise_held(denoise, schedule):
    """The denoiser with a constant noise estimate: a gradient reaches x past the network."""

    def held(x, t):
        a, s = schedule.levels(t)
        with torch.no_grad():
            seen = denoise(x.detach(), t)
            eps = (x.detach() - a * seen.x0_hat) / s
        return replace(seen, x0_hat=(x - s * eps) / a)

    return held


def choose(model, method, fallback: dict, preset, asked: dict) -> Guiding:
    """The Guiding to use, see options.settle; the shift follows eta, classes the network."""
    how = settle(Guiding, method, model, PRESETS, fallback, preset, asked)
    if how.shift == "mean" and not how.eta:
        fix = "take shift='epsilon', or eta=1"
        raise Refused(f"shift='mean' moves by the variance, which is 0 with eta=0: {fix}")
    many = getattr(getattr(getattr(model, "unet", None), "config", None), "num_class_embeds", None)
    if how.classes is not None and not many:
        raise Refused(f"classes is {how.classes!r}, and this network has none: leave it out")
    if many and how.classes not in (None, "random", *range(many)):
        raise Refused(f"classes is {how.classes}; this network has the classes 0 to {many - 1}")
    classes = "random" if many and how.classes is None else how.classes
    return replace(how, shift=how.shift or ("mean" if how.eta == 1 else "epsilon"), classes=classes)


def not_for(method: str, asked: dict, **why: str):
    """Refuse options of Guiding that a method cannot honour, unless they are as usual."""
    for name, reason in why.items():
        if asked.get(name) not in (None, getattr(Guiding, name)):
            raise Refused(f"{name}={asked[name]!r} is not for {method}: {reason}; leave it out")


def told(net, unet, how: Guiding, draw):
    """`denoise(x, t)` of a network: one with classes is told them at each call.

    The authors draw another class for each step (gaussian_diffusion.py:504-510, randomize_class).
    draw: a function that draws normal noise of a shape for each sample.
    """
    if how.classes is None:
        return net
    many = unet.config.num_class_embeds

    def denoise(x, t):
        labels = torch.full((len(x),), 0 if how.classes == "random" else how.classes)
        if how.classes == "random":
            share = torch.special.ndtr(draw((1,)).squeeze(1).double())  # (B,) in [0,1]
            labels = (share * many).long().clamp(max=many - 1)
        return net(x, t, {"class_labels": labels.to(x.device)})

    return denoise


def clip_loss(text, mask, clip, how: Guiding, schedule, draw=None):
    """`loss(x0_hat, x, t) -> (B,)`: the weighted CLIP distance, and what leaves [-1,1]. None if
    both weights are 0.

    text: (1 or B,d) unit vectors. mask: (1 or B,1,H,W), 1 = edit. draw: see `copied`.
    """

    if not how.scale and not how.range_scale:
        return None

    def loss(x0_hat, x, t):
        seen = looked_at(x0_hat, x, t, schedule, how)
        total = how.scale * clip_distance(seen, text, mask, clip, how, copied(how, draw))
        if how.range_scale:  # losses.py:16-17
            beyond = x0_hat - x0_hat.clamp(-1, 1)
            total = total + how.range_scale * beyond.square().mean((1, 2, 3))
        return total

    return loss


def looked_at(x0_hat, x, t, schedule, how: Guiding):
    """What the losses look at: the clean estimate, or its mixture with the state (official)."""
    if how.looks_at == "x0_hat":
        return x0_hat
    _, s = schedule.levels(t)  # image_editor.py:177-178
    return x0_hat * s + x * (1 - s)


def clip_distance(
    pictures: Tensor, text: Tensor, mask: Tensor, clip, how: Guiding, u=None
) -> Tensor:
    """D_CLIP of each picture, (B,), averaged over its warped copies.

    pictures (B,3,H,W) in [-1,1]; what is outside the mask (1 or B,1,H,W) becomes grey, 0. text (1
    or B,d) unit vectors. u (B,N,12 or 13) in [0,1): the parameters of the copies, see
    `warps.warps`; None: CLIP sees the picture itself.
    """
    official, copies = how.copies == "official", 1
    shown = pictures * mask  # (B,3,H,W)
    shown = F.adaptive_avg_pool2d(shown, clip.size) if official else fit(clip, shown)  # (B,3,S,S)
    if u is not None:
        copies = u.shape[1]
        shown = shown.repeat_interleave(copies, dim=0)  # (B*N,3,S,S)
        if official:
            shown = warped_twice(shown, u, how.unwarped)
        else:
            shown = warp(shown, warps(u, how.unwarped))
    seen = look(clip, (shown + 1) / 2).unflatten(0, (-1, copies))  # (B,N,d)
    cos = (seen * text[:, None]).sum(-1)  # (B,N)
    # losses.py:4-7: 2 * asin(|x - y| / 2)^2, which is half the angle squared
    if how.distance == "spherical":
        half = (2 - 2 * cos).clamp(min=1e-12).sqrt() / 2
        return (2 * half.clamp(max=1 - 1e-6).asin() ** 2).mean(1)
    return (1 - cos).mean(1)


def copied(how, draw):
    """The numbers (B,N,12 or 13) in [0,1) of the copies that CLIP sees; None: no copies.

    draw: a function that draws normal noise of a shape for each sample.
    """
    if how.augmentations == how.unwarped == 1:
        return None
    return torch.special.ndtr(draw((how.augmentations, 13 if how.copies == "official" else 12)))
