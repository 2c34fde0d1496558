"""What Initial Image Editing (2305.03382) claims and its readers asked: tables for notebook 07.

Noise, prompts and settings are the same in all rows of a table, except for what a row's label says.
Next: tables.py, whose helpers these use, and ../papers/layout.py, which most of them measure.
"""

import copy
import math
from dataclasses import replace

import torch
from torch import Tensor

from .. import attention, cards, door, viz, world
from ..latents import decode
from ..noise import Noise
from ..papers.inversion import invert
from ..papers.layout import layout, looks, move_blocks, swap
from ..papers.repaint import repaint
from ..papers.reword import reword
from ..papers.tendency import Landing, agreement, middle_of
from ..papers.tendency import tendency as landings_of
from ..walk import Drawing, Walk, settled
from . import metrics
from .tables import SHOWN, blocks, edited, joined, measured, progress, seen_inside, seen_outside

# Of all layers this one foretells the place best, see which_layer. At weight 2 the initial noise
# still affects the layout; at 4, which edits recommend, objects hardly leave where the network
# likes them best.
HOW, BEST = {"w": 2.0, "steps": 25}, {"layers": "up_blocks.0.attentions.1"}
LAYER = BEST | {"heat": "plain"}  # as published; relative_maps has the other map
KINDS = ("cat", "bus", "car", "dog", "house", "tree", "fish", "boat")
COLOURS = ("red", "blue", "yellow", "green")


def naming(n, count):
    """n prompts of so many objects each, in turn 8 of one object or 24 of more: (["red cat", ...],
    "a red cat and ...").
    """
    asked = []
    for i in range(n):
        kinds = [KINDS[(3 * i + step) % 8] for step in (0, 1 + i % 3, 4 + i % 3)[:count]]
        phrases = [f"{COLOURS[(i + j) % 4]} {kind}" for j, kind in enumerate(kinds)]
        *first, last = [f"a {phrase}" for phrase in phrases]
        asked.append((phrases, f"{', '.join(first)} and {last}" if first else last))
    return asked


# The tendency


SHARED = {
    "car and bus: one family": ("a red car", "a red bus"),
    "cat and bus: two families": ("a red cat", "a red bus"),
    "star and bus: sky and ground": ("a red star", "a red bus"),
}
FIRST = (0, 2, 5)  # steps whose attention is asked


@measured(64, "tinyworld", "tinyworld-judge")
def tendency(n, pipe, judge):
    """Does the same initial noise put different objects at the same place? "as the noise says": how
    often two prompts place their objects closer when they share a noise than when they do not, and
    how often the noun's attention at the object's final position exceeds that of another noise.
    Chance is 50%. DDIM, 25 steps.
    """
    said = sorted({prompt for pair in SHARED.values() for prompt in pair})
    landed, seen, film = {}, {step: [] for step in FIRST}, {}
    for prompt in said:
        images, maps = _from_noise(n, pipe, prompt)
        noun = prompt.split()[-1]
        place = torch.stack(
            [middle_of(objects, noun) for objects in judge.found(images)]
        )  # (n,2), nan where none is
        film[prompt] = images[:SHOWN]
        for step in FIRST:
            landed[prompt] = Landing(prompt, noun, place, maps[step])
            seen[step].append(landed[prompt])
    rows = {
        label: agreement(*(landed[prompt] for prompt in pair)) for label, pair in SHARED.items()
    }
    rows |= {f"attention, step {step + 1}": foretold(seen[step]) for step in FIRST}
    rows = {
        label: {"as the noise says": metrics.mean(shares)} for label, shares in rows.items()
    }  # of all n at once
    titles = [said[i // SHOWN] if i % SHOWN == 0 else "" for i in range(len(said) * SHOWN)]
    return rows, viz.show(
        [image for images in film.values() for image in images], titles, columns=SHOWN
    )


def foretold(landings: list[Landing]) -> Tensor:
    """(m,) for each noise from which an object came: how often its own attention foretold the
    place, the mean of its prompts. These are alike, so each noise counts once.
    """
    each = torch.full((len(landings), len(landings[0].place)), math.nan)
    for row, one in zip(each, landings, strict=True):
        row[~one.place.isnan().any(1)] = one.foretold()
    shares = each.nanmean(0)
    return shares[~shares.isnan()]


@torch.no_grad()
def _from_noise(n, pipe, prompt):
    """Pictures (n,3,H,W) from noises 0 .. n-1, the noun's maps at FIRST, {step: (n,h,w)}."""
    w = cards.settings(pipe, "blended_latent")["w"]
    walk = Walk.of(pipe, prompt, Drawing(w=w, steps=25, eta=0.0))
    places, shape = attention.tokens(pipe, prompt, prompt.split()[-1]), door.state_shape(pipe)
    images, maps = [], {step: [] for step in FIRST}
    with progress(n, prompt, "picture") as bar:
        for k, start in enumerate(range(0, n, metrics.BLOCK)):
            count = min(metrics.BLOCK, n - start)
            z = Noise(k, count, "initial", pipe.device)(shape)
            with attention.capture(pipe.unet, steps=FIRST) as seen:
                images.append(decode(pipe.vae, walk.down(z)).cpu())
            size = max(one.size for one in seen)
            for step in FIRST:
                maps[step].append(seen.at(step, size=size)[..., places].mean(-1))
            bar.update(count)
    return torch.cat(images), {step: torch.cat(parts) for step, parts in maps.items()}


ETAS = (0.0, 0.25, 0.5, 1.0)


@measured(48, "tinyworld", "tinyworld-judge")
def tendency_eta(n, pipe, judge):
    """How far the initial noise decides when the steps add noise of their own: a red cat and a red
    bus from the same initial noise, other noise in the steps. How often the two are nearer to each
    other with one noise than with two (by chance: 50%), against eta: 0 is DDIM, 1 is DDPM.
    """
    rows = {}
    for eta in ETAS:
        cat, bus = landings_of(
            pipe, judge, ["a red cat", "a red bus"], n=n, eta=eta, **HOW, batch=metrics.BLOCK
        )
        rows[f"eta {eta:g}"] = {"as the noise says": metrics.mean(agreement(cat, bus))}
    return rows


@measured(48, "tinyworld", "tinyworld-judge")
def word_order(n, pipe, judge):
    """Two prompts with the same two objects in another order, from the same noises: does each of
    them stay where it was? How often it is nearer to its own place under the other order than under
    other noises (by chance: 50%); and how often the cat is left of the bus.
    """
    said = ["a red cat and a blue bus", "a blue bus and a red cat"]
    landed = {(one.prompt, one.word): one for one in
              landings_of(pipe, judge, said, n=n, **HOW, batch=metrics.BLOCK)}  # fmt: skip
    rows = {
        f"the {word}": {
            "as the noise says": metrics.mean(agreement(*(landed[prompt, word] for prompt in said)))
        }
        for word in ("cat", "bus")
    }
    for prompt in said:
        gap = landed[prompt, "bus"].place[:, 0] - landed[prompt, "cat"].place[:, 0]
        rows[prompt] = {"the cat is on the left": gap[~gap.isnan()] > 0}
    return rows


@measured(48, "tinyworld", "tinyworld-judge")
def which_layer(n, pipe, judge):
    """Which layers' attention foretells the place? How often the noun's attention at the first step
    exceeds that of another noise at the object's final position (by chance: 50%), for each
    cross-attention layer.
    """
    landings = landings_of(pipe, judge, ["a red cat", "a red bus"], n=n, **HOW, batch=metrics.BLOCK)
    z, rows = Noise(0, n, "initial", pipe.device)(door.state_shape(pipe)), {}
    for name in attention.cross_attention(pipe.unet, None):
        maps = [
            looks(pipe, one.prompt, [one.word], z, layers=name, steps=HOW["steps"])[:, 0]
            for one in landings
        ]
        told = [replace(one, attention=heat) for one, heat in zip(landings, maps, strict=True)]
        rows[name.split(".transformer_blocks")[0]] = {
            "as the noise says": metrics.mean(foretold(told))
        }
    return rows


# Layout


BOXES = ((0.02, 0.4, 0.5, 0.95), (0.5, 0.4, 0.98, 0.95), (0.26, 0.02, 0.74, 0.4))
LAYOUTS = {
    "nothing": dict(rule="none"),
    "the paper's rule": dict(rule="paper"),
    "arrange": dict(rule="arrange"),
    "swap": dict(rule="swap"),
    "swap, the published layer": dict(rule="swap", layers=None),
    "attention in the box": dict(rule="none", guide="mask"),
    "attention, soft": dict(rule="none", guide="soft"),
    "swap, attention in the box": dict(rule="swap", guide="mask"),
    "swap, attention soft": dict(rule="swap", guide="soft"),
}


def placed(judge, images, phrases, boxes):
    """(n,) bool: is the middle of every object in its box?"""
    right = []
    for found in judge.found(images):
        at = [middle_of(found, phrase.split()[-1]) for phrase in phrases]
        right.append(
            all(
                x0 <= x <= x1 and y0 <= y <= y1
                for (x, y), (x0, y0, x1, y1) in zip(
                    map(torch.Tensor.tolist, at), boxes, strict=True
                )
            )
        )
    return torch.tensor(right)


def laid_out(pipe, judge, asked, seeds=4, **how):
    """Outcomes of layouts, (prompts,seeds): a row for each prompt, a noise for each column."""
    right = []
    for i, (phrases, prompt) in enumerate(asked):
        boxes = [BOXES[(i + j) % 2] if len(phrases) < 3 else BOXES[j] for j in range(len(phrases))]
        edit = layout(
            pipe,
            prompt,
            list(zip(phrases, boxes, strict=True)),
            n=seeds,
            seed=i,
            **LAYER | HOW | how,
        )
        right.append(placed(judge, edit.tensor, phrases, boxes))
    return torch.stack(right)


@measured(10, "tinyworld", "tinyworld-judge")
def layouts(n, pipe, judge):
    """Objects in boxes: how often the middle of every named object is in its box, for one, two and
    three objects; n prompts, four noises each. The rules carry blocks of the initial noise; other
    methods add attention.
    """
    rows = {label: {} for label in LAYOUTS}
    for count, column in enumerate(("one object", "two objects", "three objects"), 1):
        asked = naming(n, count)
        with progress(len(LAYOUTS), column, "rule") as bar:
            for label, how in LAYOUTS.items():
                rows[label][column] = laid_out(pipe, judge, asked, **how)
                bar.update(1)
    return rows


MAPS = {
    "nothing": dict(rule="none", heat="plain"),
    "the map as published": dict(heat="plain"),
    "the map relative to other noises": dict(heat="relative"),
}


@measured(12, "tinyworld", "tinyworld-judge")
def relative_maps(n, pipe, judge):
    """Which cells are carried: those that the word looks at the most, as published, or those that
    it looks at more than with other noises. How often the one object is in its box; n prompts, four
    noises each.
    """
    asked = naming(n, 1)
    return {
        label: {"in its box": laid_out(pipe, judge, asked, **how)} for label, how in MAPS.items()
    }


MOMENTS = {
    "before step 1": (0,),
    "before steps 1 to 3": (0, 1, 2),
    "before steps 1 to 6": tuple(range(6)),
    "before step 4 only": (3,),
    "before step 8 only": (7,),
    "never": (),
}


@measured(16, "tinyworld", "tinyworld-judge")
def exchange_steps(n, pipe, judge):
    """When blocks are carried: once before the first step, as published, again before later ones,
    or only later. How often the one object is in its box; n prompts, four noises each.
    """
    asked = naming(n, 1)
    return {
        label: {
            "in its box": laid_out(pipe, judge, asked, rule="swap" if at else "none", at=at or (0,))
        }
        for label, at in MOMENTS.items()
    }


@measured(16, "tinyworld", "tinyworld-judge")
def value_or_place(n, pipe, judge):
    """Is it the values of a block that make an object, or its place? Into the box are carried the
    blocks that the word looks at the most, the ones it looks at the least, or fresh noise; or
    nothing is. How often the object is in the box; n prompts, four noises each.
    """
    rows = {
        label: []
        for label in ("looked at the most", "looked at the least", "fresh noise", "nothing")
    }
    for i, (phrases, prompt) in enumerate(naming(n, 1)):
        box = BOXES[i % 2]
        same = dict(n=4, seed=i, **HOW)
        most = layout(pipe, prompt, [(phrases[0], box)], rule="swap", **LAYER, **same)
        noise = Noise(i, 4, "initial", pipe.device)(most.latents.shape[1:])
        maps, cells = -most.settings["attention"].flatten(2), most.settings["cells"].flatten(1)
        origin = torch.stack([swap(each, cells) for each in maps]).to(noise.device)
        least = move_blocks(noise, origin, most.settings["block"])
        made = {
            "looked at the most": most,
            "looked at the least": layout(
                pipe, prompt, [(phrases[0], box)], rule="none", noise=least, **same
            ),
            "fresh noise": repaint(pipe, prompt, box, new_seed=1000 + i, **same),
            "nothing": layout(pipe, prompt, [(phrases[0], box)], rule="none", **same),
        }
        for label, edit in made.items():
            rows[label].append(placed(judge, edit.tensor, phrases, [box]))
    return {label: {"in its box": torch.stack(parts)} for label, parts in rows.items()}


# The remedy of a reader


TUNING, NOISY = 100, 600  # steps of 16 pictures; the level from which on a step counts as noisy
REMEDIES = {  # the weight of the attention that falls beside its object; None: no step more
    "as shipped": None,
    f"{TUNING} steps more": 0.0,
    f"{TUNING} steps more, attention on its object": 0.3,
}


@measured(16, "tinyworld", "tinyworld-judge")
def remedy(n, pipe, judge):
    """The remedy that a reader of the paper proposed: 100 more steps of training in which a noun's
    attention at noisy levels has to fall on its object. As shipped, after 100 plain steps, and
    after those: how often both of two objects appear, how often swap brings one object into its
    box, and how often the attention of the first step foretells the place. n prompts, four noises
    each, new noise for the last.
    """
    rows = {}
    for label, weight in REMEDIES.items():
        tuned, both = copy.copy(pipe), []
        if weight is not None:
            tuned.unet = fine_tuned(weight, pipe.device)
        for i, (phrases, prompt) in enumerate(naming(n, 2)):
            made = layout(
                tuned, prompt, [(phrases[0], BOXES[0])], rule="none", n=4, seed=i, **LAYER, **HOW
            )
            seen = [{one.kind for one in found} for found in judge.found(made.tensor)]
            both.append([all(phrase.split()[-1] in kinds for phrase in phrases) for kinds in seen])
        told = landings_of(
            tuned, judge, ["a red cat", "a red bus"], n=4 * n, **BEST, **HOW, batch=metrics.BLOCK
        )
        rows[label] = {
            "both objects appear": torch.tensor(both),
            "swap: in its box": laid_out(tuned, judge, naming(n, 1), rule="swap"),
            "attention foretells": metrics.mean(foretold(told)),
        }
    return rows


def fine_tuned(weight, device):
    """The UNet of tinyworld after TUNING more steps of its own training, in which attention
    beside the object costs `weight` times the negative logarithm of what falls on it.
    """
    from ..training.latent import Latent

    folder = cards.WEIGHTS / "tinyworld"
    job = Latent(device=device, batch_size=16, pool=1024, **Latent.sizes_of(folder))
    job.load(folder)
    job.fill(0)
    unet = job.net.to(device)["unet"]
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4)
    nouns = torch.tensor(
        [job.tokenizer.convert_tokens_to_ids(f"{kind}</w>") for kind in world.KINDS], device=device
    )
    with torch.enable_grad(), progress(TUNING, f"fine-tuning, weight {weight:g}", "step") as bar:
        for step in range(TUNING):
            batch = job.batch(step)
            with attention.capture(unet, branch="both", grad=True) as maps:
                loss = job.loss(batch)["loss"]
            loss = loss + weight * beside(maps.at(0), batch, nouns)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            bar.update(1)
    return unet.eval().requires_grad_(False)


def beside(heat, batch, nouns):
    """How much of the attention (B,h,w,tokens) of each noun falls beside its object, at noisy
    levels: -log(share on it).

    Mean over all nouns (ids of world.KINDS) that a caption names and that stand in at least one
    cell.
    """
    kinds = torch.arange(1, len(nouns) + 1, device=nouns.device)
    on = batch["kind"][:, None] == kinds[:, None, None]  # (B,kinds,h,w)
    word = (batch["ids"][:, None] == nouns[:, None]).float()  # (B,kinds,tokens)
    mass = torch.einsum("bhwt,bkt->bkhw", heat, word)
    counts = on.flatten(2).any(2) & word.any(2) & (batch["t"] > NOISY)[:, None]  # (B,kinds)
    share = (mass * on).sum((2, 3))[counts] / mass.sum((2, 3))[counts]
    return -share.clamp(min=1e-6).log().mean() if len(share) else heat.new_zeros(())


# Words, and pictures that are there


@measured(48, "tinyworld", "tinyworld-judge")
def injection(n, pipe, judge):
    """Prompt-to-Prompt's remark: the same noise does not keep a picture when a word changes; its
    attention has to be kept. "A red cat" becomes "a red dog" with the cat's attention for a share
    of the steps: how often the dog appears, how far from the cat's place, and how much changed in
    all.
    """
    rows = {}
    for keep in (0.0, 0.4, 0.8):
        edit = reword(pipe, "a red cat", "a red dog", keep=keep, n=n, **HOW, batch=metrics.BLOCK)
        before, after = edit.settings["before"], edit.tensor
        cats = torch.stack([middle_of(found, "cat") for found in judge.found(before)])
        dogs = torch.stack([middle_of(found, "dog") for found in judge.found(after)])
        gap = (cats - dogs).norm(dim=1)
        rows[f"attention kept for {keep:.0%} of the steps"] = {
            "a dog appears": ~dogs.isnan().any(1),
            "from the cat's place (share of the side)": gap[~gap.isnan()],
            "change (share of range)": metrics.rms(
                (after - before) / 2, torch.ones_like(after[:, :1])
            ).cpu(),
        }
    return rows


@measured(24, "tinyworld", "tinyworld-judge")
def repainting(n, pipe, judge):
    """Fresh noise in a box until the judge sees the prompted object there, at most 12 tries: tries,
    successes, and how much the rest of the picture moved. One picture for each prompt, in which the
    object was not in the box before.
    """
    tries, met, outside, inside = [], [], [], []
    with progress(n, "repainting", "picture") as bar:
        for i, (phrases, prompt) in enumerate(naming(n, 1)):
            box = BOXES[i % 2]

            def seen(images, box=box, phrases=phrases):
                return placed(judge, images, phrases, [box])

            edit = repaint(pipe, prompt, box, n=1, seed=i, until=seen, tries=12, **HOW)
            if not seen(edit.settings["before"])[0]:
                tries += edit.settings["tries"]
                met += edit.settings["met"]
                outside.append(edit.settings["moved"]["outside"])
                inside.append(edit.settings["moved"]["inside"])
            bar.update(1)
    return {"repaint": {
        "the object came": torch.tensor(met),
        "tries (of at most 12)": torch.tensor(tries).float(),
        "the rest moved (share of range)": torch.cat(outside).cpu(),
        "the box changed (share of range)": torch.cat(inside).cpu(),
    }}  # fmt: skip


@measured(32, "tinyworld", "tinyworld-judge")
def inverted(n, pipe, judge):
    """Re-painting of pictures that were not generated, as a way of inpainting: their noise is found
    by DDIM inversion, drawn anew in the box, and everything is made again with the truth's caption;
    against latent blending.
    """
    rows = {"inversion, fresh noise in the box": [], "latent blending": []}
    for k, tasks in blocks(n, pipe, "inverted"):
        made = []
        for i in range(len(tasks)):
            whole = world.captions(tasks.scenes[i], setting=0.0)[0]
            before = world.captions(world.without(tasks.scenes[i], tasks.slot[i]), setting=0.0)[0]
            how = dict(
                image=tasks.image[i : i + 1], caption=before, new_seed=16 * k + i, refine=1, **HOW
            )
            made.append(repaint(pipe, whole, tasks.mask[i : i + 1], **how))
        tensor = torch.cat([edit.tensor for edit in made]).cpu()
        rows["inversion, fresh noise in the box"].append(
            seen_inside(judge, tensor, tasks) | seen_outside(tensor, tasks)
        )
        edit = edited(pipe, tasks, k)
        rows["latent blending"].append(
            seen_inside(judge, edit.tensor, tasks) | seen_outside(edit.tensor, tasks)
        )
    return {label: joined(parts) for label, parts in rows.items()}


ROUND_TRIPS = {
    "1 call a move": dict(refine=1),
    "3 calls a move": dict(refine=3),
    "1 call, guidance 3": dict(w=3.0),
}


@measured(16, "tinyworld")
def inversions(n, pipe):
    """The way to the noise and back: pictures of the world, encoded, inverted and made again by
    DDIM of 25 steps with the caption, without guidance unless said. PSNR to the picture, so what
    the autoencoder loses is in it.
    """
    rows = {label: [] for label in ROUND_TRIPS}
    for _, tasks in blocks(n, pipe, "inversions"):
        for i in range(len(tasks)):
            said = world.captions(tasks.scenes[i])[0]
            for label, how in ROUND_TRIPS.items():
                noise = invert(pipe, tasks.truth[i : i + 1], said, steps=25, **how)
                down = settled(Drawing, invert, pipe, dict(steps=25, w=how.get("w", 1.0)))
                again = decode(pipe.vae, Walk.of(pipe, said, down).down(noise))
                rows[label].append({"PSNR (dB)": metrics.psnr(again.cpu(), tasks.truth[i : i + 1])})
    return {label: joined(parts) for label, parts in rows.items()}
