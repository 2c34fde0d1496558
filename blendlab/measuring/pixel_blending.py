"""What Blended Diffusion (2111.14818) claims: tables for notebooks 01 and 02.

Tasks, seeds and settings are the same in all rows of a table, except for what a row's label says.
Next: tables.py, whose helpers these use, and ../papers/blended.py, which most of them measure.
"""

from dataclasses import replace

import torch

from .. import cards, viz, world
from ..blend import blend
from ..clip_guidance import Guiding, clip_distance
from ..guidance import from_pipe
from ..joins import poisson, pyramid
from ..networks.judge import to_size
from ..noise import Noise
from ..papers.blended import blended
from ..papers.clip_guided import clip_guided
from ..papers.paint_by_word import paint_by_word
from ..rank import rank, read
from ..sampler import last, sample
from . import metrics
from .tables import (
    SHOWN,
    blocks,
    columns,
    is_simple,
    joined,
    measured,
    progress,
    seconds_each,
    seen_inside,
    seen_outside,
    side,
    timed,
)

PIXELS = ("tinyworld-pixel", "tinyworld-clip", "tinyworld-judge")
JOINS = {"naive paste": blend, "Laplacian pyramid": pyramid, "Poisson": poisson}
# Of algorithm 1. The paper's is 1000 where words count 1, its code's 1000 where they count 1000;
# here words count 3000.
BACKGROUND = 10000.0
LAMBDAS = (0.0, 1000.0, 10000.0, 100000.0)  # figure 3 of the paper: 100, 1000, 10000
# where noise estimates are shifted: the share of levels skipped, as the first holds no picture to
# shift
SHIFTED = 0.1
RESULTS = 10  # of each task, to rank: their best and worst fifth are two each


def algorithm_1(model):
    """Its settings: those that the model recommends for algorithm 2, and BACKGROUND."""
    return cards.settings(model, "blended") | {"background": BACKGROUND}


def asked(model, clip, tasks, seed, **options):
    """Edits (n,3,H,W) by algorithm 1, from where the recommended edits start."""
    how = algorithm_1(model) | dict(n=len(tasks), seed=seed, ranking=None) | options
    return clip_guided(model, clip, tasks.image, tasks.mask, tasks.prompts, **how).tensor.cpu()


# What CLIP makes, alone and with a network

SURE = 0.85  # of held-out scenes that are not empty, 97% are surer (28 of 29 tried)


@measured(500, "tinyworld-pixel", "tinyworld-judge")
def pixel(n, model, judge):
    """What the pixel model makes of noise alone, without words, in 25 steps of DDPM: how sure the
    judge is of the clearest object of at least 1% of the picture, and how often it is so sure that
    this object counts as recognisable: a mean probability of 0.85 of one class. Held-out scenes, of
    which one in 17 is empty, beside it.
    """
    schedule, timesteps, net = from_pipe(model, 25)
    shape, rows, shown = (3, side(model), side(model)), {"samples": [], "held-out scenes": []}, []
    with progress(n, "pixel", "picture") as bar:
        for k, start in enumerate(range(0, n, metrics.BLOCK)):
            count = min(metrics.BLOCK, n - start)
            x, fresh = (
                Noise(k, count, purpose, model.device, shape=shape)
                for purpose in ("initial", "step")
            )
            steps = sample(net, x(), schedule, timesteps, 1.0, fresh)
            pictures = last(steps).clamp(-1, 1)
            scenes = world.sample(count, world.HELD_OUT, start, model.device)
            scenes = world.render(
                world.simple(scenes) if is_simple(model) else scenes, side(model)
            ).image
            for label, images in (("samples", pictures), ("held-out scenes", scenes)):
                rows[label].append(judge.sure(images))
            shown += list(pictures[: 2 * SHOWN + 2 - len(shown)])
            bar.update(count)
    sure = {label: torch.cat(parts) for label, parts in rows.items()}
    made = {
        label: {"recognisable": each > SURE, "the clearest object (probability)": each}
        for label, each in sure.items()
    }
    return made, viz.show(shown)


@measured(100, *PIXELS)
def pixel_edits(n, model, clip, judge):
    """Edits in pixels by algorithm 2 of Blended Diffusion with the recommended settings: the first
    of four seeds, the one of four that CLIP ranks first, and the first one's twin that nobody
    guides. Ceiling and floor: the truth and the source.
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
        for label, images in zip(
            rows, (four[0], chosen, twin, tasks.truth, tasks.image), strict=True
        ):
            rows[label].append(_seen_by_both(judge, clip, images, tasks))
        figure = figure or columns(
            tasks, {"nobody guides": twin, "CLIP guides": four[0], "best of 4": chosen}
        )
    return {label: joined(parts) for label, parts in rows.items()}, figure


@measured(96, *PIXELS)
def augmentations(n, model, clip, judge):
    """What CLIP and the judge say of guided edits without extending augmentations and with them:
    same seeds, same scale, 10000, which is strong enough to fool (recommended: 3000). And of pixels
    that CLIP alone painted, without a diffusion model: 60 steps of Adam inside the mask.
    """
    strong = {"scale": 10000.0}
    rows, figure = {"the source": []}, []
    for k, tasks in blocks(n, model, "augmentations"):
        made = {
            "pixels alone": _painted(clip, tasks, k, augmentations=1, unwarped=1),
            "pixels alone, augmented": _painted(clip, tasks, k, augmentations=8),
            "no augmentation": guided(
                model, clip, tasks, seed=k, augmentations=1, unwarped=1, **strong
            ),
            "augmented": guided(model, clip, tasks, seed=k, **strong),
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
    """(n,) distances as guidance measures them: of the pictures, or of their warped copies."""
    return clip_distance(
        images, read(clip, tasks.prompts).cpu(), tasks.mask, clip, how or Guiding(), u
    )


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


# Guidance


@measured(48, *PIXELS)
def background_weights(n, model, clip, judge):
    """Algorithm 1 of Blended Diffusion asks for the background with a weight lambda: what that does
    to the background and to the edit. Nothing is pasted.
    """
    rows = {f"lambda {value:g}": [] for value in LAMBDAS} | {"algorithm 2": []}
    for k, tasks in blocks(n, model, "background_weights"):
        made = [asked(model, clip, tasks, k, background=value) for value in LAMBDAS]
        for label, images in zip(
            rows, [*made, guided(model, clip, tasks, k, paste=False)], strict=True
        ):
            rows[label].append(
                seen_inside(judge, images, tasks)
                | seen_outside(images, tasks)
                | clips_word(clip, images, tasks)
            )
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
    """What the gradient moves (the mean by the variance of the move, or the noise estimate), what
    CLIP looks at, and whether the gradient goes through the network: algorithm 2, DDPM, the same
    scale, a tenth of the levels skipped. Seconds an edit.
    """
    same = dict(eta=1.0, skip=SHIFTED)
    rows, seconds = ({label: [] for label in SHIFTS} for _ in range(2))
    for k, tasks in blocks(n, model, "guidance_variants"):
        for label, how in SHIFTS.items():
            images, time_each = timed(guided, model, clip, tasks, k, **same, **how)
            rows[label].append(seen_inside(judge, images, tasks) | clips_word(clip, images, tasks))
            seconds[label].append(time_each)
    return {label: joined(parts) | seconds_each(seconds[label]) for label, parts in rows.items()}


SAMPLERS = {
    f"{name}, {steps} steps": dict(eta=eta, steps=steps)
    for name, eta in (("DDPM", 1.0), ("DDIM", 0.0))
    for steps in (100, 50, 25, 10)
}


@measured(32, *PIXELS)
def samplers(n, model, clip, judge):
    """DDPM against DDIM, at many steps and at few: algorithm 2 with the recommended scale, a tenth
    of the levels skipped, each move made once.
    """
    rows = {label: [] for label in SAMPLERS}
    for k, tasks in blocks(n, model, "samplers"):
        for label, how in SAMPLERS.items():
            images = guided(model, clip, tasks, k, skip=SHIFTED, resamplings=1, **how)
            rows[label].append(seen_inside(judge, images, tasks) | clips_word(clip, images, tasks))
    return {label: joined(parts) for label, parts in rows.items()}


# Blending


@measured(48, *PIXELS)
def joins(n, model, clip, judge):
    """How an edit and its source become one picture: edits of algorithm 1 (lambda 10000) joined at
    the end, against blending at every step. Border: how visible the mask's border is, against the
    untouched source, which is 1. Seam: the same against the picture's own surroundings, 1 where
    nothing is seen. The source and the truth say what both are worth here. A background of 80 dB is
    the source's, bit for bit.
    """
    rows, figure = (
        {label: [] for label in (*JOINS, "blended at every step", "the truth", "the source")},
        None,
    )
    for k, tasks in blocks(n, model, "joins"):
        whole = asked(model, clip, tasks, k)
        made = {
            label: join(tasks.mask, whole, tasks.image).clamp(-1, 1)
            for label, join in JOINS.items()
        }
        made["blended at every step"] = guided(model, clip, tasks, k)
        figure = figure or columns(tasks, made)
        for label, images in zip(rows, [*made.values(), tasks.truth, tasks.image], strict=True):
            error = metrics.truth_error(images, tasks.truth, tasks.mask)
            seen = {
                "border (1 is none)": metrics.border(images, tasks.image, tasks.mask),
                "seam (1 is none)": metrics.seam(images, tasks.mask),
                "error to the truth (share of range)": error,
            }
            rows[label].append(
                seen_inside(judge, images, tasks) | seen | seen_outside(images, tasks)
            )
    return {label: joined(parts) for label, parts in rows.items()}, figure


@measured(48, *PIXELS, "tinyworld")
def pixel_methods(n, model, clip, judge, pipe):
    """Three methods with words and a mask, on the same tasks: algorithm 1 (lambda 10000), algorithm
    2, and PaintByWord++, which optimises an autoencoder's latents under CLIP (150 steps of the
    paper's 500, as many copies as the others). What they cost is in the table precision.
    """

    def painted(tasks, k):
        copies = cards.settings(model, "blended")["augmentations"]
        same = dict(n=len(tasks), seed=k, ranking=None, steps=150, augmentations=copies)
        return paint_by_word(
            pipe, clip, tasks.image, tasks.mask, tasks.prompts, **same
        ).tensor.cpu()

    methods = {
        "algorithm 1": lambda tasks, k: asked(model, clip, tasks, k),
        "algorithm 2": lambda tasks, k: guided(model, clip, tasks, k),
        "PaintByWord++": painted,
        "the truth": lambda tasks, k: tasks.truth,
    }
    rows, figure = {label: [] for label in methods}, None
    for k, tasks in blocks(n, model, "pixel_methods"):
        made = {label: method(tasks, k) for label, method in methods.items()}
        for label, images in made.items():
            seen = seen_inside(judge, images, tasks) | clips_word(clip, images, tasks)
            rows[label].append(seen | seen_outside(images, tasks))
        figure = figure or columns(tasks, made)
    return {label: joined(parts) for label, parts in rows.items()}, figure


# Ranking


RANKINGS = {
    "the mask, on black": dict(view="mask"),
    "the mask, not normalised (BD's code)": dict(view="mask", normalised=False),
    "the whole picture": dict(view="image"),
    "both": dict(view="both"),
}


@measured(16, *PIXELS)
def rankings(n, model, clip, judge):
    """What ranking is worth: 10 edits of each task, ranked by CLIP in four ways. How often the
    judge accepts the first one, the best fifth, the worst fifth; and how much of the mask the first
    one's object fills, as a share of what the truth's fills.
    """
    rows = {label: [] for label in (*RANKINGS, "by chance")}
    for k, tasks in blocks(n, model, "rankings"):
        made = torch.stack(
            [guided(model, clip, tasks, RESULTS * k + j) for j in range(RESULTS)], dim=1
        )  # (n,10,3,H,W)
        right = torch.stack(
            [metrics.precision(judge, images, tasks)[0] for images in made.unbind(1)], dim=1
        )  # (n,10)
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
    """(n,) the prompted object's area in the mask over that of the truth's; at most 1."""
    names = torch.tensor([1 + world.KINDS.index(kind) for kind in tasks.kind])[:, None, None]
    inside = to_size(tasks.mask)  # (n,64,64), as the judge sees
    shares = [
        ((judge(x).kinds().cpu() == names) & inside).sum((1, 2)) for x in (images, tasks.truth)
    ]
    return (shares[0] / shares[1].clamp(min=1)).clamp(max=1)


# Signs


SAYS = tuple(word for word in world.SIGN_WORDS if word in world.KINDS)
SAID = "a sign that says it"
SILENT = tuple(word for word in world.SIGN_WORDS if word not in world.KINDS)


@measured(200, "tinyworld-clip")
def signs(n, clip):
    """Red signs that say "cat" in CLIP's ranking for "cat", and for "a red cat": how often is such
    a sign ranked before a sign that says something else, before another red object, before the
    object itself? All at the same place of the same scene, cut out as ranking sees them.
    """
    words, box, views = _signs(n, clip.size)
    mask, shown, titles = metrics.box_mask(box, clip.size), range(min(4, n)), []
    rows = {label: {} for label in views if label != SAID}
    for ask in ("{}", "a red {}"):
        distance = {label: [] for label in views}
        for label, images in views.items():
            for i, word in enumerate(words):
                distance[label] += rank(images[i : i + 1], ask.format(word), clip, mask[i : i + 1])[
                    1
                ]
        for label in rows:
            first = [
                mine < other for mine, other in zip(distance[SAID], distance[label], strict=True)
            ]
            rows[label][f'the sign is first for "{ask.format("cat")}"'] = torch.tensor(first)
        titles += [
            f"{words[i]}: {label}, {distance[label][i]:.2f}" for i in shown for label in views
        ] * (not titles)
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
    objects = {
        SAID: dict(kind="sign", word=says[kind]),
        "a sign that says something else": dict(kind="sign", word=silent),
        "another red object": dict(kind=kinds[other]),
        "the object itself": dict(kind=kinds[kind]),
    }
    place = dict(colour="red", accent="white", x=0.5, y=0.6, size=0.28)
    views = {
        label: world.render(world.added(empty, **place, **drawn), size).image
        for label, drawn in objects.items()
    }
    box = torch.tensor([0.5 - 0.28, 0.6 - 0.28, 0.5 + 0.28, 0.6 + 0.28]).expand(n, 4)
    return [SAYS[k] for k in kind.tolist()], box, views
