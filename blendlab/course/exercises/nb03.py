"""Checkers of notebook 03, latent blending."""

from collections.abc import Callable

import torch

from ...blend import blend
from ...masks import dilate
from ...noise import Noise
from ...papers.blended_latent import Blending, blended_steps
from ...sampler import Prediction, last, sample
from ...schedule import Schedule
from .common import advise, close, guarded, say, tensor, tried, writes


def latent_loop(denoise, z, source, mask_small, schedule, timesteps, noise):
    """The package's latent loop with eta 0, for `attempt`."""
    masks = [mask_small] * (len(timesteps) - 1)
    how = Blending(eta=0.0)
    return last(blended_steps(denoise, z, source, masks, schedule, timesteps, how, noise))


@guarded
def check_03_1(left_over: Callable) -> bool:
    """left_over(schedule, timesteps, level) -> std of the noise outside the final latent's mask."""
    schedule = Schedule.scaled_linear()
    timesteps = schedule.timesteps(25, spacing="trailing")
    mine = tried(left_over, schedule, timesteps, "t")
    if mine is not None:
        if tensor(mine) is None or tensor(mine).numel() != 1:
            return say(False, "", "one number: of (a, s) from levels it is s, the noise's part.")
        late, on_time = float(mine), left_over(schedule, timesteps, "t_next")
        (a, s), first = schedule.levels(timesteps[-2]), schedule.levels(timesteps[0])[1]
        wrong = {
            "levels returns (a, s): a is the picture's part, s the noise's.": abs(late - a) < 1e-6,
            "that is the first move; the final latent comes from the last one.": abs(late - first)
            < 1e-6,
            "s is a standard deviation already, do not square it.": abs(late - s**2) < 1e-6,
            "which level has the state just left when it arrives at -1?": abs(late - s) > 1e-6,
            "level -1 is the clean one: no noise there.": on_time != 0,
        }
        return advise(wrong, "one level late is all of that noise; on time there is none.")


@guarded
def check_03_2(my_stages: Callable) -> bool:
    """my_stages(mask_small, steps) -> a mask for each move, a cell wider in the first half."""
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 3:5, 2:5] = 1
    mine = tried(my_stages, mask, 7)
    if mine is not None:
        if len(mine) != 7:
            return say(False, "", f"7 moves need 7 masks, you made {len(mine)}.")
        mine = [tensor(m) for m in mine]
        areas = [int(m.sum()) for m in mine]
        wrong = {
            "early masks are the wider ones, yours are narrower.": areas[0] < areas[-1],
            "the last mask has to be the one that was asked for.": not close(mine[-1], mask),
            "one cell wider on each side: masks.dilate(mask_small, 1).": not close(
                mine[0], dilate(mask, 1)
            ),
            "half of the moves, rounded down, then the mask itself.": areas != [20] * 3 + [6] * 4,
        }
        return advise(wrong, "wide first, and exactly what was asked for at the end.")


@guarded
def check_03_3(my_body: Callable) -> bool:
    """my_body(step, mask, source, schedule) -> the state, rebuilt from the blended estimate."""
    schedule, mask, source = (
        Schedule.scaled_linear(),
        torch.eye(4)[None, None],
        torch.full((1, 2, 4, 4), -1.0),
    )
    (step,) = sample(
        lambda x, t: Prediction(0.3 * x), Noise(3, 1, "initial")((2, 4, 4)), schedule, [700, 300]
    )
    mine = tried(my_body, step, mask, source, schedule)
    if mine is not None:
        (a, s), (a_late, s_late) = schedule.levels(step.t_next), schedule.levels(step.t)
        x0 = blend(mask, edit=step.x0_hat, keep=source)
        swapped = blend(mask, edit=source, keep=step.x0_hat)
        wrong = {
            "that is the blended estimate: a state has noise, too.": close(mine, x0),
            "blend x0_hat, not the state: the state has noise.": close(
                mine, blend(mask, step.x, source)
            ),
            "that is level t; the state belongs on step.t_next.": close(
                mine, a_late * x0 + s_late * step.eps
            ),
            "1 is edit: x0_hat inside, the source outside.": close(
                mine, a * swapped + s * step.eps
            ),
            "a state is picture and noise: rebuild it from both, with a and s.": not close(
                mine, a * x0 + s * step.eps
            ),
        }
        return advise(wrong, "one blend, no fresh noise, and the end is clean by itself.")


@guarded
def check_03_4(my_body: Callable) -> bool:
    """my_body(step, mask, at) -> the new state, by your rule; at(t) is the source on level t."""
    schedule, mask, source = (
        Schedule.scaled_linear(),
        torch.zeros(1, 1, 8, 8),
        torch.full((1, 4, 8, 8), -1.0),
    )
    mask[..., 2:6, 2:6] = 1
    noise = Noise(4, 1, "background")((4, 8, 8))
    at = lambda t: schedule.add_noise(source, t, noise)  # noqa: E731

    def run(body):
        states, timesteps = [], schedule.timesteps(20, skip=0.25)
        for step in sample(
            lambda x, t: Prediction(torch.ones_like(x)), at(timesteps[0]), schedule, timesteps
        ):
            step.x = body(step, mask, at)
            if step.x is None:
                return None
            states.append(step.x)
        return torch.cat(states)  # (moves,4,8,8)

    def at_the_end(step, mask, at):
        return step.x if step.t_next >= 0 else blend(mask, step.x, at(-1))

    def late(step, mask, at):
        return blend(mask, step.x, at(step.t if step.t_next >= 0 else -1))

    known = {
        "blending as we know it": lambda step, mask, at: blend(mask, step.x, at(step.t_next)),
        "a paste at the end, without blending on the way": at_the_end,
        "the published slip, one level late, with a clean end": late,
    }
    mine = tried(run, my_body)
    if mine is not None:
        inside = (mine[-1:] * mask).sum() / (
            4 * mask.sum()
        )  # the denoiser wants 1 there, the source has -1
        wrong = {
            "outside the mask the end is not the source: look at the last move.": not close(
                blend(mask, source, mine[-1:]), source
            ),
            "inside the mask too little of the edit is left.": not inside.item() >= 0.5,
        } | {
            f"that is {name}: try another rule.": close(mine, run(rule))
            for name, rule in known.items()
        }
        return advise(wrong, "the source outside, the edit inside, by a rule of your own.")


@writes("my_latent_loop")
def check_03_5(my_latent_loop: Callable) -> bool:
    """my_latent_loop(denoise, z, source, mask_small, schedule, timesteps, noise) -> the final
    latent: every move of `sample` with eta 0, each followed by the source put back outside.

    noise: a function that draws the noise of the kept part.
    """
    schedule, mask = Schedule.scaled_linear(), torch.zeros(1, 1, 6, 6)
    mask[..., 2:5, 1:4] = 1
    timesteps = schedule.timesteps(8, skip=0.25, spacing="trailing")
    source = Noise(17, 1, "initial")((4, 6, 6))

    def denoise(x, t):
        return Prediction((x + x.roll(1, -1)).tanh())  # neighbours see each other

    def drawing():
        behind = Noise(18, 1, "background")
        return lambda: behind((4, 6, 6))

    start = schedule.add_noise(source, timesteps[0], Noise(19, 1, "initial")((4, 6, 6)))

    def run(level, when):
        behind = drawing()
        for step in sample(denoise, start.clone(), schedule, timesteps):
            at = step.t_next if level == "t_next" or step.t_next < 0 else step.t
            keep = schedule.add_noise(source, at, behind())
            if when == "always" or step.t_next < 0:
                step.x = blend(mask, edit=step.x, keep=keep)
        return step.x

    mine = tried(
        my_latent_loop, denoise, start.clone(), source, mask, schedule, timesteps, drawing()
    )
    if mine is None:
        return None
    if tensor(mine) is None or tensor(mine).shape != start.shape:
        return say(False, "", "the final latent (1,C,h,w) has to come out, as in step.x.")
    wrong = {
        "outside the mask it does not end as the source.": not close(
            blend(mask, source, tensor(mine)), source
        ),
        "that blends once, at the end: do it after every move.": close(mine, run("t_next", "end")),
        "the kept part is one level late: on which level is the state after a move?": close(
            mine, run("t", "always")
        ),
        "nothing was edited inside the mask.": close(mine, source),
        "after every move, blend the state with the source on the level of that state.": (
            not close(mine, run("t_next", "always"))
        ),
    }
    return advise(wrong, "that is the whole of latent blending.")
