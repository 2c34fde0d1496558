"""What Blended Latent Diffusion (2206.02779) claims, and what its options do: tables for notebooks 03 to 05.

Tasks, seeds and settings are the same in all rows of a table, except for what a row's label says. Next: ../tables.py,
whose helpers these use, and ../decoder.py, which most of them measure.
"""

from dataclasses import replace

import torch

from .. import masks, metrics, world
from ..decoder import METHODS, reconstruct
from ..phenomena import clips_word, columns, fine, guided, parts_of, pleased, seconds_each, thin, timed
from ..rank import rank
from ..tables import blocks, edited, joined, measured, progress, reconstructed, seen_inside, side

# Latents against pixels


@measured(48, "tinyworld", "tinyworld-pixel", "tinyworld-clip", "tinyworld-judge")
def spaces(n, pipe, model, clip, judge):
    """The same tasks in latents, where words guide, and in pixels, where CLIP does: precision, background, seconds an
    edit (16 at once), and adversarial examples: edits that please CLIP as much as the truth does, and of these the
    ones in which the judge does not see the thing.
    """
    methods = {
        "latents": lambda tasks, k: edited(pipe, tasks, k).tensor.cpu(),
        "pixels, CLIP guides": lambda tasks, k: guided(model, clip, tasks, k),
    }
    rows, seconds, figure = {label: [] for label in methods}, {label: [] for label in methods}, None
    for k, tasks in blocks(n, model, "spaces"):  # of the world that the pixel model knows
        made = {}
        for label, method in methods.items():
            made[label], time_each = timed(lambda method=method, tasks=tasks, k=k: method(tasks, k))
            seen, error = seen_inside(judge, made[label], tasks), metrics.background_error
            liked = pleased(clip, made[label], tasks)
            seen |= {"CLIP as pleased as by the truth": liked, "but the judge is not": liked & ~seen["class"]}
            seen["background (dB)"] = metrics.decibels(error(made[label], tasks.image, tasks.mask).clamp(min=1e-6))
            rows[label].append(seen | clips_word(clip, made[label], tasks))
            seconds[label].append(time_each)
        figure = figure or columns(tasks, made, truth="the truth")
    return {label: joined(parts) | seconds_each(seconds[label]) for label, parts in rows.items()}, figure


@measured(64, "tinyworld")
def sensitivity(n, pipe):
    """How much an edit changes inside the mask when its input changes a little: from the same noise another colour
    word, a mask wider by one pixel, a picture brighter by two grey levels; and from another noise.
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
            "two grey levels brighter": (replace(tasks, image=(tasks.image + 2 / 127.5).clamp(-1, 1)), k),
        }
        for label, (changed, seed) in changes.items():
            gap = metrics.rms((edited(pipe, changed, seed).tensor.cpu() - plain) / 2, tasks.mask)
            rows.setdefault(label, []).append({"change inside (share of range)": gap})
    return {label: joined(parts) for label, parts in rows.items()}


@measured(32, "tinyworld", "tinyworld-clip", "tinyworld-judge")
def latent_ranking(n, pipe, clip, judge, results=8):
    """What ranking is worth for latent edits: 8 results of each task, and of these the one that CLIP likes best (in the
    mask, or in the whole picture too), the one that it likes least, and one by chance.
    """
    rows = {label: [] for label in ("first by the mask", "first by both", "last by the mask", "by chance")}
    for k, tasks in blocks(n, pipe, "latent_ranking"):
        made = torch.stack([edited(pipe, tasks, results * k + j).tensor.cpu() for j in range(results)], dim=1)
        right = [metrics.precision(judge, images, tasks) for images in made.unbind(1)]
        right = torch.stack([torch.stack(pair, dim=1) for pair in right], dim=1)  # (n,8,2)
        for i, prompt in enumerate(tasks.prompts):
            mask = tasks.mask[i : i + 1]
            by_mask, by_both = (rank(made[i], prompt, clip, mask, view)[0] for view in ("mask", "both"))
            for label, j in zip(rows, (by_mask[0], by_both[0], by_mask[-1], 0), strict=True):
                rows[label].append(dict(zip(("class", "class and colour"), right[i, j, :, None], strict=True)))
    return {label: joined(parts) for label, parts in rows.items()}


# The background


@measured(24, "tinyworld", "tinyworld-judge")
def reconstructions(n, pipe, judge):
    """Six ways to bring the source back outside the mask, in scenes with a face or a word beside it: how near the
    background is to the source, how near the edit to what was decoded, how much fine detail (the energy of what a blur
    of 5 pixels takes away) both have, against the source's and the decoded edit's; the seam; seconds a picture.
    """
    rows, seconds = ({label: [] for label in METHODS} for _ in range(2))
    tasks, figure = detailed(n, side(pipe)), None
    for k, some in parts_of(tasks, "reconstructions"):
        edit, film = edited(pipe, some, k), {}
        plain = edit.tensor.cpu()
        for label in METHODS:
            again = lambda label=label, edit=edit, some=some: (  # noqa: E731
                reconstruct(pipe, edit, some.image, some.mask, method=label).tensor.cpu())
            film[label], time_each = timed(again)
            rows[label].append(_put_back(film[label], plain, some) | seen_inside(judge, film[label], some))
            seconds[label].append(time_each)
        figure = figure or columns(some, film)
    return {label: joined(parts) | seconds_each(seconds[label]) for label, parts in rows.items()}, figure


def _put_back(images, plain, tasks):
    inside, outside = tasks.mask, 1 - tasks.mask
    error = metrics.background_error(images, tasks.image, tasks.mask).clamp(min=1e-4)  # 80 dB is exact
    kept = metrics.rms((images - plain) / 2, inside).clamp(min=1e-4)
    return {
        "background (dB)": metrics.decibels(error),
        "edit kept (dB)": metrics.decibels(kept),
        "detail outside (share of source's)": fine(images, outside) / fine(tasks.image, outside),
        "detail inside (share of edit's)": fine(images, inside) / fine(plain, inside),
        "seam (1 is none)": metrics.seam(images, inside),
    }


def detailed(n, size, seed=world.HELD_OUT + 17):
    """Tasks in scenes with a face (even) or a sign (odd) on the left, whose box on the right gets something new."""
    each = torch.arange(n)
    before = world.sample(n, seed)
    before = replace(before, kind=torch.full_like(before.kind, -1))
    kind = torch.tensor([world.KINDS.index(("face", "sign")[i % 2]) for i in range(n)])
    left = dict(kind=kind, colour=each % len(world.COLOURS), accent=(each + 3) % len(world.COLOURS))
    before = world.added(before, **left, word=each % len(world.SIGN_WORDS), x=0.27, y=0.6, size=0.26)
    new = [kind for kind in world.KINDS if kind not in ("face", "sign", "lamp", "fence", "lightning")]
    kind = torch.tensor([world.KINDS.index(new[i % len(new)]) for i in range(n)])
    after = world.added(before, kind=kind, colour=(5 * each + 2) % len(world.COLOURS),
                        accent=(each + 1) % len(world.COLOURS), x=0.74, y=0.62, size=0.22)  # fmt: skip
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


TUNING = [dict(lam=lam) for lam in (0.0, 1.0, 10.0, 100.0, 1000.0)] + [dict(steps=s) for s in (10, 25, 150, 300)]


@measured(12, "tinyworld")
def decoder_tuning(n, pipe):
    """Tuning the decoder: what the weight lambda of the background does (the paper: 100), and how many steps it takes
    (the recommended number where none is given).
    """
    tasks, rows = detailed(n, side(pipe)), {}
    edit = edited(pipe, tasks, 0)
    with progress(len(TUNING), "decoder_tuning", "setting") as bar:
        for how in TUNING:
            label = ", ".join(f"{'lambda' if name == 'lam' else name} {value:g}" for name, value in how.items())
            images = reconstruct(pipe, edit, tasks.image, tasks.mask, method="weights", **how).tensor.cpu()
            rows[label] = _put_back(images, edit.tensor.cpu(), tasks)
            bar.update(1)
    return rows


# Thin masks


WIDER = (0, 1, 2, 4)  # pixels added to the outline on every side
SCHEDULES = {
    "no dilation": {},
    "first half, 1 cell": {"shrink": 1},
    "the paper's 3 dilations": {"shrink": 3},
    "5 dilations": {"shrink": 5},
}


@measured(36, "tinyworld", "tinyworld-judge")
def thickness(n, pipe, judge):
    """Edits in masks around lamps, fences and lightning, from their outline to 4 pixels more on every side, and how
    often the judge sees the prompted thing: with plain blending, and with schedules that start from a wider mask. All
    cells that a mask touches count, so that none vanishes. Thickness: of the mask, on average, in latent cells.
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
    """The mean width of a mask (H,W) in pixels: the distance to its border is a quarter of it, on average."""
    from scipy.ndimage import distance_transform_edt

    inside = mask.numpy() > 0
    return 4 * float((distance_transform_edt(inside) - 0.5)[inside].mean())
