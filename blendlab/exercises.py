"""Checkers for the notebooks' exercises: each runs your function on a toy and says in one sentence how it went.

Solutions are in notebooks/solutions/. Next: notebooks/00_start_here.ipynb.
"""

from collections.abc import Callable

import torch

from .blend import blend
from .masks import dilate
from .noise import Noise
from .sampler import Prediction, last, sample
from .schedule import Schedule


def _say(done: bool, well: str, hint: str) -> None:
    print(f"✓ {well}" if done else f"✗ Not yet: {hint}")


def _tried(function: Callable, *arguments):
    """What the function returns, or None with a hint printed while its line, or its `return`, is still missing."""
    try:
        mine = function(*arguments)
    except NotImplementedError as hint:
        return print(f"○ Not done yet: {hint}")
    if mine is None:
        print("✗ Not yet: your function gives nothing back; end it with `return`.")
    return mine


def _close(mine, right) -> bool:
    return isinstance(mine, torch.Tensor) and mine.shape == right.shape and torch.allclose(mine, right, atol=1e-5)


# --- 00 start here ---


def check_00_1(add_noise: Callable) -> None:
    """add_noise(x0, t, noise, schedule) -> x_t."""
    schedule, (x0, noise) = Schedule.linear(), torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))
    mine = _tried(add_noise, x0, 400, noise, schedule)
    if mine is not None:
        squares = torch.allclose(mine, x0 * schedule.levels(400)[0] ** 2 + noise * schedule.levels(400)[1] ** 2)
        hint = (
            "a and s are amplitudes already, do not square them."
            if squares
            else "x_t is a of the picture plus s of the noise."
        )
        _say(
            _close(mine, schedule.add_noise(x0, 400, noise)), "the picture and its noise add up to variance one.", hint
        )


def check_00_2(move: Callable) -> None:
    """move(x, x0_hat, t, t_next, schedule) -> the state at t_next."""
    schedule = Schedule.linear()
    x, x0_hat = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(2))
    right = next(sample(lambda x, t: Prediction(x0_hat), x, schedule, [600, 580])).x
    mine = _tried(move, x, x0_hat, 600, 580, schedule)
    if mine is not None:
        stayed = _close(mine, x)
        hint = (
            "you came back to level t: rebuild with a_next and s_next."
            if stayed
            else "eps is what is left of x after a * x0_hat."
        )
        _say(_close(mine, right), "that is DDIM's whole move.", hint)


def check_00_3(my_blend: Callable) -> None:
    """my_blend(mask, edit, keep) for a soft mask."""
    mask, edit, keep = torch.tensor([[0.0, 0.3, 1.0]]), torch.tensor([[4.0, 4.0, 4.0]]), torch.tensor([[2.0, 2.0, 2.0]])
    mine = _tried(my_blend, mask, edit, keep)
    if mine is not None:
        hint = (
            "1 is edit here, not keep."
            if _close(mine, blend(1 - mask, edit, keep))
            else "three tenths of the edit and seven of the rest."
        )
        _say(_close(mine, blend(mask, edit, keep)), "a soft mask mixes, and 0 and 1 still choose.", hint)


def check_00_4(estimate: Callable) -> None:
    """estimate(x, t, m, sd, schedule) -> the mean of x0 given x, for x0 normal with mean m and deviation sd."""
    schedule, m, sd = Schedule.scaled_linear(), 2.0, 0.5
    noise = Noise(0, 2000, "initial")((1,))
    if _tried(estimate, noise, 500, m, sd, schedule) is None:
        return
    denoise = lambda x, t: Prediction(estimate(x, t, m, sd, schedule))  # noqa: E731
    end = last(sample(denoise, noise, schedule, schedule.timesteps(250)))
    mean, deviation = end.mean().item(), end.std().item()
    found = f"mean {mean:.2f} and deviation {deviation:.2f} came out, {m} and {sd} went in"
    _say(
        abs(mean - m) < 0.1 and abs(deviation - sd) < 0.05,
        f"{found}.",
        f"{found}; the trust is a * sd^2 over a^2 * sd^2 + s^2.",
    )


# --- 03 latent blending ---


def _advise(wrong: dict[str, bool], well: str) -> None:
    """Say the first hint whose mistake was made, or that all is well."""
    hint = next((hint for hint, made in wrong.items() if made), "")
    _say(not hint, well, hint)


def check_03_1(left_over: Callable) -> None:
    """left_over(schedule, timesteps, level) -> std of the noise outside the mask of the final latent."""
    schedule = Schedule.scaled_linear()
    timesteps = schedule.timesteps(25, spacing="trailing")
    mine = _tried(left_over, schedule, timesteps, "t")
    if mine is not None:
        late, on_time = float(mine), left_over(schedule, timesteps, "t_next")
        (a, s), first = schedule.levels(timesteps[-2]), schedule.levels(timesteps[0])[1]
        wrong = {
            "levels returns (a, s): a is the picture's part, s the noise's.": abs(late - a) < 1e-6,
            "that is the first move; the final latent comes from the last one.": abs(late - first) < 1e-6,
            "s is a standard deviation already, do not square it.": abs(late - s**2) < 1e-6,
            "which level has the state just left when it arrives at -1?": abs(late - s) > 1e-6,
            "level -1 is the clean one: no noise there.": on_time != 0,
        }
        _advise(wrong, "one level late is all of that noise; on time there is none.")


def check_03_2(my_stages: Callable) -> None:
    """my_stages(mask_small, steps) -> a mask for each move, one cell wider for the first half of them."""
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 3:5, 2:5] = 1
    mine = _tried(my_stages, mask, 7)
    if mine is not None:
        if len(mine) != 7:
            return _say(False, "", f"7 moves want 7 masks, you made {len(mine)}.")
        areas = [int(m.sum()) for m in mine]
        wrong = {
            "early masks are the wider ones, yours are narrower.": areas[0] < areas[-1],
            "the last mask has to be the one that was asked for.": not _close(mine[-1], mask),
            "one cell wider on each side: masks.dilate(mask_small, 1).": not _close(mine[0], dilate(mask, 1)),
            "half of the moves, rounded down, then the mask itself.": areas != [20] * 3 + [6] * 4,
        }
        _advise(wrong, "wide first, and exactly what was asked for at the end.")


def check_03_3(my_body: Callable) -> None:
    """my_body(step, mask, source, schedule) -> the state, rebuilt from the blended estimate."""
    schedule, mask, source = Schedule.scaled_linear(), torch.eye(4)[None, None], torch.full((1, 2, 4, 4), -1.0)
    (step,) = sample(lambda x, t: Prediction(0.3 * x), Noise(3, 1, "initial")((2, 4, 4)), schedule, [700, 300])
    mine = _tried(my_body, step, mask, source, schedule)
    if mine is not None:
        (a, s), (a_late, s_late) = schedule.levels(step.t_next), schedule.levels(step.t)
        x0 = blend(mask, edit=step.x0_hat, keep=source)
        swapped = blend(mask, edit=source, keep=step.x0_hat)
        wrong = {
            "that is the estimate; the state is a * that + s * step.eps.": _close(mine, x0),
            "blend x0_hat, not the state: the state has noise.": _close(mine, blend(mask, step.x, source)),
            "that is level t; the state belongs on step.t_next.": _close(mine, a_late * x0 + s_late * step.eps),
            "1 is edit: x0_hat inside, the source outside.": _close(mine, a * swapped + s * step.eps),
            "a * (the blended estimate) + s * step.eps.": not _close(mine, a * x0 + s * step.eps),
        }
        _advise(wrong, "one blend, no fresh noise, and the end is clean by itself.")


def check_03_4(my_body: Callable) -> None:
    """my_body(step, mask, at) -> the new state, by a rule of your own; at(t) is the source on level t."""
    schedule, mask, source = Schedule.scaled_linear(), torch.zeros(1, 1, 8, 8), torch.full((1, 4, 8, 8), -1.0)
    mask[..., 2:6, 2:6] = 1
    noise = Noise(4, 1, "background")((4, 8, 8))
    at = lambda t: schedule.add_noise(source, t, noise)  # noqa: E731

    def run(body):
        states, timesteps = [], schedule.timesteps(20, skip=0.25)
        for step in sample(lambda x, t: Prediction(torch.ones_like(x)), at(timesteps[0]), schedule, timesteps):
            step.x = body(step, mask, at)
            if step.x is None:
                return None
            states.append(step.x)
        return torch.cat(states)  # (moves,4,8,8)

    mine = _tried(run, my_body)
    if mine is not None:
        inside = (mine[-1:] * mask).sum() / (4 * mask.sum())  # the denoiser wants 1 there, the source has -1
        wrong = {
            "outside the mask the end is not the source: look at the last move.": not _close(
                blend(mask, source, mine[-1:]), source
            ),
            "inside the mask too little of the edit is left.": inside.item() < 0.5,
            "that is blending as we know it: try another rule.": _close(
                mine, run(lambda step, mask, at: blend(mask, step.x, at(step.t_next)))
            ),
        }
        _advise(wrong, "outside the source, inside the edit, and a way there that is your own.")
