"""What Paint by Example (2211.13227) claims, and what its options do: tables for notebook 06, on tinyworld.

Tasks, seeds and settings are the same in all rows of a table, except for what a row's label says. The world renders
the truth: the reference's own thing, in the light and at the place of the picture. Next: ../training/exemplar.py.
"""

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from .. import metrics, models, viz, world
from ..clip_guidance import warp
from ..phenomena import columns, frame, nearest, painted, part, parts_of, pattern_of, references, similarity
from ..tables import edited, measured, seen_inside, side


def common(judge, images, tasks):
    error = metrics.rms((images - tasks.truth) / 2, tasks.mask)
    return seen_inside(judge, images, tasks) | {"error to the truth (share of range)": error}


# What is put where


WEIGHTS = (1.0, 2.0, 3.0, 5.0, 8.0, 12.0)


@measured(48, "tinyworld-exemplar", "tinyworld-clip", "tinyworld-judge")
def exemplar_guidance(n, pipe, clip, judge):
    """The weight of the reference: how like it the result is (CLIP between the two crops), how often the judge sees its
    class and colour, how far it is from the truth.
    """
    tasks, box, reference, *_ = references(n, side(pipe))
    rows = {}
    for w in WEIGHTS:
        images = painted(pipe, tasks, reference, f"w = {w:g}", w=w)
        alike = {"CLIP similarity (cos)": similarity(clip, images, box, reference)}
        rows[f"w = {w:g}"] = common(judge, images, tasks) | alike
    return rows


PASTES = {
    "as published": {},
    "the latent put back": {"paste": "latent"},
    "the pixels put back": {"paste": "pixels"},
    "mask channel bilinear (official code)": {"mask_channel": "bilinear"},
}


@measured(48, "tinyworld-exemplar", "tinyworld-judge")
def exemplar_borders(n, pipe, judge):
    """The border between result and picture, and what is outside it: as the network paints it, with the source's latent
    or pixels put back, and with the other way to bring the mask to latent size. The seam is 1 where there is none.
    """
    tasks, _, reference, pasted, *_ = references(n, side(pipe))
    made = {label: painted(pipe, tasks, reference, label, **how) for label, how in PASTES.items()}
    rows = {}
    for label, images in (made | {"cut out and pasted": pasted, "the truth": tasks.truth}).items():
        error = metrics.background_error(images, tasks.image, tasks.mask).clamp(min=1e-4)  # 80 dB is exact
        edge = {"seam (1 is none)": metrics.seam(images, tasks.mask), "background (dB)": metrics.decibels(error)}
        rows[label] = common(judge, images, tasks) | edge
    return rows


@measured(64, "tinyworld-exemplar", "tinyworld-judge")
def exemplar_masks(n, pipe, judge):
    """Boxes against masks of any shape (the box's sides bent and trembling, as in training), and by how large the box
    is: less than an eighth of the picture, or more.
    """
    from ..training.exemplar import hole

    tasks, box, reference, *_ = references(n, side(pipe))
    draws = torch.rand(n, 9 + 4 * 18, generator=torch.Generator().manual_seed(0))  # a row for each task
    u, shake = draws[:, :9], draws[:, 9:].unflatten(1, (4, 18))
    u[:, 8] = 0  # all of them bent
    bent = replace(tasks, mask=hole(box, u, shake, side(pipe)))
    images = painted(pipe, tasks, reference, "boxes")
    rows = {"boxes": common(judge, images, tasks)}
    rows["masks of any shape"] = common(judge, painted(pipe, bent, reference, "any shape"), tasks)
    small = tasks.mask.mean((1, 2, 3)) < 1 / 8
    for label, chosen in (("the smaller boxes", small), ("the larger boxes", ~small)):
        some = chosen.nonzero()[:, 0].tolist()
        rows[label] = common(judge, images[some], part(tasks, some))
    return rows


SIZES = (8, 16, 32, 128)


@measured(48, "tinyworld-exemplar", "tinyworld-judge")
def exemplar_sizes(n, pipe, judge):
    """References of few pixels: the side of the square that is kept of each, before CLIP sees it enlarged."""
    tasks, _, reference, _, truths, _ = references(n, side(pipe))
    pattern, rows = pattern_of(tasks), {}
    for size in SIZES:
        small = F.interpolate(reference, (size, size), mode="area") if size < reference.shape[-1] else reference
        images = painted(pipe, tasks, small, f"{size} pixels")
        right = (nearest(images, truths, tasks.mask) == pattern)[pattern > 0]
        rows[f"{size} pixels"] = common(judge, images, tasks) | {"stripes and spots right": right}
    return rows


# What it says


@measured(200, "tinyworld-exemplar", "tinyworld", "tinyworld-judge")
def exemplar_attributes(n, pipe, words, judge):
    """What a reference says that words do not: of three truths (plain, striped, spotted) and of eight (one for each
    accent colour), is the right one the nearest to the result? By reference, and by words that name class and colour
    only, or all that a rich caption says.
    """
    tasks, _, reference, _, truths, _ = references(n, side(pipe))
    slot, pattern = tasks.slot, pattern_of(tasks)
    accent = tasks.scenes.accent[torch.arange(n), slot]
    accents = torch.stack([world.render(world.changed(tasks.scenes, slot, accent=a), side(pipe)).image
                           for a in range(len(world.COLOURS))])  # fmt: skip
    rich = world.describe(tasks.scenes, slot, rich=True)
    results = {"by reference": painted(pipe, tasks, reference, "by reference")}
    for label, prompts in (("by words", tasks.prompts), ("by rich words", rich)):
        asked = parts_of(replace(tasks, prompts=prompts), label)
        results[label] = torch.cat([edited(words, some, k).tensor.cpu() for k, some in asked])
    table = {}
    for label, images in (results | {"the truth": tasks.truth}).items():
        table[label] = common(judge, images, tasks) | {
            "pattern right (of 3)": nearest(images, truths, tasks.mask) == pattern,
            "accent right (of 8)": nearest(images, accents, tasks.mask) == accent,
        }
    return table, viz.show(list(reference[:6]) + [x[i] for x in results.values() for i in range(min(6, n))], columns=6)


@measured(48, "tinyworld-exemplar")
def exemplar_identity(n, pipe):
    """What one token cannot hold: the word on a sign. Of four truths with other words the right one is the nearest to
    the result (by chance: 25%), by reference and by pasting it.
    """
    words, empty = torch.arange(n) % 4, world.sample(n, world.HELD_OUT + 21)
    empty = replace(empty, kind=torch.full_like(empty.kind, -1))
    place = dict(kind="sign", colour="blue", accent="white", x=0.5, y=0.6, size=0.28)
    signs = [world.added(empty, **place, word=(words + k) % 4) for k in range(4)]  # the first has the right word
    views = [world.render(scenes, side(pipe)) for scenes in signs]
    images, box = torch.stack([view.image for view in views]), views[0].boxes[:, 0]
    source, mask = world.render(empty, side(pipe)).image, metrics.box_mask(box, side(pipe))
    reference = warp(world.render(signs[0], 2 * side(pipe)).image, frame(box))
    pasted = torch.where(mask > 0, F.interpolate(warp(reference, frame(box).inverse()), source.shape[-2:]), source)
    tasks = metrics.Tasks(source, mask, images[0], signs[0], empty.count, [""] * n, [""] * n, [""] * n)
    made = painted(pipe, tasks, reference, "signs")
    rows = {label: {"the right word is nearest": nearest(x, images, mask) == 0}
            for label, x in (("by reference", made), ("pasted", pasted))}  # fmt: skip
    return rows, viz.show([x[i] for x in (source, reference, made) for i in range(min(6, n))], columns=6)


# How it is trained


LADDER = {
    "all tokens": ("tokens", {"w": 1.0}),
    "+ augmentation": ("augmented", {"w": 1.0}),
    "+ class token, null vector": ("full", {"w": 1.0}),
    "the same, w = 2": ("full", {"w": 2.0}),
}
LOSSES = 32  # batches of training data whose loss is measured


@measured(96, "tinyworld-exemplar", "tinyworld-clip", "tinyworld-judge")
def ladder(n, shipped, clip, judge):
    """The paper's ladder (table 3), each rung trained for 800 steps from the text-to-image model: the loss on its
    own training data, and what it makes of held-out references in another light and tilt. The shipped network has the
    last rung's training, and more of it. CLIP similarity is highest where the reference itself is pasted.

    The rungs do not ship. For each of tokens, augmented, full: `blendlab train exemplar --steps 800 --set rung=RUNG
    --out runs/exemplar-RUNG`.
    """
    tasks, box, reference, pasted, _, where = references(n, side(shipped))
    rows, made = {}, {}
    for label, (rung, how) in LADDER.items():
        folder = Path(f"runs/exemplar-{rung}/export")
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not there: the rungs do not ship; train them as {__name__} says")
        network = models.load(str(folder), device=shipped.unet.device)
        made[label] = painted(network, tasks, reference, label, **how)
        if how["w"] == 1:
            rows[label] = {"training loss (v)": training_loss(rung, folder)}
    made |= {"shipped": painted(shipped, tasks, reference, "shipped")}
    for label, images in (made | {"cut out and pasted": pasted, "the truth": tasks.truth}).items():
        near, far = (metrics.rms((images - other) / 2, where) for other in (pasted, tasks.truth))
        copies = {} if label in ("cut out and pasted", "the truth") else {"nearer to the pasted thing": near < far}
        alike = {"CLIP similarity (cos)": similarity(clip, images, box, reference)}
        rows[label] = rows.get(label, {}) | copies | alike | common(judge, images, tasks)
    return rows, columns(tasks, {"reference": reference} | made, truth="the truth")


@torch.no_grad()
def training_loss(rung, folder):
    """The mean error of v on a rung's own training data, new to it, over LOSSES batches."""
    from ..training.exemplar import Exemplar

    job = Exemplar(rung=rung, seed=1, pool=1024)
    job.load(folder)
    job.net.eval()
    job.fill(0)
    return metrics.mean([job.loss(job.batch(job.whole * k))["v"].item() for k in range(LOSSES)])
