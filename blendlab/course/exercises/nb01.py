"""Checkers of notebook 01, CLIP guidance."""

from collections.abc import Callable

import torch
from torch import Tensor

from ...guidance import loss_guided
from ...noise import Noise
from ...sampler import Prediction
from ...schedule import Schedule
from .common import (
    advise,
    check_augmentation,
    close,
    guarded,
    say,
    sized,
    smooth_pictures,
    tensor,
    tried,
    writes,
)


def guide(denoise, loss, x, t):
    """The package's estimate and gradient, for `attempt`."""
    seen = loss_guided(denoise, lambda x0_hat, x, t: loss(x0_hat))(x, t)
    return seen.x0_hat, seen.grad


@guarded
def check_01_1(clean_estimate: Callable) -> bool:
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
        return advise(wrong, "with the true noise, the true picture.")


@guarded
def check_01_2(spherical: Callable) -> bool:
    """spherical(seen, text) -> half the squared angle, for unit vectors (B,d) and (1,d)."""
    angle = torch.tensor([0.1, 0.7, 1.5, 3.0])
    seen = torch.stack([angle.cos(), angle.sin(), torch.zeros(4)], dim=1)
    mine = tried(spherical, seen, torch.tensor([[1.0, 0.0, 0.0]]))
    if mine is not None:
        cos = angle.cos()
        wrong = {
            "that is the cosine distance, not the angle.": close(mine, 1 - cos),
            "that is the angle itself: half of its square.": close(mine, angle),
            "that is the square of the angle: take half of it.": close(mine, angle**2),
            "one number for each row: sum over the last axis.": not sized(mine, angle),
            "the angle between unit vectors is the arc cosine of their product.": not close(
                mine, angle**2 / 2
            ),
        }
        return advise(
            wrong, "the same order as 1 - cos, but it goes on pulling where the cosine is flat."
        )


@guarded
def check_01_3(shifted: Callable) -> bool:
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
        return advise(wrong, "that is how a loss steers DDIM (2105.05233, algorithm 2).")


@guarded
def check_01_4(my_augmentation: Callable) -> bool:
    """my_augmentation(pictures, u) -> pictures (B,3,S,S) changed as u (B,) in [0,1) says."""
    pictures, u = smooth_pictures(2, seed=7).requires_grad_(), torch.tensor([0.95, 0.0])

    def slope(mine):
        if not mine.requires_grad:
            return 0.0
        probe = smooth_pictures(2, seed=8)
        (grad,) = torch.autograd.grad((mine * probe).sum(), pictures, retain_graph=True)
        return (grad.norm() / probe.norm()).item()

    hint = "no gradient comes through: use operations of torch on pictures."
    well = "a gradient comes through, and a pattern has to work for changed pictures too."
    return check_augmentation(
        my_augmentation, pictures, u, {hint: lambda mine: slope(mine) < 0.1}, well
    )


@writes("my_guide")
def check_01_5(my_guide: Callable) -> bool:
    """my_guide(denoise, loss, x, t) -> (x0_hat, gradient of the loss with respect to x)."""
    x, weight = Noise(14, 2, "initial")((3, 4, 4)), Noise(15, 1, "initial")((3, 4, 4))
    calls = []

    def denoise(x, t):
        calls.append(t)
        return Prediction(x.sin() * weight)

    def loss(x0_hat):
        return (x0_hat - 1).square().mean((1, 2, 3))  # (B,)

    with torch.no_grad():  # as the sampler calls it
        mine = tried(my_guide, denoise, loss, x.clone(), 300)
    if mine is None:
        return None
    if not isinstance(mine, (tuple, list)) or len(mine) != 2:
        return say(False, "", "give back two things: x0_hat, and the gradient.")
    used, (x0_hat, grad) = len(calls), mine
    if not isinstance(grad, Tensor):
        return say(False, "", "torch.autograd.grad gives a tuple: return the tensor in it.")
    right, right_grad = guide(denoise, loss, x, 300)
    with torch.enable_grad():
        estimate = denoise(x, 300).x0_hat.requires_grad_()
        (short,) = torch.autograd.grad(loss(estimate).sum(), estimate)
    wrong = {
        "the first is the network's clean estimate, x0_hat.": not close(x0_hat, right),
        "that is the gradient at x0_hat: take it at x, through the network.": close(grad, short),
        "one loss a picture: sum them, a mean makes each gradient smaller.": close(
            2 * tensor(grad), right_grad
        ),
        "return the gradient itself; the step changes its sign.": close(-tensor(grad), right_grad),
        "the second is the gradient of the summed loss at the state x.": not close(
            grad, right_grad
        ),
        "one call of the network is enough: estimate and gradient share it.": used > 1,
    }
    return advise(wrong, "one call of the network gives the estimate and the gradient.")
