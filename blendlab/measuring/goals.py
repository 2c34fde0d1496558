"""Numbers that a student's method has to reach, for points: a goal for the function of each lesson.

`reached` runs the method on tasks that no figure of the course shows. A cell that ends with it
shows the points as a number, which nbgrader takes. No paper. Next: ../course/pack.py, which writes
such cells.
"""

from collections.abc import Callable
from contextlib import redirect_stderr
from copy import deepcopy
from dataclasses import dataclass
from io import StringIO

import torch

from .. import cards, prompts
from ..blend import blend
from ..guidance import cfg, from_pipe
from ..latents import decode, encode
from ..masks import to_latent
from ..networks.load import load
from ..noise import Noise
from ..papers.blended_latent import FALLBACK
from ..papers.layout import layout
from ..sampler import Prediction, sample
from ..schedule import Schedule
from . import metrics
from .latent_blending import upright
from .noise_editing import BEST, BOXES, HOW, naming, placed
from .pixel_blending import distance
from .tables import is_simple, side

WORTH = 2  # points of a goal
SEED = 40  # of the tasks; the tables of the course have others


@dataclass(frozen=True)
class Goal:
    """measure(mine) gives a number; `full` and beyond it earns all points, `none` earns none."""

    measure: Callable
    none: float
    full: float
    says: str  # with {} for the number

    def share(self, number: float) -> float:
        return min(1.0, max(0.0, (number - self.none) / (self.full - self.none)))


GOALS: dict[str, Goal] = {}  # by the name of the function that the reader writes


def reached(mine: Callable, worth: float = WORTH) -> float:
    """Points for what your method reaches, in proportion between nothing and the full number."""
    name = mine.__name__
    if name not in GOALS:
        raise ValueError(f"no goal is set for {name!r}; there are goals for {', '.join(GOALS)}")
    goal = GOALS[name]
    with redirect_stderr(StringIO()):  # nbgrader takes any line there for an error
        number = float(goal.measure(mine))
    gained = round(worth * goal.share(number), 2)
    says = goal.says.format(f"{number:.2f}")
    print(f"{says}; {goal.full:g} is full marks: {gained:g} of {worth}")
    return gained


def aims(name: str, none: float, full: float, says: str):
    """Make the decorated function measure the reader's function `name`."""

    def register(measure):
        GOALS[name] = Goal(measure, none, full, says)
        return measure

    return register


@aims("my_move", 0.2, 0.9, "share of 400 points that end on one of the eight: {}")
def _moves(my_move):
    angle = (torch.arange(8) + 0.5) * torch.pi / 4
    data, schedule = torch.stack([angle.cos(), angle.sin()], 1), Schedule.scaled_linear()
    timesteps = schedule.timesteps(50, spacing="trailing")
    x = Noise(SEED, 400, "initial")((2,))
    for t, t_next in zip(timesteps, timesteps[1:], strict=False):
        a, s = schedule.levels(t)
        x0_hat = (-(torch.cdist(x, a * data) ** 2) / (2 * s**2)).softmax(1) @ data
        x = my_move(x, x0_hat, t, t_next, schedule)
    return (torch.cdist(x, data).amin(1) < 0.1).float().mean()


@aims("my_guide", 0.0, 0.3, "CLIP's distance to the words, smaller than without guidance by {}")
def _guides(my_guide, n=4):
    model, clip = load("tinyworld-pixel"), load("tinyworld-clip")
    how, tasks = cards.settings(model, "blended"), _tasks(n, model)
    schedule, timesteps, net = from_pipe(model, how["steps"])

    def walk(guide):
        draw = {name: Noise(SEED, n, name, model.device, shape=tasks.image.shape[1:])
                for name in ("initial", "step")}  # fmt: skip
        loss = lambda x0_hat: how["scale"] * distance(clip, x0_hat, tasks)  # noqa: E731

        def guided(x, t):
            x0_hat, grad = guide(net, loss, x, t) if guide else (net(x, t).x0_hat, 0 * x)
            return Prediction(x0_hat, grad=grad)

        for step in sample(guided, draw["initial"](), schedule, timesteps, 1.0, draw["step"]):
            step.x = step.x - step.var * step.grad
        with torch.no_grad():
            return distance(clip, step.x.clamp(-1, 1), tasks).mean()

    return walk(None) - walk(my_guide)


@aims("my_blended_step", 0.0, 1.2, "visibility of the border, less than a paste at the end by {}")
def _blends(my_blended_step, n=8):
    model = load("tinyworld-pixel")
    how, tasks = cards.settings(model, "blended"), _tasks(n, model)
    schedule, timesteps, net = from_pipe(model, how["steps"], how["skip"])
    shape = tasks.image.shape[1:]

    def walk(put_back):
        draw = {name: Noise(SEED, n, name, model.device, shape=shape)
                for name in ("initial", "step", "background")}  # fmt: skip
        x = schedule.add_noise(tasks.image, timesteps[0], draw["initial"]())
        with torch.no_grad():
            for step in sample(net, x, schedule, timesteps, 1.0, draw["step"]):
                given = tasks.image, tasks.mask, schedule, draw["background"]()
                step.x = put_back(step.x, step.t_next, *given)
        return metrics.border(step.x.clamp(-1, 1), tasks.image, tasks.mask).mean()

    def once(x, t_next, source, mask, schedule, noise):
        return blend(mask, edit=x, keep=source) if t_next == -1 else x

    return walk(once) - walk(my_blended_step)


@aims("my_latent_loop", 0.0, 0.3, "share of 32 tasks in which the judge sees what was asked: {}")
def _latents(my_latent_loop, n=32):
    pipe, judge = load("tinyworld"), load("tinyworld-judge")
    right = []
    for start in range(0, n, 16):
        tasks = _tasks(min(16, n - start), pipe, start)
        made = _latent_edits(pipe, tasks, lambda given: my_latent_loop(**given), eta=0.0)
        right.append(metrics.precision(judge, made, tasks)[1])
    return torch.cat(right).float().mean()


@aims("my_loss", 0.0, 6.0, "the background, nearer to the source than decoded by {} dB")
def _tunes(my_loss, steps=40):
    pipe = load("tinyworld")
    tasks = _tasks(1, pipe)
    vae, z = deepcopy(pipe.vae).float(), encode(pipe.vae, tasks.image)
    h = vae.post_quant_conv(z / vae.config.scaling_factor).detach()
    target = vae.decoder(h).detach()
    rate = cards.settings(pipe, "reconstruct")["weights"]["lr"]
    adam = torch.optim.Adam(vae.decoder.requires_grad_(True).parameters(), rate)
    for _ in range(steps):
        adam.zero_grad()
        my_loss(vae.decoder(h), target, tasks.image, tasks.mask, 100.0).backward()
        adam.step()
    with torch.no_grad():
        pair = [
            metrics.background_error(p, tasks.image, tasks.mask) for p in (vae.decoder(h), target)
        ]
    after, before = (metrics.decibels(error).item() for error in pair)
    return after - before


@aims("my_mask_schedule", 0.25, 0.5, "share of 12 thin strokes in which something appeared: {}")
def _strokes(my_mask_schedule, n=12):
    pipe = load("tinyworld")
    tasks = upright(n, side(pipe), pipe.vae_scale_factor, SEED)

    def loop(given):
        moves = len(given["timesteps"]) - 1
        small = given["mask_small"]
        stages = [my_mask_schedule(one[None], moves, (1, 2, 3)) for one in small]
        for step in sample(given["denoise"], given["z"], given["schedule"], given["timesteps"]):
            keep = given["schedule"].add_noise(given["source"], step.t_next, given["noise"]())
            mask = torch.cat([stage[step.i] for stage in stages])
            step.x = blend(mask, edit=step.x, keep=keep)
        return step.x

    made = _latent_edits(pipe, tasks, loop, rule="any", eta=0.0)
    before = decode(pipe.vae, encode(pipe.vae, tasks.image))
    return metrics.appeared(made, before, tasks.mask).float().mean()


@aims("my_exchange", 0.4, 0.6, "share of 12 noises whose object stands in its box: {}")
def _carries(my_exchange, n=4):
    pipe, judge = load("tinyworld"), load("tinyworld-judge")
    right, how = [], BEST | HOW | {"n": n, "rule": "none"}
    for i, (phrases, prompt) in enumerate(naming(3, 1)):
        asked = [(phrases[0], BOXES[i % 2])]
        seen = layout(pipe, prompt, asked, seed=SEED + i, heat="plain", **how).settings
        inside = seen["cells"][0].flatten() > 0
        z = []
        for noise, heat in zip(seen["noise"], seen["attention"][:, 0], strict=True):
            most = torch.zeros_like(inside)
            most[heat.flatten().topk(int(inside.sum())).indices] = True
            pair = (
                (here & ~there).nonzero()[:, 0] for here, there in ((most, inside), (inside, most))
            )
            z.append(my_exchange(noise, *pair, seen["block"]))
        made = layout(pipe, prompt, asked, noise=torch.stack(z), heat="plain", **how).tensor
        right.append(placed(judge, made, phrases, [BOXES[i % 2]]))
    return torch.cat(right).float().mean()


def _tasks(n, pipe, start=0):
    return metrics.tasks(n, start, SEED, side(pipe), is_simple(pipe))


def _latent_edits(pipe, tasks, loop, rule="centre", **change):
    """Pictures (n,3,H,W) of a latent loop, which gets what my_latent_loop gets, by name."""
    how = FALLBACK | cards.settings(pipe, "blended_latent") | change
    schedule, timesteps, net = from_pipe(pipe, how["steps"], how["skip"])
    source = encode(pipe.vae, tasks.image)
    text, null = prompts.encode(pipe, tasks.prompts)
    draw = {name: Noise(SEED, len(tasks), name, pipe.device, shape=source.shape[1:])
            for name in ("initial", "background")}  # fmt: skip
    given = dict(
        denoise=cfg(net, text, null, how["w"]),
        z=schedule.add_noise(source, timesteps[0], draw["initial"]()),
        source=source,
        mask_small=to_latent(tasks.mask, source.shape[-2:], rule),
        schedule=schedule,
        timesteps=timesteps,
        noise=draw["background"],
    )
    with torch.no_grad():
        return decode(pipe.vae, loop(given))
