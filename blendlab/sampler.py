"""The one loop. Every method in this package is a line in its body, or a wrapper around `denoise`.

DDIM (2010.02502, equations 12 and 16): eta 0 is deterministic, eta 1 is DDPM (2006.11239).
Next: guidance.py for what the network predicts, papers/blended_latent.py for what the state is
afterwards.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .errors import Refused
from .options import function, number

DENOISER = "a function (x, t) that gives a Prediction"
FILM: ContextVar[list | None] = ContextVar("film", default=None)


@dataclass
class Prediction:
    """What a denoiser returns: `denoise(x, t) -> Prediction`, for x (B,C,H,W) on level t."""

    x0_hat: Tensor  # (B,C,H,W) its estimate of the clean picture
    var: Tensor | None = None  # (B,C,H,W) a learned variance of the step, for eta > 0
    grad: Tensor | None = None  # (B,C,H,W) gradient of a guidance loss at x


Denoise = Callable[[Tensor, int], Prediction]


@dataclass
class Step:
    """One move of the loop. Assign to `step.x` to steer: the next move starts from there."""

    i: int  # position of its level: 0 is the first move, and repeats of a level share theirs
    t: int  # level that the network saw
    t_next: int  # level that x is on now; -1 is clean (or, by the schedule's `final`, nearly)
    x: Tensor  # (B,C,H,W) the state, on level t_next
    x0_hat: Tensor  # (B,C,H,W) the clean estimate, from level t
    eps: Tensor  # (B,C,H,W) the noise that x0_hat leaves in the state, from level t
    var: float | Tensor  # variance of the fresh noise of this move
    grad: Tensor | None  # (B,C,H,W) the guidance gradient, if the denoiser gave one


@contextmanager
def filmed():
    """In a `with`, a list of all steps that this thread makes, as the body of their loop left them.

    with filmed() as film:
        bl.blended_latent(pipe, image, mask, "a red mushroom")
    """
    film: list[Step] = []
    token = FILM.set(film)
    try:
        yield film
    finally:
        FILM.reset(token)


@torch.no_grad()  # a decorator, not a `with`: gradients stay enabled in the reader's loop body
def sample(denoise: Denoise, x: Tensor, schedule, timesteps, eta=0.0, noise=None) -> Iterator[Step]:
    """Yield one Step per move down `timesteps`; whatever is left in `step.x` feeds the next one.

    x: (B,C,H,W) on level timesteps[0]; the state is float32 whatever the network's precision
       (float64 stays).
    noise: a function that draws fresh noise of x's shape; needed when eta > 0.
    """
    function("denoise", denoise, DENOISER, needed=True)
    is_schedule(schedule)
    number("eta", eta, whole=False)
    if not isinstance(x, Tensor):
        raise Refused(f"x is a {type(x).__name__}: pass the state, a tensor (B,C,H,W)")
    are_levels(timesteps)
    if eta and noise is None:
        raise Refused(
            f"eta is {eta}, so moves need fresh noise: pass noise=, a function that draws it"
        )
    x = x if x.dtype == torch.float64 else x.float()

    for i, (t, t_next) in enumerate(pairwise(timesteps)):
        (a, s), (a_next, s_next) = schedule.levels(t), schedule.target(t_next)

        # Look: the clean picture in x, and the noise that is then left.
        seen = denoise(x, t)
        x0_hat = seen.x0_hat
        eps = (x - a * x0_hat) / s

        # Move: rebuild the state on the next level, exchanging a share of the noise for fresh
        # noise.
        var = eta**2 * (s_next / s) ** 2 * (s**2 - (a / a_next) ** 2 * s_next**2)
        x = a_next * x0_hat + math.sqrt(max(s_next**2 - var, 0.0)) * eps
        if eta and seen.var is not None:
            # a learned variance, DDPM's at eta=1, sets the fresh noise (2102.09672, section 3.1)
            var = eta**2 * seen.var
        if eta and s_next > 0:
            x = x + var**0.5 * noise()

        step = Step(i, t, t_next, x, x0_hat, eps, var, seen.grad)
        if (film := FILM.get()) is not None:
            film.append(step)
        yield step
        x = step.x  # whatever the reader left there


def is_schedule(schedule) -> None:
    """Refuse what has no levels."""
    if not hasattr(schedule, "levels"):
        kind, fix = type(schedule).__name__, "pass Schedule.from_scheduler(pipe.scheduler)"
        raise Refused(f"schedule is a {kind}, not a Schedule: {fix}")


def are_levels(timesteps) -> None:
    """Refuse what is no list of levels to walk down."""
    if not isinstance(timesteps, list | tuple | range) or len(timesteps) < 2:
        raise Refused(f"timesteps is {timesteps!r}: pass levels, as schedule.timesteps(50) gives")
    for t in timesteps:
        number("t", t, span=(-1, math.inf, "a level; -1 is clean"))
    if any(t < t_next for t, t_next in pairwise(timesteps)):
        raise Refused("timesteps rise: pass levels that fall; bl.invert goes from picture to noise")


@torch.no_grad()
def resampled(denoise, x, schedule, timesteps, eta, noise, passes, renewed, above=None):
    """As `sample`, but up again and down again: `passes` moves at each level (RePaint, 2201.09865).

    renewed: a function that draws the noise of the way up. above: repeat only on levels above it.
    The last move, which ends clean, is made once, as in the paper's algorithm 1.
    """
    for i, (t, t_next) in enumerate(pairwise(timesteps)):
        once = t_next < 0 or above is not None and t <= above
        for turn in range(1 if once else passes):
            if turn:
                x = schedule.renoise(x, t, t_next, renewed())
            (step,) = sample(denoise, x, schedule, [t, t_next], eta, noise)
            step.i = i
            yield step
            x = step.x


def last(steps: Iterator[Step]) -> Tensor:
    """Run to the end and return the final state, (B,C,H,W)."""
    x = None
    for step in steps:
        x = step.x
    if x is None:
        raise Refused("no step is left: these were gone through before, so make new ones")
    return x
