"""Checkers of notebook 01, CLIP guidance."""

from collections.abc import Callable

import torch

from ...noise import Noise
from ...schedule import Schedule
from .common import advise, check_augmentation, close, tried


def check_01_1(clean_estimate: Callable) -> None:
    """clean_estimate(x, eps, t, schedule) -> x0_hat."""
    schedule, t = Schedule.scaled_linear(), 600
    (a, s), x0, eps = schedule.levels(t), *Noise(5, 2, "initial")((2, 3, 4, 4))
    mine = tried(clean_estimate, a * x0 + s * eps, eps, t, schedule)
    if mine is not None:
        wrong = {
            "take s of the noise away, not all of it.": close(mine, (a * x0 + s * eps - eps) / a),
            "that is a times the picture: divide by a.": close(mine, a * x0),
            "levels gives amplitudes: no more roots.": close(
                mine, (a * x0 + s * eps - s**0.5 * eps) / a**0.5
            ),
            "x is a * x0 + s * eps: solve that for x0.": not close(mine, x0),
        }
        advise(wrong, "with the true noise, the true picture.")


def check_01_2(spherical: Callable) -> None:
    """spherical(seen, text) -> half the squared angle, for unit vectors (B,d) and (1,d)."""
    angle = torch.tensor([0.1, 0.7, 1.5, 3.0])
    seen = torch.stack([angle.cos(), angle.sin(), torch.zeros(4)], dim=1)
    mine = tried(spherical, seen, torch.tensor([[1.0, 0.0, 0.0]]))
    if mine is not None:
        cos = angle.cos()
        wrong = {
            "that is the cosine distance; the angle is its arc.": close(mine, 1 - cos),
            "that is the angle itself: half of its square.": close(mine, angle),
            "half of it.": close(mine, angle**2),
            "the angle between unit vectors is the arc cosine of their product.": not close(
                mine, angle**2 / 2
            ),
        }
        advise(wrong, "the same order as 1 - cos, but it goes on pulling where the cosine is flat.")


def check_01_3(shifted: Callable) -> None:
    """shifted(eps, grad, t, schedule) -> the noise estimate that goes downhill."""
    schedule, t = Schedule.scaled_linear(), 300
    (a, s), eps, grad = schedule.levels(t), *Noise(6, 2, "initial")((2, 3, 4, 4))
    mine = tried(shifted, eps, grad, t, schedule)
    if mine is not None:
        wrong = {
            "that goes uphill: eps is what gets taken away from the picture.": close(
                mine, eps - s * grad
            ),
            "s is sqrt(1 - abar) already.": close(mine, eps + s**0.5 * grad)
            or close(mine, eps + s**2 * grad),
            "a belongs to the picture; noise comes with s.": close(mine, eps + a * grad),
            "the score is -eps / s; move it by -grad and solve for eps.": not close(
                mine, eps + s * grad
            ),
        }
        advise(wrong, "that is how a loss steers DDIM (2105.05233, algorithm 2).")


def check_01_4(my_augmentation: Callable) -> None:
    """my_augmentation(pictures, u) -> pictures changed as u says, for (B,3,S,S) and u (B,) in
    [0,1).
    """
    pictures = Noise(7, 2, "initial")((3, 16, 16)).requires_grad_()
    u = torch.tensor([0.2, 0.8])
    hint = "no gradient comes through: use operations of torch on pictures."
    well = "a gradient comes through, and a pattern must now survive it."
    check_augmentation(
        my_augmentation, pictures, u, {hint: lambda mine: not mine.requires_grad}, well
    )
