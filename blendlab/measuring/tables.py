"""What is measured: one function for each table of the course.

A table is a function of n and of models, decorated with `measured`, that returns {row: {column:
outcomes}}. Outcomes are a tensor with one for each task, in order, or (value, low, high) ready
made. A column that ends with a unit in brackets, as in "background (dB)", holds numbers; others
hold shares. The modules beside this one hold more of them. Next: metrics.py.
"""

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
import torch.nn.functional as F

from .. import cards, door, masks, viz, world
from ..latents import decode, encode
from ..networks import load as networks
from ..networks.judge import SIZE, per_object
from ..noise import Noise
from ..papers.blended_latent import FALLBACK, blended_latent
from ..rank import look, read
from ..walk import Drawing, Walk
from . import metrics


@dataclass(frozen=True)
class Recipe:
    """How a table is made: function(n, *models), with the models named, for n tasks unless told."""

    function: Callable
    n: int
    needs: tuple[str, ...]

    @property
    def what(self) -> str:
        """What the table says: the first paragraph of the function's docstring."""
        return " ".join((self.function.__doc__ or "").split("\n\n")[0].split())


def measured(n: int, *needs: str):
    """Make the decorated function the table of its name; results.py collects them."""

    def register(function):
        function.recipe = Recipe(function, n, needs)
        return function

    return register


# The tables


@measured(200, "tinyworld", "tinyworld-judge")
def edits(n, pipe, judge):
    """Latent edits with the recommended settings: does the judge see the prompted object in the
    mask, and what changed outside it? Ceiling and floor are the truth and the source behind the
    same autoencoder.

    "class" is the batch precision of 2206.02779, table 1. Time: autoencoder, text encoder and all
    steps.
    """
    ours, ceiling, floor = [], [], []
    for k, tasks in blocks(n, pipe, "edits"):
        edit = edited(pipe, tasks, k)
        exact = {"latent outside exact": _left(pipe, edit, tasks) == 0}
        ours.append(
            seen_inside(judge, edit.tensor, tasks) | seen_outside(edit.tensor, tasks) | exact
        )
        ceiling.append(seen_inside(judge, reconstructed(pipe, tasks.truth), tasks))
        floor.append(seen_inside(judge, reconstructed(pipe, tasks.image), tasks))
    time = {
        f"an edit, {batch} at once (s)": _seconds(pipe, batch, repeats=min(n, 5))
        for batch in (1, 4)
    }
    rows = {"blended_latent": joined(ours) | time}
    return rows | {"ceiling: the truth": joined(ceiling), "floor: the source": joined(floor)}


BLENDINGS = {
    "default": {},
    "level='t', final='noised'": dict(level="t", final="noised"),
    "preset='official-ldm'": dict(preset="official-ldm"),
    "preset='official-sd2'": dict(preset="official-sd2"),
    "preset='diffusers'": dict(preset="diffusers"),
    "start='noise'": dict(start="noise"),
}


@measured(200, "tinyworld", "tinyworld-judge")
def blending(n, pipe, judge):
    """What implementations of blending disagree on: how far the final latent ends from the source's
    outside the mask, and what that does to the picture. Same tasks, noise, w and steps in every
    row, DDIM, the whole picture; the source's latent is the posterior's mode.
    """
    numbers = FALLBACK | cards.settings(pipe, "blended_latent")
    same = dict(w=numbers["w"], steps=numbers["steps"], eta=0.0, posterior="mode", window=0)
    rows = {}
    for label, how in BLENDINGS.items():
        parts = []
        for k, tasks in blocks(n, pipe, label):
            edit = edited(pipe, tasks, k, **same, **how)
            left = {"left in the latent (rms)": _left(pipe, edit, tasks)}
            parts.append(
                left | seen_outside(edit.tensor, tasks) | seen_inside(judge, edit.tensor, tasks)
            )
        rows[label] = joined(parts)
    return rows


@measured(2000, "tinyworld", "tinyworld-judge")
def judge(n, pipe, judge):
    """How often the judge is right about an object: in renders, and in what the autoencoder makes
    of them, which is the ceiling of every precision that it measures. At least n objects of
    held-out scenes, each of 0.6% of its picture or more.
    """
    tallies = {"renders": Counter(), "reconstructions": Counter()}
    with progress(n, "judge", "object") as bar:
        for view in _views(pipe):
            seen = (
                F.interpolate(view.masks, (SIZE, SIZE), mode="area"),
                view.scenes.kind,
                view.scenes.colour,
            )
            tallies["renders"].update(per_object(judge, view.image, *seen))
            tallies["reconstructions"].update(
                per_object(judge, reconstructed(pipe, view.image), *seen)
            )
            bar.update(tallies["renders"]["objects"] - bar.n)
            if bar.n >= n:
                break
    share = lambda tally, what: metrics.proportion(tally[what], tally["objects"])  # noqa: E731
    return {
        label: {"class": share(t, "kind"), "colour": share(t, "colour")}
        for label, t in tallies.items()
    }


@measured(500, "tinyworld")
def autoencoder(n, pipe):
    """What the autoencoder alone loses: the PSNR of held-out scenes that it encoded and decoded, of
    each picture, then the mean; and the same of the pixels that show objects, where there are any.
    """
    whole, objects = [], []
    with progress(n, "autoencoder", "picture") as bar:
        for view in _views(pipe):
            image, there = view.image[: n - bar.n], view.masks[: n - bar.n].sum(1, keepdim=True)
            result = reconstructed(pipe, image)
            whole.append(metrics.psnr(result, image).cpu())
            ground = 1 - there
            some = ground.flatten(1).amin(1) < 1  # (B,) scenes with objects
            error = metrics.background_error(result[some], image[some], ground[some])
            objects.append(metrics.decibels(error).cpu())
            bar.update(len(image))
            if bar.n >= n:
                break
    return {"tinyworld": {"PSNR (dB)": torch.cat(whole), "objects (dB)": torch.cat(objects)}}


@measured(500, "tinyworld", "tinyworld-judge")
def text_to_image(n, pipe, judge):
    """Pictures from words alone, with the recommended settings: how often the judge finds every
    object that the caption of a held-out scene names, wherever it stands.
    """
    return {
        label: _right(n, objects, pipe, judge, label)
        for label, objects in {"one object": 1, "two objects": 2}.items()
    }


def _right(n, objects, pipe, judge, label):
    """Of n captions of so many objects: are all there, and in their colours?"""
    right = []
    with progress(n, label, "picture") as bar:
        for k, scenes in enumerate(_scenes(n, objects)):
            made = _from_words(pipe, world.captions(scenes, setting=0.0), seed=k)
            right += [_shows(seen, scenes, i) for i, seen in enumerate(judge.found(made))]
            bar.update(len(scenes))
    return dict(zip(("class", "class and colour"), torch.tensor(right).unbind(1), strict=True))


OPTIMIZERS = {"AdamW, lr 8e-4": "adamw", "Muon, lr 2e-3": "muon"}


@measured(128, "tinyworld", "tinyworld-judge")
def optimizers(n, shipped, judge):
    """Two optimizers, 20 minutes of one core each, from nothing: pictures of one object from words
    alone, as in text_to_image. Beside them the shipped network, which had hours, and a GPU.

    The two do not ship: `blendlab train latent --minutes 20 --lr 8e-4 --set optimizer=adamw --out
    runs/latent-adamw`, and the same with 2e-3 and muon.
    """
    folders = {label: unshipped(f"latent-{how}", optimizers) for label, how in OPTIMIZERS.items()}
    made = {
        label: networks.load(str(folder), device=shipped.unet.device)
        for label, folder in folders.items()
    }
    made |= {"shipped": shipped}
    return {label: _right(n, 1, pipe, judge, label) for label, pipe in made.items()}


class Unshipped(FileNotFoundError):
    """A table needs networks that do not ship; the sentence says how to train them."""


def unshipped(name, recipe) -> Path:
    """The folder of a network that a table compares, and that you train yourself."""
    folder = Path(f"runs/{name}/export")
    if not folder.is_dir():
        raise Unshipped(
            f"{folder} is missing: it does not ship; train it as {recipe.__module__}."
            f"{recipe.__name__} says"
        )
    return folder


def _shows(seen, scenes, i):
    """Are all objects of scene i among those that were found: as classes, and in colour?"""
    kinds = [world.KINDS[k] for k in scenes.kind[i].tolist() if k >= 0]
    wanted = Counter(
        (kind, world.COLOURS[c]) for kind, c in zip(kinds, scenes.colour[i].tolist(), strict=False)
    )
    pairs = Counter((one.kind, one.colour) for one in seen)
    return not Counter(kinds) - Counter(one.kind for one in seen), not wanted - pairs


@measured(1000, "tinyworld-clip")
def clip(n, model):
    """How often CLIP puts the right one of 100 different captions first: of whole held-out scenes,
    and of one object in its box, on grey as guidance sees it and on black as ranking does.
    """
    device, right = (
        next(model.model.parameters()).device,
        {"scenes": [], "objects on grey": [], "objects on black": []},
    )
    with progress(n, "clip", "picture") as bar:
        for start in range(0, n, 100):
            scenes = world.sample(400, world.HELD_OUT, start=4 * start, device=device)
            scenes = scenes[scenes.count > 0]
            first = torch.zeros(len(scenes), dtype=torch.long)
            for names, texts in {
                "scenes": world.captions(scenes),
                "objects": world.describe(scenes, first),
            }.items():
                rows = _distinct(texts)[:100]  # the right one of these, also if fewer are asked
                view = world.render(scenes[rows], model.size)
                box = metrics.box_mask(view.boxes[:, 0], model.size)
                words, each = (
                    read(model, [texts[i] for i in rows]),
                    torch.arange(len(rows), device=device),
                )
                shown = {"scenes": view.image, "objects on grey": view.image * box}
                shown["objects on black"] = (view.image + 1) * box - 1
                for label in (label for label in shown if label.startswith(names)):
                    seen = look(model, (shown[label] + 1) / 2)
                    hits = (seen @ words.T).argmax(1) == each
                    right[label].append(hits[: n - start].cpu())
            bar.update(min(100, n - start))
    return {label: {"right of 100": torch.cat(parts)} for label, parts in right.items()}


def _distinct(texts):
    """The places of texts that did not come before."""
    return [i for i, text in enumerate(texts) if text not in texts[:i]]


# What the tables share


def progress(n, label, unit):
    from tqdm import tqdm

    return tqdm(total=n, desc=label, unit=unit)


def side(pipe):
    return pipe.unet.config.sample_size * getattr(pipe, "vae_scale_factor", 1)


def is_simple(pipe):
    """Whether a model was trained on the simple world only."""
    return cards.card(pipe).get("world") == "simple"


def blocks(n, pipe, label, seed=world.HELD_OUT):
    """Yield (k, tasks) block by block. With k as the seed, task i's noise is the same for any n."""
    with progress(n, label, "task") as bar:
        for k, start in enumerate(range(0, n, metrics.BLOCK)):
            tasks = metrics.tasks(
                min(metrics.BLOCK, n - start), start, seed, side(pipe), is_simple(pipe)
            )
            yield k, tasks
            bar.update(len(tasks))


def _views(pipe, at_once=32):
    """Yield views of held-out scenes without end, on the pipeline's device."""
    for start in count(0, at_once):
        yield world.render(world.sample(at_once, world.HELD_OUT, start, pipe.device), side(pipe))


def _scenes(n, objects):
    """Yield n held-out scenes with so many objects, a block at a time."""
    made = 0
    for start in count(0, 8 * metrics.BLOCK):
        scenes = world.sample(8 * metrics.BLOCK, world.HELD_OUT, start)
        scenes = scenes[scenes.count == objects][: min(metrics.BLOCK, n - made)]
        yield scenes
        made += len(scenes)
        if made >= n:
            return


@torch.no_grad()
def _from_words(pipe, captions, seed):
    """Pictures (n,3,H,W) of captions, with the settings that the model recommends for edits."""
    numbers = FALLBACK | cards.settings(pipe, "blended_latent")
    how = Drawing(**{name: numbers[name] for name in ("w", "steps", "eta")})
    initial, fresh = (
        Noise(seed, len(captions), purpose, pipe.device, shape=door.state_shape(pipe))
        for purpose in ("initial", "step")
    )
    return decode(pipe.vae, Walk.of(pipe, captions, how).down(initial(), fresh))


def edited(pipe, tasks, seed, **options):
    return blended_latent(
        pipe, tasks.image, tasks.mask, tasks.prompts, n=len(tasks), seed=seed, **options
    )


def reconstructed(pipe, images):
    return decode(pipe.vae, encode(pipe.vae, images.to(pipe.device)))


def seen_inside(judge, images, tasks):
    return dict(
        zip(("class", "class and colour"), metrics.precision(judge, images, tasks), strict=True)
    )


def seen_outside(images, tasks):
    error = metrics.background_error(images.cpu(), tasks.image, tasks.mask)
    return {"background (dB)": metrics.decibels(error.clamp(min=1e-4))}  # 80 dB is exact


def kept_inside(images, plain, tasks):
    """How near the inside stays to that of `plain`, the edit as it was decoded."""
    error = metrics.rms((images - plain).cpu() / 2, tasks.mask)
    return {"edit kept (dB)": metrics.decibels(error.clamp(min=1e-4))}


def _left(pipe, edit, tasks):
    """(n,) root mean square distance of the final latents from the source's, outside the masks."""
    source = encode(
        pipe.vae, tasks.image.to(pipe.device)
    )  # (n,C,h,w), all at once as blended_latent does
    mask_small = masks.to_latent(tasks.mask, source.shape[-2:], edit.settings["mask_rule"])
    return metrics.rms((edit.latents - source).cpu(), 1 - mask_small)


def _seconds(pipe, batch, repeats):
    """What one edit of a batch takes, measured `repeats` times after a first batch to warm up."""
    tasks, times = metrics.tasks(batch, size=side(pipe)), []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        edited(pipe, tasks, 0).tensor.cpu()  # waits for a GPU
        times.append((time.perf_counter() - start) / batch)
    return metrics.mean(times[1:])


def joined(parts):
    return {column: torch.cat([part[column] for part in parts]) for column in parts[0]}


def part(tasks, rows):
    """The tasks of some rows, a range or a list of numbers."""
    rows = list(rows)
    values = (getattr(tasks, name) for name in tasks.__dataclass_fields__)
    return metrics.Tasks(
        *([v[i] for i in rows] if isinstance(v, list) else v[rows] for v in values)
    )


def parts_of(tasks, label):
    """Yield (k, tasks) block by block of tasks that are there; `blocks` makes them."""
    with progress(len(tasks), label, "task") as bar:
        for k, start in enumerate(range(0, len(tasks), metrics.BLOCK)):
            some = part(tasks, range(len(tasks))[start : start + metrics.BLOCK])
            yield k, some
            bar.update(len(some))


def timed(make, *given, **how):
    """What make(...) gives for a batch, and how many seconds each of its pictures took."""
    start = time.perf_counter()
    images = make(*given, **how)
    return images, (time.perf_counter() - start) / len(images)


def seconds_each(times):
    """Their mean as a column of a table; of so few batches no interval."""
    return {"time (s)": (sum(times) / len(times), math.nan, math.nan)}


# Figures

SHOWN = 5  # tasks in a figure


def columns(tasks, shown, truth=None):
    """A row for each of the first tasks: picture and mask under the prompt, then `shown`."""
    shown = shown | ({truth: tasks.truth} if truth else {})
    count_ = min(SHOWN, len(tasks))
    size = tasks.image.shape[-1]
    times = (viz.WIDTH - 8 * len(shown)) // (len(shown) + 1) // size
    width = max(times, 1) * size  # many columns make a figure wider than a page
    pictures, titles = [], []
    for i in range(count_):
        pictures += [viz.overlay(tasks.image[i : i + 1], tasks.mask[i : i + 1], width)]
        pictures += [images[i : i + 1] for images in shown.values()]
        titles += [tasks.prompts[i]] + [label if i == 0 else "" for label in shown]
    return viz.show(pictures, titles, columns=1 + len(shown))
