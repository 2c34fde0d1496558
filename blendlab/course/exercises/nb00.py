"""Checkers of notebook 00, start here."""

from collections.abc import Callable

import torch

from ...blend import blend
from ...noise import Noise
from ...sampler import Prediction, last, sample
from ...schedule import Schedule
from .common import advise, close, fresh, guarded, say, tried, writes


def move(x, x0_hat, t, t_next, schedule):
    """The package's move from level t to t_next, for `attempt`."""
    seen = Prediction(x0_hat)
    return last(sample(lambda x, t: seen, x, schedule, [t, t_next]))


@guarded
def check_00_1(add_noise: Callable) -> bool:
    """add_noise(x0, t, noise, schedule) -> x_t."""
    schedule, (x0, noise) = (
        Schedule.linear(),
        torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1)),
    )
    mine = tried(add_noise, x0, 400, noise, schedule)
    if mine is not None:
        squares = close(
            mine, x0 * schedule.levels(400)[0] ** 2 + noise * schedule.levels(400)[1] ** 2
        )
        hint = (
            "a and s are amplitudes already, do not square them."
            if squares
            else "read the first equation of *Idea*: which amount belongs to the noise?"
        )
        return say(
            close(mine, schedule.add_noise(x0, 400, noise)),
            "the picture and its noise add up to variance one.",
            hint,
        )


@writes("my_move")
def check_00_2(my_move: Callable) -> bool:
    """my_move(x, x0_hat, t, t_next, schedule) -> the state at t_next."""
    schedule = Schedule.linear()
    x, x0_hat = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(2))
    right = move(x, x0_hat, 600, 580, schedule)
    (a, s), (a_next, s_next) = schedule.levels(600), schedule.levels(580)
    kept, eps = x.clone(), (x - a * x0_hat) / s
    mine = tried(lambda: my_move(kept, x0_hat.clone(), 600, 580, schedule))
    if mine is not None:
        mine, untouched = torch.as_tensor(mine).clone(), torch.equal(kept, x)
        wrong = {
            "you came back to level t: rebuild with a_next and s_next.": close(mine, x),
            "a_next belongs to x0_hat, s_next to the noise.": close(
                mine, s_next * x0_hat + a_next * eps
            )
            or close(mine, x0_hat + s_next * eps),
            "solve the equation of the state at level t for the noise.": not close(mine, right),
            "the cells below need the old state again: leave x as it is.": not untouched,
            "the move to level -1, where s_next is 0, has to give x0_hat.": not close(
                my_move(x.clone(), x0_hat.clone(), 19, -1, schedule), x0_hat
            ),
        }
        return advise(wrong, "that is DDIM's whole move.")


@guarded
def check_00_3(my_blend: Callable) -> bool:
    """my_blend(mask, edit, keep) of two clean pictures, for a soft mask."""
    mask, edit, keep = (
        torch.tensor([[0.0, 0.3, 1.0]]),
        torch.tensor([[4.0, 5.0, -1.0]]),
        torch.tensor([[2.0, -3.0, 6.0]]),
    )
    mine = tried(my_blend, mask, edit, keep)
    if mine is not None:
        by_variance = mask**0.5 * edit + (1 - mask) ** 0.5 * keep
        if close(mine, blend(1 - mask, edit, keep)):
            hint = "1 is edit here, not keep."
        elif close(mine, by_variance):
            hint = "that keeps the variance of noise; these are clean, so the shares add up to 1."
        else:
            hint = "each pixel takes its share of both pictures; the mask is one of the shares."
        return say(
            close(mine, blend(mask, edit, keep)),
            "a soft mask mixes, and 0 and 1 still choose.",
            hint,
        )


@guarded
def check_00_4(estimate: Callable) -> bool:
    """estimate(x, t, m, sd, schedule) -> the mean of x0 given x, for x0 normal with m and sd."""
    schedule, m, sd = Schedule.scaled_linear(), 2.0, 0.5
    estimate = fresh(estimate)
    noise = Noise(0, 2000, "initial")((1,))
    if tried(estimate, noise, 500, m, sd, schedule) is None:
        return
    denoise = lambda x, t: Prediction(estimate(x, t, m, sd, schedule))  # noqa: E731
    end = last(sample(denoise, noise, schedule, schedule.timesteps(250)))
    mean, deviation = end.mean().item(), end.std().item()
    (a, s), far = schedule.levels(500), noise[:9]
    right = -1 + 9 * a / (9 * a**2 + s**2) * (far + a)
    exact = close(estimate(far, 500, -1.0, 3.0, schedule), right)
    found = f"mean {mean:.2f} and deviation {deviation:.2f} came out, {m} and {sd} went in"
    return say(
        exact and abs(mean - m) < 0.1 and abs(deviation - sd) < 0.05,
        f"{found}.",
        f"{found}; the noisier the level, the nearer to m: weigh both by variances."
        if abs(mean - m) > 0.1 or abs(deviation - sd) > 0.05
        else f"{found}, but k is not yet a * sd**2 over the variance of x.",
    )


@guarded
def check_00_5(guided: Callable) -> bool:
    """guided(u, c, w) -> the guided estimate, from the one without words and the one with them."""
    u, c = torch.randn(2, 1, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    mine = tried(guided, u, c, 4.0)
    if mine is not None:
        wrong = {
            "u and c have changed places: w = 1 has to give c.": close(mine, c + 4 * (u - c)),
            "w = 1 has to give c, and w = 0 has to give u.": close(mine, c + 4 * (c - u)),
            "the difference alone is no picture: add it to one.": close(mine, 4 * (c - u)),
            "w = 0 has to give u, w = 1 has to give c: take the line through both.": not close(
                mine, u + 4 * (c - u)
            ),
        }
        return advise(wrong, "w beyond 1 exaggerates what the words change.")
