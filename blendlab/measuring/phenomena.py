"""The seven things that the notebooks are about, each shown to be there: tables with a figure, on tinyworld.

Each function makes one table (see tables.py) and one figure of its first tasks. `blendlab results phenomena` writes
the page of all of them. Next: page.py, which puts them into words.
"""

import math
import time
from dataclasses import replace
from itertools import count
from pathlib import Path

import torch
import torch.nn.functional as F

from . import attention, latents, masks, metrics, models, prompts, viz, world
from .blended import blended
from .clip import fit, look, read
from .clip_guidance import Guiding, clip_distance, warp
from .exemplar import exemplar
from .guidance import cfg, denoiser
from .noise import Noise
from .noise_edit import Landing, agreement, middle_of
from .rank import rank
from .sampler import last, sample
from .schedule import Schedule
from .tables import blocks, edited, is_simple, joined, measured, progress, reconstructed, seen_inside, side

PIXELS = ("tinyworld-pixel", "tinyworld-clip", "tinyworld-judge")
SHOWN = 5  # tasks in a figure
SURE = 0.85  # of held-out scenes that are not empty, 97% are surer (28 of 29 tried)


# Guidance in pixels


@measured(500, "tinyworld-pixel", "tinyworld-judge")
def pixel(n, model, judge):
    """What the pixel model makes of noise alone, without words: how sure the judge is of the clearest thing of at
    least 1% of the picture, and how often it is so sure that the thing counts as recognisable: a mean probability
    of 0.85 of one class. Held-out scenes, of which one in 17 is empty, beside it.
    """
    how, schedule = models.settings(model, "blended"), Schedule.from_scheduler(model.scheduler)
    net = denoiser(model.unet, schedule, model.scheduler.config.prediction_type)
    shape, rows, shown = (3, side(model), side(model)), {"samples": [], "held-out scenes": []}, []
    with progress(n, "pixel", "picture") as bar:
        for k, start in enumerate(range(0, n, metrics.BLOCK)):
            count = min(metrics.BLOCK, n - start)
            x, fresh = (Noise(k, count, purpose, model.device) for purpose in ("initial", "step"))
            timesteps, noise = schedule.timesteps(how["steps"]), lambda fresh=fresh: fresh(shape)
            pictures = last(sample(net, x(shape), schedule, timesteps, how["eta"], noise)).clamp(-1, 1)
            scenes = world.sample(count, world.HELD_OUT, start, model.device)
            scenes = world.render(world.simple(scenes) if is_simple(model) else scenes, side(model)).image
            for label, images in (("samples", pictures), ("held-out scenes", scenes)):
                rows[label].append(judge.sure(images))
            shown += list(pictures[: 2 * SHOWN + 2 - len(shown)])
            bar.update(count)
    sure = {label: torch.cat(parts) for label, parts in rows.items()}
    outcomes = lambda each: {"recognisable": each > SURE, "the clearest thing (probability)": each}  # noqa: E731
    return {label: outcomes(each) for label, each in sure.items()}, viz.show(shown)


@measured(100, *PIXELS)
def pixel_edits(n, model, clip, judge):
    """Edits in pixels by algorithm 2 of Blended Diffusion with the recommended settings: the first of four seeds,
    the one of four that CLIP ranks first, and the first one's twin that nobody guides. Ceiling and floor: the
    truth and the source.
    """
    rows = {label: [] for label in ("guided", "guided, best of 4", "unguided")}
    rows |= {label: [] for label in ("ceiling: the truth", "floor: the source")}
    figure = []
    for k, tasks in blocks(n, model, "pixel_edits"):
        four = [guided(model, clip, tasks, seed=4 * k + j) for j in range(4)]
        best = [rank(torch.stack(each), prompt, clip, mask[None])[0][0] for *each, prompt, mask in
                zip(*four, tasks.prompts, tasks.mask, strict=True)]  # fmt: skip
        chosen = torch.stack([four[j][i] for i, j in enumerate(best)])
        twin = guided(model, clip, tasks, seed=4 * k, scale=0.0)
        for label, images in zip(rows, (four[0], chosen, twin, tasks.truth, tasks.image), strict=True):
            rows[label].append(_seen_by_both(judge, clip, images, tasks))
        figure = figure or columns(tasks, {"nobody guides": twin, "CLIP guides": four[0], "best of 4": chosen})
    return {label: joined(parts) for label, parts in rows.items()}, figure


@measured(48, *PIXELS)
def augmentations(n, model, clip, judge):
    """What CLIP and the judge say of guided edits without extending augmentations and with them: same seeds, same
    scale. And of pixels that CLIP alone painted, without a diffusion model: 60 steps of Adam inside the mask.
    """
    rows, figure = {"the source": []}, []
    for k, tasks in blocks(n, model, "augmentations"):
        made = {
            "pixels alone": _painted(clip, tasks, k, augmentations=1, unwarped=1),
            "pixels alone, augmented": _painted(clip, tasks, k, augmentations=8),
            "no augmentation": guided(model, clip, tasks, seed=k, augmentations=1, unwarped=1),
            "augmented": guided(model, clip, tasks, seed=k),
        }
        for label, images in {"the source": tasks.image, **made}.items():
            rows.setdefault(label, []).append(_seen_by_both(judge, clip, images, tasks))
        figure = figure or columns(tasks, made)
    return {label: joined(parts) for label, parts in rows.items()}, figure


def guided(model, clip, tasks, seed, **options):
    """Guided edits (n,3,H,W) of tasks, one each, on the CPU."""
    given = dict(n=len(tasks), seed=seed, ranking=None) | options
    return blended(model, clip, tasks.image, tasks.mask, tasks.prompts, **given).tensor.cpu()


def distance(clip, images, tasks, how=None, u=None):
    """(n,) distances as guidance measures them: of the pictures themselves, or of their warped copies."""
    return clip_distance(images, read(clip, tasks.prompts).cpu(), tasks.mask, clip, how or Guiding(), u)


@torch.no_grad()
def clips_word(clip, images, tasks):
    return {"CLIP distance (1 - cos)": distance(clip, images, tasks)}


@torch.no_grad()
def pleased(clip, images, tasks):
    """(n,) whether CLIP likes the pictures at least as much as the truths."""
    return distance(clip, images, tasks) <= distance(clip, tasks.truth, tasks)


def _seen_by_both(judge, clip, images, tasks):
    liked = {"CLIP as pleased as by the truth": pleased(clip, images, tasks)}
    return seen_inside(judge, images, tasks) | liked | clips_word(clip, images, tasks)


def timed(make):
    """What make() gives for a batch, and how many seconds each of its pictures took."""
    start = time.perf_counter()
    images = make()
    return images, (time.perf_counter() - start) / len(images)


def seconds_each(times):
    """Their mean as a column of a table; of so few batches no interval."""
    return {"time (s)": (sum(times) / len(times), math.nan, math.nan)}


def _painted(clip, tasks, seed, steps=60, **looks):
    """The sources with the masked pixels moved wherever CLIP's distance falls."""
    how, draw = Guiding(**looks), Noise(seed, len(tasks), "augment")
    with torch.enable_grad():
        x = tasks.image.clone().requires_grad_()
        optimizer = torch.optim.Adam([x], lr=0.05)
        for _ in range(steps):
            u = None if how.unwarped else torch.special.ndtr(draw((how.augmentations, 12)))
            optimizer.zero_grad()
            distance(clip, x, tasks, how, u).sum().backward()
            optimizer.step()
            x.data.clamp_(-1, 1)
    return torch.where(tasks.mask > 0, x.detach(), tasks.image)


# Thin masks


THIN = ("lamp", "fence", "lightning")


@measured(144, "tinyworld", "tinyworld-judge")
def thin_masks(n, pipe, judge):
    """Edits whose mask is the outline of a thin thing, in many places narrower than a latent cell. Plain: cells
    count whose middle is masked. Every cell: those that are touched at all. Dilated: those and one more on each
    side, for the first half of the steps. "survives" is the share of the mask in cells that count; where none counts,
    the picture stays as it was.
    """
    hows = {"plain": {}, "every cell": {"mask_rule": "any"}, "every cell, dilated": {"mask_rule": "any", "shrink": 1}}
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
    """Edits (n,3,H,W) of the tasks whose mask has a cell left at latent size; of the others the source, decoded."""
    rule = how.get("mask_rule", "centre")
    left = masks.to_latent(tasks.mask, small, rule, allow_empty=True).flatten(1).any(1).nonzero()[:, 0].tolist()
    images = reconstructed(pipe, tasks.image)
    if left:
        images[left] = edited(pipe, part(tasks, left), seed, **how).tensor.to(images)
    return images


def thin(n, size, seed=world.HELD_OUT + 7):
    """Tasks of lamps, fences and flashes in turn, whose masks are their own outlines."""
    before = world.sample(4 * n + 16, seed)
    before = before[before.count < 2][:n]
    slot, each = before.count, torch.arange(n)
    kind = torch.tensor([world.KINDS.index(THIN[i % len(THIN)]) for i in range(n)])
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


def part(tasks, rows):
    """The tasks of some rows, a range or a list of numbers."""
    rows = list(rows)
    values = (getattr(tasks, name) for name in tasks.__dataclass_fields__)
    return metrics.Tasks(*([v[i] for i in rows] if isinstance(v, list) else v[rows] for v in values))


def parts_of(tasks, label):
    """Yield (k, tasks) block by block of tasks that are there; `blocks` makes them."""
    with progress(len(tasks), label, "task") as bar:
        for k, start in enumerate(range(0, len(tasks), metrics.BLOCK)):
            some = part(tasks, range(len(tasks))[start : start + metrics.BLOCK])
            yield k, some
            bar.update(len(some))


# Where things land


SHARED = {
    "car and bus: one family": ("a red car", "a red bus"),
    "cat and bus: two families": ("a red cat", "a red bus"),
    "star and bus: sky and ground": ("a red star", "a red bus"),
}
FIRST = (0, 2, 5)  # steps whose attention is asked


@measured(64, "tinyworld", "tinyworld-judge")
def tendency(n, pipe, judge):
    """Does the same initial noise put different things at the same place? "as the noise says": how often the things
    of two prompts are nearer to each other with one noise than with two, and how often the noun's attention at
    some step is higher at the place where its thing ends than another noise's there. Chance is 50%. DDIM, 25 steps.
    """
    said = sorted({prompt for pair in SHARED.values() for prompt in pair})
    landed, foretold, film = {}, {step: [] for step in FIRST}, {}
    for prompt in said:
        images, maps = _from_noise(n, pipe, prompt)
        noun = prompt.split()[-1]
        place = torch.stack([middle_of(things, noun) for things in judge.found(images)])  # (n,2), nan where none is
        film[prompt] = images[:SHOWN]
        for step in FIRST:
            landed[prompt] = Landing(prompt, noun, place, maps[step])
            foretold[step].append(landed[prompt].foretold())
    rows = {label: agreement(*(landed[prompt] for prompt in pair)) for label, pair in SHARED.items()}
    rows |= {f"attention, step {step + 1}": torch.cat(foretold[step]) for step in FIRST}
    rows = {label: {"as the noise says": metrics.mean(shares)} for label, shares in rows.items()}  # of all n at once
    titles = [said[i // SHOWN] if i % SHOWN == 0 else "" for i in range(len(said) * SHOWN)]
    return rows, viz.show([image for images in film.values() for image in images], titles, columns=SHOWN)


@torch.no_grad()
def _from_noise(n, pipe, prompt):
    """Pictures (n,3,H,W) of one prompt from noises 0 .. n-1, and the noun's maps at FIRST, {step: (n,h,w)}."""
    how, schedule = models.settings(pipe, "blended_latent"), Schedule.from_scheduler(pipe.scheduler)
    net = denoiser(pipe.unet, schedule, pipe.scheduler.config.prediction_type)
    cells, places = pipe.unet.config.sample_size, attention.tokens(pipe, prompt, prompt.split()[-1])
    shape, timesteps = (pipe.vae.config.latent_channels, cells, cells), schedule.timesteps(25)
    images, maps = [], {step: [] for step in FIRST}
    with progress(n, prompt, "picture") as bar:
        for k, start in enumerate(range(0, n, metrics.BLOCK)):
            count = min(metrics.BLOCK, n - start)
            denoise = cfg(net, *prompts.encode(pipe, [prompt] * count), how["w"])
            with attention.capture(pipe.unet, steps=FIRST) as seen:
                z = last(sample(denoise, Noise(k, count, "initial", pipe.device)(shape), schedule, timesteps, 0.0))
            images.append(latents.decode(pipe.vae, z).cpu())
            size = max(one.size for one in seen)
            for step in FIRST:
                maps[step].append(seen.at(step, size=size)[..., places].mean(-1))
            bar.update(count)
    return torch.cat(images), {step: torch.cat(parts) for step, parts in maps.items()}


# Exemplars


SHIPPED = "tinyworld-exemplar"
RUNGS = {  # label: network, and how it is asked; without guidance they can be compared
    "all tokens, w = 1": ("runs/exemplar-tokens/export", {"w": 1.0}),
    "class token, w = 1": (SHIPPED, {"w": 1.0}),
    "class token": (SHIPPED, {}),
}


@measured(200, "tinyworld-exemplar", "tinyworld-clip", "tinyworld-judge")
def exemplars(n, pipe, clip, judge):
    """The same thing in another light and tilt as reference: is the result, where the thing is, nearer to that thing
    cut out and pasted, or to the truth? Do its stripes and spots come along: of three truths, plain, striped and
    spotted, is the right one the nearest? CLIP similarity: between the reference and what is in the box.

    The network that sees all tokens does not ship: `blendlab train exemplar --steps 800 --set rung=tokens --out
    runs/exemplar-tokens`. Without it its row is left out.
    """
    tasks, box, reference, pasted, truths, where = references(n, side(pipe))
    results = {"cut out and pasted": pasted}
    for label, (name, how) in RUNGS.items():
        if name == SHIPPED or Path(name).is_dir():
            network = pipe if name == SHIPPED else models.load(name, device=pipe.unet.device)
            results[label] = painted(network, tasks, reference, label, **how)
    pattern, rows = pattern_of(tasks), {}
    for label, images in results.items():
        to_pasted, to_truth = (metrics.rms((images - other) / 2, where) for other in (pasted, tasks.truth))
        rows[label] = {
            "nearer to the pasted thing": to_pasted < to_truth,
            "error to the truth (share of range)": to_truth,
            "stripes and spots right": (nearest(images, truths, tasks.mask) == pattern)[pattern > 0],
            "CLIP similarity (cos)": similarity(clip, images, box, reference),
        } | seen_inside(judge, images, tasks)
    return rows, columns(tasks, {"reference": reference} | results, truth="the truth")


def painted(pipe, tasks, reference, label, **options):
    """Results (n,3,H,W) of an exemplar model, a block at a time."""
    parts = []
    with progress(len(tasks), label, "task") as bar:
        for k, start in enumerate(range(0, len(tasks), metrics.BLOCK)):
            image, mask, shown = (x[start : start + metrics.BLOCK] for x in (tasks.image, tasks.mask, reference))
            parts.append(exemplar(pipe, image, mask, shown, n=len(image), seed=k, **options).tensor.cpu())
            bar.update(len(image))
    return torch.cat(parts)


def nearest(images, truths, mask):
    """(n,) which of the truths (k,n,3,H,W) is nearest inside the mask."""
    return torch.stack([metrics.rms(images - truth, mask) for truth in truths]).argmin(0)


def similarity(clip, images, box, reference):
    """(n,) cosine of CLIP's vectors of what is in boxes (n,4) and of the references."""
    pieces = (warp(images, frame(box)), reference)
    one, other = (look(clip, (fit(clip, piece) + 1) / 2) for piece in pieces)
    return (one * other).sum(1)


def pattern_of(tasks):
    return tasks.scenes.pattern[torch.arange(len(tasks)), tasks.slot]


def references(n, size, seed=world.HELD_OUT + 9):
    """Tasks and boxes (n,4); references; sources with their things pasted; the truths (3,n,3,S,S): plain, striped,
    spotted; and where the thing is, pasted or true, (n,1,S,S).
    """
    tasks, each = metrics.tasks(n, seed=seed, size=size), torch.arange(n)
    scenes = world.changed(tasks.scenes, tasks.slot, pattern=each % len(world.PATTERNS))
    truths = [world.render(world.changed(scenes, tasks.slot, pattern=p), size) for p in range(len(world.PATTERNS))]
    images = torch.stack([view.image for view in truths])  # (3,n,3,S,S)

    # The reference: alone on sand, by day if its scene is dark, else at night, and tilted.
    alone = world.scene("sand", "day", seed=seed)[torch.zeros(n, dtype=torch.long)]
    day, night = world.TIMES.index("day"), world.TIMES.index("night")
    alone = replace(alone, time=torch.where(scenes.time == day, night, day))
    look = {name: getattr(scenes, name)[each, tasks.slot] for name in ("kind", "colour", "accent", "pattern", "word")}
    alone = world.added(alone, **look, x=0.5, y=0.55, size=0.38, tilt=0.2)
    view = world.render(alone, 2 * size)
    reference = warp(view.image, frame(view.boxes[:, 0]))

    # A collage: the reference's thing, cut out and squeezed into the box.
    box = truths[0].boxes[each, tasks.slot]
    both = torch.cat([reference, warp(view.masks[:, :1], frame(view.boxes[:, 0]))], dim=1)
    squeezed, thing = F.interpolate(warp(both, frame(box).inverse()), (size, size), mode="area").split([3, 1], dim=1)
    pasted = torch.where(thing > 0.5, squeezed, tasks.image)
    mine = torch.stack([view.masks[each, tasks.slot] for view in truths]).amax(0)[:, None]
    where = (torch.maximum(thing, mine) > 0.5).float()
    return replace(tasks, truth=images[each % 3, each], scenes=scenes), box, reference, pasted, images, where


def frame(boxes):
    """The maps (n,3,3) of [-1,1]^2 onto boxes (n,4), which are in fractions."""
    low, high = 2 * boxes[:, :2] - 1, 2 * boxes[:, 2:] - 1
    maps = torch.diag_embed(torch.cat([(high - low) / 2, torch.ones(len(boxes), 1)], dim=1))
    maps[:, :2, 2] = (high + low) / 2
    return maps


# Signs


SAYS = tuple(word for word in world.SIGN_WORDS if word in world.KINDS)
SAID = "a sign that says it"
SILENT = tuple(word for word in world.SIGN_WORDS if word not in world.KINDS)


@measured(200, "tinyworld-clip")
def signs(n, clip):
    """Red signs that say "cat" in CLIP's ranking for "cat", and for "a red cat": how often is such a sign ranked before
    a sign that says something else, before another red thing, before the thing itself? All at the same place of the
    same scene, cut out as ranking sees them.
    """
    words, box, views = _signs(n, clip.size)
    mask, shown, titles = metrics.box_mask(box, clip.size), range(min(4, n)), []
    rows = {label: {} for label in views if label != SAID}
    for ask in ("{}", "a red {}"):
        distance = {label: [] for label in views}
        for label, images in views.items():
            for i, word in enumerate(words):
                distance[label] += rank(images[i : i + 1], ask.format(word), clip, mask[i : i + 1])[1]
        for label in rows:
            first = [mine < other for mine, other in zip(distance[SAID], distance[label], strict=True)]
            rows[label][f'the sign is first for "{ask.format("cat")}"'] = torch.tensor(first)
        titles += [f"{words[i]}: {label}, {distance[label][i]:.2f}" for i in shown for label in views] * (not titles)
    pictures = [views[label][i : i + 1] for i in shown for label in views]
    return rows, viz.show(pictures, titles, columns=len(views))


def _signs(n, size, seed=world.HELD_OUT + 11):
    """Nouns, boxes (n,4), and the four pictures of each: {label: (n,3,size,size)}."""
    each, empty = torch.arange(n), world.sample(n, seed)
    empty = replace(empty, kind=torch.full_like(empty.kind, -1))
    kind, other = each % len(SAYS), (each + 1 + each // len(SAYS) % (len(SAYS) - 1)) % len(SAYS)
    kinds = torch.tensor([world.KINDS.index(word) for word in SAYS])
    says = torch.tensor([world.SIGN_WORDS.index(word) for word in SAYS])
    silent = torch.tensor([world.SIGN_WORDS.index(word) for word in SILENT])[each % len(SILENT)]
    things = {
        SAID: dict(kind="sign", word=says[kind]),
        "a sign that says something else": dict(kind="sign", word=silent),
        "another red thing": dict(kind=kinds[other]),
        "the thing itself": dict(kind=kinds[kind]),
    }
    place = dict(colour="red", accent="white", x=0.5, y=0.6, size=0.28)
    views = {label: world.render(world.added(empty, **place, **thing), size).image for label, thing in things.items()}
    box = torch.tensor([0.5 - 0.28, 0.6 - 0.28, 0.5 + 0.28, 0.6 + 0.28]).expand(n, 4)
    return [SAYS[k] for k in kind.tolist()], box, views


# What the autoencoder loses, and light


@measured(100, "tinyworld")
def losses(n, pipe):
    """What the autoencoder loses where: PSNR, and the share of fine detail (the energy of what a blur of 5 pixels
    takes away) that comes back, in night skies full of stars, faces, the words of signs, and plain balls.
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
    for label, part in parts.items():
        view = world.render(part, side(pipe))
        mask = (view.masks[:, :1] > 0.5).float()  # (n,1,S,S)
        if label == "stars":
            height = torch.arange(mask.shape[-2])[:, None] / mask.shape[-2]
            mask = (height < 0.8 * part.horizon[:, None, None, None]).float().expand_as(mask)
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
    """A thing from a sunny day in a scene at sunset or at night: cut out and pasted, against a blended edit of the same
    words that the judge accepts. How far the mean colour of the thing is from the truth's, as a share of the range.
    """
    rows, figure = {"pasted": [], "blended": []}, []
    for k, tasks in _dark(n, pipe):
        each = torch.arange(len(tasks))
        noon = world.render(world.elsewhere(tasks.scenes, time="day"), side(pipe))
        thing = (noon.masks[each, tasks.slot] > 0.5).float()[:, None]  # (n,1,S,S)
        pasted = torch.where(thing > 0, noon.image, tasks.image)
        edit = edited(pipe, tasks, k).tensor.cpu()
        wanted = _colour(tasks.truth, thing)
        rows["pasted"].append((_colour(pasted, thing) - wanted).abs().mean(1) / 2)
        kinds = judge(edit).kinds().cpu()
        names = torch.tensor([1 + world.KINDS.index(kind) for kind in tasks.kind])
        there = ((kinds == names[:, None, None]) & (tasks.mask[:, 0] > 0)).float()[:, None]
        right = torch.stack(metrics.precision(judge, edit, tasks)).all(0)
        rows["blended"].append(((_colour(edit, there) - wanted).abs().mean(1) / 2)[right])
        shown = {"cut out and pasted": pasted, "blended": edit}
        figure = figure or columns(tasks, shown, truth="the truth")
    return {label: {"off the truth's colour": torch.cat(parts)} for label, parts in rows.items()}, figure


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


# Figures


def columns(tasks, shown, truth=None):
    """A row for each of the first tasks: picture and mask under the prompt, then the columns of `shown`."""
    shown = shown | ({truth: tasks.truth} if truth else {})
    count_ = min(SHOWN, len(tasks))
    width = (viz.WIDTH - 8 * len(shown)) // (len(shown) + 1) // tasks.image.shape[-1] * tasks.image.shape[-1]
    pictures, titles = [], []
    for i in range(count_):
        pictures += [viz.overlay(tasks.image[i : i + 1], tasks.mask[i : i + 1], width)]
        pictures += [images[i : i + 1] for images in shown.values()]
        titles += [tasks.prompts[i]] + [label if i == 0 else "" for label in shown]
    return viz.show(pictures, titles, columns=1 + len(shown))
