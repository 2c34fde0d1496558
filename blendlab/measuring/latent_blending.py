"""What Blended Latent Diffusion (2206.02779) claims: tables for notebooks 03 to 05.

Tasks, seeds and settings are the same in all rows of a table, except for what a row's label says.
Next: tables.py, whose helpers these use, and ../papers/decoder.py, which most of them measure.
"""

from dataclasses import replace
from itertools import count

import torch
import torch.nn.functional as F

from .. import masks, viz, world
from ..attention import hooked
from ..papers.decoder import METHODS, reconstruct
from ..rank import rank
from . import metrics
from .pixel_blending import clips_word, guided, pleased
from .tables import (
    blocks,
    columns,
    edited,
    joined,
    kept_inside,
    measured,
    part,
    parts_of,
    progress,
    reconstructed,
    seconds_each,
    seen_inside,
    seen_outside,
    side,
    timed,
)

# Latents against pixels


@measured(48, "tinyworld", "tinyworld-pixel", "tinyworld-clip", "tinyworld-judge")
def spaces(n, pipe, model, clip, judge):
    """The same tasks in latents, where words guide, and in pixels, where CLIP does: precision,
    background, seconds an edit (16 at once), and adversarial examples: edits that please CLIP as
    much as the truth does, and of these the ones in which the judge does not see the object.
    """
    methods = {
        "latents": lambda tasks, k: edited(pipe, tasks, k).tensor.cpu(),
        "pixels, CLIP guides": lambda tasks, k: guided(model, clip, tasks, k),
    }
    rows, seconds, figure = {label: [] for label in methods}, {label: [] for label in methods}, None
    for k, tasks in blocks(n, model, "spaces"):  # of the world that the pixel model knows
        made = {}
        for label, method in methods.items():
            made[label], time_each = timed(method, tasks, k)
            seen, error = seen_inside(judge, made[label], tasks), metrics.background_error
            liked = pleased(clip, made[label], tasks)
            seen |= {
                "CLIP as pleased as by the truth": liked,
                "CLIP is fooled": liked & ~seen["class"],
            }
            seen["background (dB)"] = metrics.decibels(
                error(made[label], tasks.image, tasks.mask).clamp(min=1e-6)
            )
            rows[label].append(seen | clips_word(clip, made[label], tasks))
            seconds[label].append(time_each)
        figure = figure or columns(tasks, made, truth="the truth")
    return {
        label: joined(parts) | seconds_each(seconds[label]) for label, parts in rows.items()
    }, figure


@measured(64, "tinyworld")
def sensitivity(n, pipe):
    """How much an edit changes inside the mask when its input changes a little: from the same noise
    another colour word, a mask wider by one pixel, a picture brighter by two grey levels; and from
    another noise.
    """
    rows = {}
    for k, tasks in blocks(n, pipe, "sensitivity"):
        plain = edited(pipe, tasks, k).tensor.cpu()
        each = torch.arange(len(tasks))
        colour = (tasks.scenes.colour[each, tasks.slot] + 1) % len(world.COLOURS)
        other = world.describe(world.changed(tasks.scenes, tasks.slot, colour=colour), tasks.slot)
        changes = {
            "another noise": (tasks, 1000 + k),
            "another colour word": (replace(tasks, prompts=other), k),
            "a mask wider by a pixel": (replace(tasks, mask=masks.dilate(tasks.mask, 1)), k),
            "two grey levels brighter": (
                replace(tasks, image=(tasks.image + 2 / 127.5).clamp(-1, 1)),
                k,
            ),
        }
        for label, (changed, seed) in changes.items():
            gap = metrics.rms((edited(pipe, changed, seed).tensor.cpu() - plain) / 2, tasks.mask)
            rows.setdefault(label, []).append({"change inside (share of range)": gap})
    return {label: joined(parts) for label, parts in rows.items()}


@measured(100, "tinyworld", "tinyworld-clip", "tinyworld-judge")
def latent_ranking(n, pipe, clip, judge, results=8):
    """What ranking is worth for latent edits: 8 results of each task, and of these the one that
    CLIP likes best (in the mask, or in the whole picture too), the one that it likes least, and one
    by chance. And the best of only four.
    """
    labels = ("first by the mask", "first by both", "last by the mask", "best of 4", "by chance")
    rows = {label: [] for label in labels}
    for k, tasks in blocks(n, pipe, "latent_ranking"):
        made = torch.stack(
            [edited(pipe, tasks, results * k + j).tensor.cpu() for j in range(results)], dim=1
        )
        right = [metrics.precision(judge, images, tasks) for images in made.unbind(1)]
        right = torch.stack([torch.stack(pair, dim=1) for pair in right], dim=1)  # (n,8,2)
        for i, prompt in enumerate(tasks.prompts):
            mask = tasks.mask[i : i + 1]
            by_mask, by_both = (
                rank(made[i], prompt, clip, mask, view)[0] for view in ("mask", "both")
            )
            of_4 = next(j for j in by_mask if j < 4)
            for label, j in zip(rows, (by_mask[0], by_both[0], by_mask[-1], of_4, 0), strict=True):
                rows[label].append(
                    dict(zip(("class", "class and colour"), right[i, j, :, None], strict=True))
                )
    return {label: joined(parts) for label, parts in rows.items()}


# The background


@measured(24, "tinyworld", "tinyworld-judge")
def reconstructions(n, pipe, judge):
    """Six ways to bring the source back outside the mask, in scenes with a face or a word beside
    it: how near the background is to the source, how near the edit to what was decoded, how much
    fine detail (the energy of what a blur of 5 pixels takes away) both have, against the source's
    and the decoded edit's; the seam; seconds a picture.
    """

    def again(edit, tasks, method):
        return reconstruct(pipe, edit, tasks.image, tasks.mask, method=method).tensor.cpu()

    rows, seconds = ({label: [] for label in METHODS} for _ in range(2))
    tasks, figure = detailed(n, side(pipe)), None
    for k, some in parts_of(tasks, "reconstructions"):
        edit, film = edited(pipe, some, k), {}
        plain = edit.tensor.cpu()
        for label in METHODS:
            film[label], time_each = timed(again, edit, some, label)
            rows[label].append(
                _put_back(film[label], plain, some) | seen_inside(judge, film[label], some)
            )
            seconds[label].append(time_each)
        figure = figure or columns(some, film)
    return {
        label: joined(parts) | seconds_each(seconds[label]) for label, parts in rows.items()
    }, figure


def _put_back(images, plain, tasks):
    inside, outside = tasks.mask, 1 - tasks.mask
    return {
        **seen_outside(images, tasks),
        **kept_inside(images, plain, tasks),
        "detail outside (share of source's)": fine(images, outside) / fine(tasks.image, outside),
        "detail inside (share of edit's)": fine(images, inside) / fine(plain, inside),
        "seam (1 is none)": metrics.seam(images, inside),
    }


def detailed(n, size, seed=world.HELD_OUT + 17):
    """Tasks with a face (even) or a sign (odd) on the left, and a box on the right."""
    each = torch.arange(n)
    before = world.sample(n, seed)
    before = replace(before, kind=torch.full_like(before.kind, -1))
    kind = torch.tensor([world.KINDS.index(("face", "sign")[i % 2]) for i in range(n)])
    left = dict(kind=kind, colour=each % len(world.COLOURS), accent=(each + 3) % len(world.COLOURS))
    before = world.added(
        before, **left, word=each % len(world.SIGN_WORDS), x=0.27, y=0.6, size=0.26
    )
    new = [
        kind for kind in world.KINDS if kind not in ("face", "sign", "lamp", "fence", "lightning")
    ]
    kind = torch.tensor([world.KINDS.index(new[i % len(new)]) for i in range(n)])
    after = world.added(
        before,
        kind=kind,
        colour=(5 * each + 2) % len(world.COLOURS),
        accent=(each + 1) % len(world.COLOURS),
        x=0.74,
        y=0.62,
        size=0.22,
    )
    view = world.render(after, size)
    wider = torch.tensor([-metrics.MARGIN, -metrics.MARGIN, metrics.MARGIN, metrics.MARGIN])
    slot = torch.ones(n, dtype=torch.long)
    return metrics.Tasks(
        image=world.render(before, size).image,
        mask=metrics.box_mask((view.boxes[:, 1] + wider).clamp(0, 1), size),
        truth=view.image,
        scenes=after,
        slot=slot,
        prompts=world.describe(after, slot),
        kind=[world.KINDS[k] for k in kind.tolist()],
        colour=[world.COLOURS[c] for c in after.colour[:, 1].tolist()],
    )


TUNING = [dict(lam=lam) for lam in (0.0, 1.0, 10.0, 100.0, 1000.0)] + [
    dict(steps=s) for s in (10, 25, 150, 300)
]


@measured(12, "tinyworld")
def decoder_tuning(n, pipe):
    """Tuning the decoder: what the weight lambda of the background does (the paper: 100), and how
    many steps it takes (the recommended number where none is given).
    """
    tasks, rows = detailed(n, side(pipe)), {}
    edit = edited(pipe, tasks, 0)
    with progress(len(TUNING), "decoder_tuning", "setting") as bar:
        for how in TUNING:
            label = ", ".join(
                f"{'lambda' if name == 'lam' else name} {value:g}" for name, value in how.items()
            )
            images = reconstruct(
                pipe, edit, tasks.image, tasks.mask, method="weights", **how
            ).tensor.cpu()
            rows[label] = _put_back(images, edit.tensor.cpu(), tasks)
            bar.update(1)
    return rows


# Thin masks


THIN = ("lamp", "fence", "lightning")


@measured(144, "tinyworld", "tinyworld-judge")
def thin_masks(n, pipe, judge):
    """Edits whose mask is the outline of a thin object, in many places narrower than a latent cell.
    Plain: cells count whose middle is masked. Every cell: those that are touched at all. Dilated:
    those and one more on each side, for the first half of the steps. "survives" is the share of the
    mask in cells that count; where none counts, the picture stays as it was. Each edit runs in the
    window that its own mask needs.
    """
    hows = {
        "plain": {},
        "every cell": {"mask_rule": "any"},
        "every cell, dilated": {"mask_rule": "any", "shrink": 1},
    }
    tasks, rows, film = thin(n, side(pipe)), {}, []
    small = [s // pipe.vae_scale_factor for s in tasks.image.shape[-2:]]
    for label, how in hows.items():
        parts = []
        for k, some in parts_of(tasks, label):
            images = _where_left(pipe, some, k, small, how)
            parts.append(seen_inside(judge, images, some))
            film += [images] * (k == 0)
        each = [masks.survival(m[None], small, how.get("mask_rule", "centre")) for m in tasks.mask]
        rows[label] = joined(parts) | {"survives (share)": torch.tensor(each)}
    rows["ceiling: the truth"] = seen_inside(judge, reconstructed(pipe, tasks.truth), tasks)
    return rows, columns(tasks, dict(zip(hows, film, strict=True)), truth="the truth")


def _where_left(pipe, tasks, seed, small, how):
    """Edits (n,3,H,W); of tasks whose mask has no cell at latent size the source, decoded."""
    rule = how.get("mask_rule", "centre")
    left = (
        masks.to_latent(tasks.mask, small, rule, allow_empty=True)
        .flatten(1)
        .any(1)
        .nonzero()[:, 0]
        .tolist()
    )
    images = reconstructed(pipe, tasks.image)
    if left:
        images[left] = edited(pipe, part(tasks, left), seed, **how).tensor.to(images)
    return images


def thin(n, size, seed=world.HELD_OUT + 7, kinds=THIN):
    """Tasks of lamps, fences and flashes in turn, whose masks are their own outlines."""
    before = world.sample(4 * n + 16, seed)
    before = before[before.count < 2][:n]
    slot, each = before.count, torch.arange(n)
    kind = torch.tensor([world.KINDS.index(kinds[i % len(kinds)]) for i in range(n)])
    after = world.added(before, seed=seed, kind=kind, size=torch.full((n,), 0.3))
    view = world.render(after, size)
    return metrics.Tasks(
        image=world.render(before, size).image,
        mask=(view.masks[each, slot] > 0.5).float()[:, None],
        truth=view.image,
        scenes=after,
        slot=slot,
        prompts=world.describe(after, slot),
        kind=[world.KINDS[k] for k in kind.tolist()],
        colour=[world.COLOURS[c] for c in after.colour[each, slot].tolist()],
    )


UPRIGHT = ("tree", "lamp", "flower")
STROKES = (0.5, 1.0, 2.0)  # widths in latent cells


@measured(96, "tinyworld", "tinyworld-judge")
def strokes(n, pipe, judge):
    """Edits in straight upright strokes: does anything appear at all? Plain blending against the
    paper's 3 dilations, same noise, in the whole picture; all cells that a stroke touches count.
    Something appeared: inside the stroke the picture changed by more than 8% of the range from the
    decoded source. The judge looks into the stroke and one cell more on every side.
    """
    rows, cell = {}, pipe.vae_scale_factor
    for width in STROKES:
        tasks = upright(n, side(pipe), max(1, round(width * cell)))
        for label, shrink in {"plain": None, "3 dilations": 3}.items():
            name, parts = f"{width:g} cells wide, {label}", []
            for k, some in parts_of(tasks, name):
                how = dict(mask_rule="any", shrink=shrink, window=0)
                images = edited(pipe, some, k, **how).tensor.cpu()
                before = reconstructed(pipe, some.image).cpu()
                there = {"something appeared": metrics.appeared(images, before, some.mask)}
                wider = replace(some, mask=masks.dilate(some.mask, cell))
                parts.append(there | seen_inside(judge, images, wider))
            rows[name] = joined(parts)
    return rows


def upright(n, size, width, seed=world.HELD_OUT + 7):
    """Tasks of trees, lamps and flowers in turn, whose masks are strokes of `width` pixels."""
    tasks = thin(n, size, seed, UPRIGHT)
    slot = tasks.slot
    boxes = world.render(tasks.scenes, size).boxes[torch.arange(n), slot]  # (n,4) in fractions
    left = ((boxes[:, 0] + boxes[:, 2]) / 2 * size - width / 2).round().clamp(0, size - width)
    x, inside = torch.arange(size), torch.zeros(n, 1, size, size)
    for i, (_, top, _, bottom) in enumerate((boxes * size).round().int().tolist()):
        columns_ = (x >= left[i]) & (x < left[i] + width)
        inside[i, :, max(0, top) : max(top + 1, bottom), columns_] = 1
    return replace(tasks, mask=inside)


WIDER = (0, 1, 2, 4)  # pixels added to the outline on every side
SCHEDULES = {
    "no dilation": {},
    "first half, 1 cell": {"shrink": 1},
    "the paper's 3 dilations": {"shrink": 3},
    "5 dilations": {"shrink": 5},
}


@measured(36, "tinyworld", "tinyworld-judge")
def thickness(n, pipe, judge):
    """Edits in masks around lamps, fences and lightning, from their outline to 4 pixels more on
    every side, and how often the judge sees the prompted object: with plain blending, and with
    schedules that start from a wider mask. All cells that a mask touches count, so that none
    vanishes. Thickness: of the mask, on average, in latent cells.
    """
    rows, outlines, cell = {}, thin(n, side(pipe)), pipe.vae_scale_factor
    for pixels in WIDER:
        tasks = replace(outlines, mask=masks.dilate(outlines.mask, pixels))
        thick = torch.tensor([_thickness(mask) / cell for mask in tasks.mask[:, 0]])
        name = f"{pixels} pixels wider" if pixels else "the outline"
        for label, how in SCHEDULES.items():
            parts = [seen_inside(judge, edited(pipe, some, k, mask_rule="any", **how).tensor, some)
                     for k, some in parts_of(tasks, f"{name}, {label}")]  # fmt: skip
            rows[f"{name}, {label}"] = joined(parts) | {"thickness (cells)": thick}
        rows[f"{name}, the truth"] = seen_inside(judge, reconstructed(pipe, tasks.truth), tasks)
    return rows


def _thickness(mask):
    """The mean width of a mask (H,W) in pixels: four times the mean distance to its border."""
    from scipy.ndimage import distance_transform_edt

    inside = mask.numpy() > 0
    return 4 * float((distance_transform_edt(inside) - 0.5)[inside].mean())


# What the autoencoder loses, and light


@measured(100, "tinyworld")
def losses(n, pipe):
    """What the autoencoder loses where: PSNR, and the share of fine detail (the energy of what a
    blur of 5 pixels takes away) that comes back, in night skies full of stars, faces, the words of
    signs, and plain balls.
    """
    scenes = world.sample(n, world.HELD_OUT + 13)
    empty = replace(scenes, kind=torch.full_like(scenes.kind, -1))
    lone = dict(x=0.5, y=0.6, size=0.28, colour="yellow", accent="red")
    word = torch.arange(n) % len(world.SIGN_WORDS)
    parts = {
        "stars": world.elsewhere(empty, time="night"),
        "faces": world.added(empty, kind="face", **lone),
        "words": world.added(empty, kind="sign", word=word, **lone),
        "balls": world.added(empty, kind="ball", **lone),
    }
    rows, shown = {}, []
    for label, some in parts.items():
        view = world.render(some, side(pipe))
        mask = (view.masks[:, :1] > 0.5).float()  # (n,1,S,S)
        if label == "stars":
            height = torch.arange(mask.shape[-2])[:, None] / mask.shape[-2]
            mask = (height < 0.8 * some.horizon[:, None, None, None]).float().expand_as(mask)
        result = torch.cat([reconstructed(pipe, images).cpu() for images in view.image.split(32)])
        kept = fine(result, mask) / fine(view.image, mask)
        rows[label] = {
            "PSNR (dB)": metrics.decibels(metrics.rms((result - view.image) / 2, mask)),
            "detail kept": kept.clamp(max=1),
        }
        shown += [view.image[:1], result[:1], view.image[1:2], result[1:2]]
    titles = [title for label in parts for title in (label, "after the autoencoder") * 2]
    return rows, viz.show(shown, titles, columns=4)


def fine(images, mask):
    """(n,) energy of what a blur of 5 pixels takes away, inside the mask."""
    blurred = F.avg_pool2d(images, 5, 1, 2, count_include_pad=False)
    return metrics.rms(images - blurred, mask).square()


@measured(100, "tinyworld", "tinyworld-judge")
def light(n, pipe, judge):
    """An object from a sunny day in a scene at sunset or at night: cut out and pasted, against a
    blended edit of the same words that the judge accepts. How far the mean colour of the object is
    from the truth's, as a share of the range.
    """
    rows, figure = {"pasted": [], "blended": []}, []
    for k, tasks in _dark(n, pipe):
        each = torch.arange(len(tasks))
        noon = world.render(world.elsewhere(tasks.scenes, time="day"), side(pipe))
        where = (noon.masks[each, tasks.slot] > 0.5).float()[:, None]  # (n,1,S,S)
        pasted = torch.where(where > 0, noon.image, tasks.image)
        edit = edited(pipe, tasks, k).tensor.cpu()
        wanted = _colour(tasks.truth, where)
        rows["pasted"].append((_colour(pasted, where) - wanted).abs().mean(1) / 2)
        names = torch.tensor([1 + world.KINDS.index(kind) for kind in tasks.kind])
        found = judge(edit).kinds().cpu() == names[:, None, None]  # (n,64,64)
        there = F.interpolate(found[:, None].float(), edit.shape[-2:]) * tasks.mask
        right = torch.stack(metrics.precision(judge, edit, tasks)).all(0)
        rows["blended"].append(((_colour(edit, there) - wanted).abs().mean(1) / 2)[right])
        shown = {"cut out and pasted": pasted, "blended": edit}
        figure = figure or columns(tasks, shown, truth="the truth")
    return {
        label: {"off the truth's colour": torch.cat(parts)} for label, parts in rows.items()
    }, figure


def _dark(n, pipe, seed=world.HELD_OUT + 15):
    """Blocks of tasks by sunset and at night, n in all."""
    found, day = 0, world.TIMES.index("day")
    with progress(n, "light", "task") as bar:
        for k in count():
            tasks = metrics.tasks(metrics.BLOCK, k * metrics.BLOCK, seed, side(pipe))
            rows = (tasks.scenes.time != day).nonzero()[: n - found, 0].tolist()
            yield k, part(tasks, rows)
            found += len(rows)
            bar.update(len(rows))
            if found >= n:
                return


def _colour(images, mask):
    """(n,3) mean colour inside masks (n,1,H,W)."""
    return (images * mask).sum((2, 3)) / mask.sum((2, 3)).clamp(min=1)


# Options that help an edit into its mask, beside the window that is recommended; the others edit
# the whole picture, or enlarge a part. Passes repeat each step, also above a level only.
SAMPLING = {
    "plain": {},
    "window=64": dict(window=64),
    "three times the steps": dict(steps=75),
    "noises=8": dict(noises=8),
    "resamplings=3": dict(resamplings=3),
    "resamplings=6 above 400": dict(resamplings=6, resample_above=400),
    "noises=8, resamplings=6 above 400": dict(noises=8, resamplings=6, resample_above=400),
    "around=1.5": dict(around=1.5),
    "around=1.5, noises=8": dict(around=1.5, noises=8),
    "around=1.5, resamplings=6 above 400": dict(around=1.5, resamplings=6, resample_above=400),
    "all three": dict(around=1.5, noises=8, resamplings=6, resample_above=400),
}


@measured(64, "tinyworld", "tinyworld-judge")
def sampling(n, pipe, judge):
    """More from the same network: a noise chosen for the mask (noises), repeated steps
    (resamplings), an enlarged crop around the mask (around), alone and together, and a square
    around it at its own size (window). Calls are those of the network for one edit, with and
    without the words. Same tasks and seeds in every row.
    """
    rows = {}
    for label, how in SAMPLING.items():
        parts = []
        for k, tasks in blocks(n, pipe, label):
            seen = []  # how many rows each call of the network has
            with hooked({pipe.unet: lambda unet, x, _, seen=seen: seen.append(len(x[0]))}):
                images = _sampled(pipe, tasks, k, **how)
            calls = torch.full((len(tasks),), sum(seen) / 2 / len(tasks))
            parts.append(seen_inside(judge, images, tasks) | {"calls (of the network)": calls})
        rows[label] = joined(parts)
    return rows


def _sampled(pipe, tasks, seed, **how):
    """Edits of tasks; a crop around the mask is made for one picture at a time."""
    if "around" not in how:
        return edited(pipe, tasks, seed, **{"window": 0} | how).tensor
    each = (edited(pipe, part(tasks, [i]), seed, first=i, **how) for i in range(len(tasks)))
    return torch.cat([edit.tensor for edit in each])
