"""What Blended Diffusion (2111.14818) claims, and what its options do: tables for notebooks 01 and 02, on tinyworld.

Tasks, seeds and settings are the same in all rows of a table, except for what a row's label says. Next: ../tables.py,
whose helpers these use, and ../phenomena.py, which shows that there is something to claim at all.
"""

import torch

from .. import metrics, models, world
from ..baselines import paint_by_word, pyramid
from ..blend import blend
from ..clip_guided import clip_guided
from ..phenomena import PIXELS, clips_word, columns, guided, seconds_each, timed
from ..poisson import poisson
from ..rank import rank
from ..tables import blocks, joined, measured, seen_inside

JOINS = {"naive paste": blend, "Laplacian pyramid": pyramid, "Poisson": poisson}
LAMBDAS = (0.0, 100.0, 1000.0, 10000.0)  # figure 3 of the paper compares the last three
SHIFTED = 0.1  # where noise estimates are shifted: the share of levels skipped, as the first holds no picture to shift
RESULTS = 10  # of each task, to rank: their best and worst fifth are two each


def asked(model, clip, tasks, seed, **options):
    """Edits (n,3,H,W) by algorithm 1, which asks for the background, from where the recommended edits start."""
    how = models.settings(model, "blended") | dict(n=len(tasks), seed=seed, ranking=None) | options
    return clip_guided(model, clip, tasks.image, tasks.mask, tasks.prompts, **how).tensor.cpu()


def outside(images, tasks):
    error = metrics.background_error(images, tasks.image, tasks.mask).clamp(min=1e-4)  # 80 dB is exact
    return {"background (dB)": metrics.decibels(error)}


# Guidance


@measured(48, *PIXELS)
def background_weights(n, model, clip, judge):
    """Algorithm 1 of Blended Diffusion asks for the background with a weight lambda: what that does to the background
    and to the edit. Nothing is pasted.
    """
    rows = {f"lambda {value:g}": [] for value in LAMBDAS} | {"algorithm 2": []}
    for k, tasks in blocks(n, model, "background_weights"):
        made = [asked(model, clip, tasks, k, background=value) for value in LAMBDAS]
        for label, images in zip(rows, [*made, guided(model, clip, tasks, k, paste=False)], strict=True):
            rows[label].append(
                seen_inside(judge, images, tasks) | outside(images, tasks) | clips_word(clip, images, tasks))
    return {label: joined(parts) for label, parts in rows.items()}


SHIFTS = {
    "mean, CLIP sees x0_hat": dict(shift="mean"),
    "mean, CLIP sees the mixture": dict(shift="mean", looks_at="mixture"),
    "epsilon, CLIP sees x0_hat": dict(shift="epsilon"),
    "epsilon, CLIP sees the mixture": dict(shift="epsilon", looks_at="mixture"),
    "mean, the network held": dict(shift="mean", through_network=False),
}


@measured(48, *PIXELS)
def guidance_variants(n, model, clip, judge):
    """What the gradient moves (the mean by the variance of the move, or the noise estimate), what CLIP looks at, and
    whether the gradient goes through the network: algorithm 2, DDPM, the same scale, a tenth of the levels skipped.
    Seconds an edit.
    """
    same = dict(eta=1.0, skip=SHIFTED)
    rows, seconds = ({label: [] for label in SHIFTS} for _ in range(2))
    for k, tasks in blocks(n, model, "guidance_variants"):
        for label, how in SHIFTS.items():
            images, time_each = timed(lambda k=k, tasks=tasks, how=how: guided(model, clip, tasks, k, **same, **how))
            rows[label].append(seen_inside(judge, images, tasks) | clips_word(clip, images, tasks))
            seconds[label].append(time_each)
    return {label: joined(parts) | seconds_each(seconds[label]) for label, parts in rows.items()}


SAMPLERS = {f"{name}, {steps} steps": dict(eta=eta, steps=steps)
            for name, eta in (("DDPM", 1.0), ("DDIM", 0.0)) for steps in (100, 50, 25, 10)}  # fmt: skip


@measured(32, *PIXELS)
def samplers(n, model, clip, judge):
    """DDPM against DDIM, at many steps and at few: algorithm 2 with the recommended scale, a tenth of the levels
    skipped.
    """
    rows = {label: [] for label in SAMPLERS}
    for k, tasks in blocks(n, model, "samplers"):
        for label, how in SAMPLERS.items():
            images = guided(model, clip, tasks, k, skip=SHIFTED, **how)
            rows[label].append(seen_inside(judge, images, tasks) | clips_word(clip, images, tasks))
    return {label: joined(parts) for label, parts in rows.items()}


# Blending


@measured(48, *PIXELS)
def joins(n, model, clip, judge):
    """How an edit and its source become one picture: edits of algorithm 1 (lambda 1000) joined at the end, against
    blending at every step. The seam measure is 1 where the border of the mask is like what is around it; the source
    and the truth say what that is worth here. A background of 80 dB is the source's, bit for bit.
    """
    rows, figure = {label: [] for label in (*JOINS, "blended at every step", "the truth", "the source")}, None
    for k, tasks in blocks(n, model, "joins"):
        whole = asked(model, clip, tasks, k)
        made = {label: join(tasks.mask, whole, tasks.image).clamp(-1, 1) for label, join in JOINS.items()}
        made["blended at every step"] = guided(model, clip, tasks, k)
        figure = figure or columns(tasks, made)
        for label, images in zip(rows, [*made.values(), tasks.truth, tasks.image], strict=True):
            error = metrics.rms((images - tasks.truth) / 2, tasks.mask)
            seen = {"seam (1 is none)": metrics.seam(images, tasks.mask), "error to the truth (share of range)": error}
            rows[label].append(seen_inside(judge, images, tasks) | seen | outside(images, tasks))
    return {label: joined(parts) for label, parts in rows.items()}, figure


@measured(48, *PIXELS, "tinyworld")
def pixel_methods(n, model, clip, judge, pipe):
    """Three methods with words and a mask, on the same tasks: algorithm 1 (lambda 1000), algorithm 2, and
    PaintByWord++, which optimises an autoencoder's latents under CLIP (150 steps of the paper's 500, as many copies as
    the others). Seconds an edit, 16 at once.
    """

    def painted(tasks, k):
        copies = models.settings(model, "blended")["augmentations"]
        same = dict(n=len(tasks), seed=k, ranking=None, steps=150, augmentations=copies)
        return paint_by_word(pipe, clip, tasks.image, tasks.mask, tasks.prompts, **same).tensor.cpu()

    methods = {
        "algorithm 1": lambda tasks, k: asked(model, clip, tasks, k),
        "algorithm 2": lambda tasks, k: guided(model, clip, tasks, k),
        "PaintByWord++": painted,
        "the truth": lambda tasks, k: tasks.truth,
    }
    rows, seconds = ({label: [] for label in methods} for _ in range(2))
    figure = None
    for k, tasks in blocks(n, model, "pixel_methods"):
        made = {}
        for label, method in methods.items():
            made[label], time_each = timed(lambda method=method, tasks=tasks, k=k: method(tasks, k))
            seen = seen_inside(judge, made[label], tasks) | clips_word(clip, made[label], tasks)
            rows[label].append(seen | outside(made[label], tasks))
            seconds[label].append(time_each)
        figure = figure or columns(tasks, made)
    times = {label: seconds_each(each) for label, each in seconds.items() if label != "the truth"}
    return {label: joined(parts) | times.get(label, {}) for label, parts in rows.items()}, figure


# Ranking


RANKINGS = {
    "the mask, on black": dict(view="mask"),
    "the mask, not normalised (BD's code)": dict(view="mask", normalised=False),
    "the whole picture": dict(view="image"),
    "both": dict(view="both"),
}


@measured(16, *PIXELS)
def rankings(n, model, clip, judge):
    """What ranking is worth: 10 edits of each task, ranked by CLIP in four ways. How often the judge accepts the first
    one, the best fifth, the worst fifth; and how much of the mask the first one's thing fills, as a share of what the
    truth's fills.
    """
    rows = {label: [] for label in (*RANKINGS, "by chance")}
    for k, tasks in blocks(n, model, "rankings"):
        made = torch.stack([guided(model, clip, tasks, RESULTS * k + j) for j in range(RESULTS)], dim=1)  # (n,10,3,H,W)
        right = torch.stack([metrics.precision(judge, images, tasks)[0] for images in made.unbind(1)], dim=1)  # (n,10)
        full = torch.stack([complete(judge, images, tasks) for images in made.unbind(1)], dim=1)
        for i, prompt in enumerate(tasks.prompts):
            for label, how in RANKINGS.items():
                order, _ = rank(made[i], prompt, clip, tasks.mask[i : i + 1], **how)
                rows[label].append(_ranked(right[i], full[i], order))
            rows["by chance"].append(_ranked(right[i], full[i], list(range(RESULTS))))
    return {label: joined(parts) for label, parts in rows.items()}


def _ranked(right, full, order):
    fifth = RESULTS // 5
    return {
        "the first is right": right[order[:1]],
        "best fifth (share right)": right[order[:fifth]].float().mean()[None],
        "worst fifth (share right)": right[order[-fifth:]].float().mean()[None],
        "completeness of the first (share)": full[order[:1]],
    }


def complete(judge, images, tasks):
    """(n,) how much of the mask the prompted thing fills, as a share of what the truth's fills; at most 1."""
    names = torch.tensor([1 + world.KINDS.index(kind) for kind in tasks.kind])[:, None, None]
    shares = [((judge(x).kinds().cpu() == names) * tasks.mask[:, 0]).sum((1, 2)) for x in (images, tasks.truth)]
    return (shares[0] / shares[1].clamp(min=1)).clamp(max=1)
