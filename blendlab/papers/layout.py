"""Layout (2305.03382, section 4.2): blocks of noise that a word looks at take its object along.

The noise that a picture starts from decides what appears where: the same noise puts objects at the
same places whatever the words (tendency.py), fresh noise in a region paints that region anew
(repaint.py), and blocks of noise that a word looks at, carried into a box, take the object along.
Next: ../reader.py, which sees where the words look.
"""

from collections.abc import Iterable
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import attention, masks
from ..edit import Edit
from ..errors import Refused
from ..latents import decode
from ..options import takes
from ..reader import Reader, Reading
from ..schedule import read_from
from ..twins import twin
from ..walk import Walk, admit, settled


@dataclass(frozen=True)
class Arranging(Reading):
    """How blocks of noise are carried into boxes. The defaults: the published smaller edit."""

    # swap: only what is missing in a box comes, what was there goes to its places
    # (utils.py:324-360); arrange: a box is filled in the order of attention and everything else
    # closes ranks (:263-292); paper: section 4.2's exchange at random around A_min; none: the noise
    # stays.
    rule: Literal["swap", "arrange", "paper", "none"] = "swap"
    # Which cells are whose, for swap and arrange. best: so that in all the words look at theirs the
    # most; greedy: as the published code shares them out, for one word or two (:85-97, :203-241).
    sharing: Literal["best", "greedy"] = "best"
    # What a word's attention is compared with: nothing, as published (plain), or its mean over
    # other noises at the same cell (relative). A plain map has the same bright cells for any
    # noise. The table relative_maps cannot tell the two apart, so the published way is the default.
    heat: Literal["plain", "relative"] = "plain"
    # The peers' attention guidance: more attention for a word in its box (paint-with-words,
    # 2211.01324), or in a Gaussian shape around its middle (2304.13427).
    guide: Literal["mask", "soft", "none"] = "none"
    strength: float | None = None  # of that guidance, as a share of the published one's
    widen: bool = False  # every box by one cell of each layer that is guided, as published
    # Side of a block in latent cells; None: one cell of the attention, 4 for the paper's.
    block: int | None = None
    # before which steps blocks are carried; the published code: the first alone
    at: tuple[int, ...] = (0,)


# utils.py:188-241 and 324-360
PRESETS = {
    "published": Arranging(
        heat="plain", sharing="greedy", widen=True, strength=1.0, eta=0.0, w=7.5, steps=50
    )
}

# attention.py:176-232: the guidance falls from this to nothing, in equal steps; the first of the 50
# has 4.508. Each box is a cell wider there, in each layer; here on both sides, with widen=True.
PUBLISHED = 4.6
STRENGTH = 0.1


@takes(Arranging)
@torch.no_grad()
def layout(
    pipe, prompt: str, boxes, *,
    image=None, noise=None, caption=None, preset=None, negative="",
    n=1, seed=0, batch=None, first=0, **options,
) -> Edit:  # fmt: skip
    """Make a picture with each object in its box, by carrying noise there; return an `Edit`.

    boxes:  [("cat", (x0, y0, x1, y1)), ...] in fractions; a word or phrase of the prompt each, as
            in "red cat". Where boxes overlap, the smallest one gets the cells
    rule:   "swap", "arrange", "paper" or "none"; guide: "mask", "soft" or "none"; layers: whose
            attention of the first step decides. See Arranging
    preset: "published": as the authors' code, whatever the defaults are. heat: "plain" or
            "relative", see Arranging
    image, noise, caption: start from the noise of this picture, which `caption` (None: the prompt)
            describes, or from this noise (1 or n,C,h,w)
    w, steps, options: any field of Arranging, as in block=2, at=(0, 5), strength=0.3
    n, seed, batch, first: how many, from which seed, how many at once, the number of the first.
                           Sample i is the same whatever n, batch and first are

    settings["noise"]: the noise as it was carried (n,C,h,w), in cells of the latent. The rest is on
    its blocks, H x W: "origin": (n,H*W), where each comes from; "attention": (n,words,H,W), where
    the words looked before; "cells": (words,H,W), which are whose.
    """
    how = settled(Arranging, layout, pipe, options, PRESETS, preset, strength=STRENGTH)
    caption = prompt if caption is None else caption
    counts = dict(n=n, seed=seed, batch=batch, first=first)
    request = admit(pipe, [prompt, caption], negative, image, noise, how, **counts)
    words, boxes = _pairs(boxes)
    idle = options.keys() & {"strength", "widen"} if how.guide == "none" else ()
    if idle and "guide" not in options:
        raise Refused(f"{min(idle)}= is of the attention guidance: choose guide='mask' or 'soft'")
    if none := [i for i in how.at if not 0 <= i < how.steps]:
        raise Refused(f"at= names step {none[0]}: take steps from 0 to {how.steps - 1}")
    if how.heat == "relative" and max(how.at, default=0):
        raise Refused(
            "heat='relative' compares with maps of the first step: take at=(0,), or plain"
        )
    if how.sharing == "greedy" and len(words) > 2:
        raise Refused(f"sharing='greedy' is for one word or two, not {len(words)}: take 'best'")
    reader = Reader.of(pipe, prompt, words, request.shape, how.layers, how.block)
    regions = claimed(words, boxes, reader.cells)  # (words,h,w)
    shapes = _shapes(boxes, request.size, how.guide)
    chance = request.noise("exchange", range(request.n)).streams

    with request.memory():
        unet = twin(pipe.unet)  # hooks go to the twin
        reader = replace(reader, unet=unet)
        walk = Walk.of(pipe, prompt, how, negative, request.size, unet)
        z = Walk.of(pipe, caption, how, negative, request.size).start(request)
        first_level, *others = walk.timesteps[:-1]

        usual = reader.usual(walk, request) if how.heat == "relative" else 1.0

        def carry(x, t, rows):
            """The state with its blocks where the rule wants them, their origins, and the maps."""
            maps = reader.looks(walk.net, x, t, walk.text) / usual
            each = zip(maps.flatten(2), rows, strict=True)
            flat = regions.flatten(1)
            origin = [RULES[how.rule](m, flat, chance[i], how.sharing) for m, i in each]
            origin = torch.stack(origin)
            return move_blocks(x, origin.to(x.device), reader.block), origin, maps

        parts = []
        for rows, part in request.batches(z=z):
            x, origin, maps = carry(part.z, first_level, rows)
            if 0 not in how.at:
                x, origin = part.z, torch.arange(origin.shape[1]).expand_as(origin)
            lean = nullcontext
            if how.guide != "none":
                lean = _leaning(unet, len(rows), reader.places, shapes, how, walk.timesteps)
            for step in walk.steps(x, request.noise("step", rows), lean):
                if step.i + 1 in how.at and step.t_next in others:
                    step.x, *_ = carry(step.x, step.t_next, rows)
            parts.append((decode(pipe.vae, step.x), step.x, x, origin, maps))
    tensor, latents, *rest = zip(*parts, strict=True)
    z, origin, maps = map(torch.cat, rest)
    used = dict(prompt=prompt, boxes=dict(zip(words, boxes, strict=True)), caption=caption)
    used |= dict(negative=negative, noise=z, origin=origin, attention=maps, cells=regions)
    used |= read_from(pipe.scheduler) | asdict(how) | dict(block=reader.block, layers=reader.layers)
    return request.finish(tensor, latents, used)


def claimed(words, boxes, cells) -> Tensor:
    """(words,h,w) bool: cells whose middle is in each box; the smallest has precedence."""
    inside = torch.cat([masks.from_box(box, cells)[:, 0] for box in boxes]) > 0
    free, regions = torch.ones(cells, dtype=torch.bool), torch.zeros_like(inside)
    for i in inside.sum((1, 2)).argsort(stable=True).tolist():
        regions[i], free = inside[i] & free, free & ~inside[i]
        if not regions[i].any():
            raise Refused(
                f"smaller boxes cover all of the box of {words[i]!r}: move it, or make them smaller"
            )
    return regions


# The rules: maps and regions (words,cells) of a sample to the old place of each block (cells,)


def shared_out(maps, regions, sharing="best") -> list[Tensor]:
    """For each word as many cells as its region has, where in all the words look the most.

    greedy: each cell goes to the word with the most attention, then each word takes its best cells,
    and, where it has too few, the weakest cells of the other word. With one word the result is the
    same; with two it is rarely optimal; three are not supported.
    """
    if sharing == "greedy":
        return _greedy(maps, regions)
    from scipy.optimize import linear_sum_assignment

    wanted = regions.sum(1)
    rows = torch.arange(len(maps)).repeat_interleave(wanted)  # a row for each cell that is wanted
    _, cells = linear_sum_assignment(maps[rows].numpy(), maximize=True)
    return torch.as_tensor(cells).split(wanted.tolist())


def _greedy(maps, regions):
    owner, chosen = maps.argmax(0), []
    for i, (heat, region) in enumerate(zip(maps, regions, strict=True)):
        own, others = (owner == i).nonzero()[:, 0], (owner != i).nonzero()[:, 0]
        rest = maps[1 - i, others] if len(maps) == 2 else heat[others]
        ranked = [own[heat[own].argsort(descending=True)], others[rest.argsort()]]
        chosen.append(torch.cat(ranked)[: region.sum()])
    return chosen


def swap(maps, regions, stream=None, sharing="best") -> Tensor:
    """Blocks already inside stay; those that come and those that go exchange their places."""
    origin, comes, goes = torch.arange(maps.shape[1]), [], []
    for mine, region in zip(shared_out(maps, regions, sharing), regions, strict=True):
        other = region.clone()
        other[mine] = False
        comes += [mine[~region[mine]].sort().values]
        goes += [other.nonzero()[:, 0]]
    comes, goes = torch.cat(comes), torch.cat(goes)
    origin[goes] = comes

    # A block may come from another region: what nobody wants goes where nobody came.
    origin[comes[~torch.isin(comes, goes)]] = goes[~torch.isin(goes, comes)]
    return origin


def arrange(maps, regions, stream=None, sharing="best") -> Tensor:
    """A region is filled row by row by attention; the others fill the rest in their old order."""
    origin, rest = torch.arange(maps.shape[1]), torch.ones(maps.shape[1], dtype=torch.bool)
    for mine, heat, region in zip(shared_out(maps, regions, sharing), maps, regions, strict=True):
        origin[region] = mine[heat[mine].argsort(descending=True)]
        rest[mine] = False
    origin[~regions.any(0)] = rest.nonzero()[:, 0]
    return origin


def paper(maps, regions, stream, sharing=None) -> Tensor:
    """Section 4.2: blocks outside above A_min and blocks inside below it change at random.

    A_min is the s-th largest attention, for a region of s cells. Word by word, and what a word has
    got stays its own.
    """
    origin, free = torch.arange(maps.shape[1]), torch.ones(maps.shape[1], dtype=torch.bool)
    for heat, region in zip(maps, regions, strict=True):
        heat = heat[origin]  # attention travels with its block
        least = heat.sort(descending=True).values[region.sum() - 1]
        pair = [(free & ~region & (heat > least)), (region & (heat < least))]
        pair = [some.nonzero()[:, 0] for some in pair]
        m = min(map(len, pair))
        comes, goes = (some[torch.randperm(len(some), generator=stream)[:m]] for some in pair)
        origin[goes], origin[comes] = origin[comes], origin[goes]
        free &= ~region
    return origin


RULES = {
    "swap": swap,
    "arrange": arrange,
    "paper": paper,
    "none": lambda maps, *_: torch.arange(maps.shape[1]),
}


def move_blocks(z: Tensor, origin: Tensor, block: int) -> Tensor:
    """Latents (B,C,h,w) whose block number i, block x block cells, was number origin[:, i]."""
    blocks = F.pixel_unshuffle(z, block)  # (B,C*block*block,h/block,w/block)
    origin = origin[:, None].expand(-1, blocks.shape[1], -1)
    return F.pixel_shuffle(blocks.flatten(2).gather(2, origin).view_as(blocks), block)


# Where the words look


@torch.no_grad()
def looks(
    pipe, prompt: str, words, noise: Tensor, *, layers=None, block=None, steps=None, heat="plain"
) -> Tensor:
    """(B,words,h,w): where words of a prompt look at the first step from a noise (B,C,h,w); 1 is
    the average, over the cells, or with heat="relative" over noises.
    """
    asked = dict(steps=steps, layers=layers, block=block, heat=heat)
    how = settled(Arranging, layout, pipe, asked)
    request = admit(pipe, [prompt], "", None, noise, how, n=None)
    reader = Reader.of(pipe, prompt, words, request.shape, how.layers, how.block)
    reader = replace(reader, unet=twin(pipe.unet))
    walk = Walk.of(pipe, prompt, how, size=request.size, unet=reader.unet)
    usual = reader.usual(walk, request) if how.heat == "relative" else 1.0
    return reader.looks(walk.net, request.given, walk.timesteps[0], walk.text) / usual


@contextmanager
def attend(unet, n, places, shapes, strength, widen=False):
    """In a `with`, words draw more attention in their shapes: strength * the largest logit.

    n: rows with the prompt, the last of a UNet's batch. places: of each word among the tokens.
    shapes: (words,h,w) in [0,1], at latent size; widen: by a cell of each layer on all sides.
    The largest logit is each sample's own, so that none depends on its neighbours.
    """

    def lean(attn, args, kwargs):
        hidden, text, given = args[0], kwargs["encoder_hidden_states"], kwargs.get("attention_mask")
        q = attn.head_to_batch_dim(attn.to_q(hidden[-n:])).float()
        k = attn.head_to_batch_dim(attn.to_k(text[-n:])).float()
        largest = (attn.scale * q @ k.transpose(1, 2)).unflatten(0, (n, -1)).amax((1, 2, 3))  # (n,)
        cells = attention.cells_of(hidden.shape[1], *shapes.shape[-2:])
        on = F.adaptive_avg_pool2d(shapes.to(q), cells)  # (words,h,w)
        on = (F.max_pool2d(on, 3, stride=1, padding=1) if widen else on).flatten(1)  # (words,cells)
        bias = q.new_zeros(len(hidden), on.shape[1], text.shape[1])  # (B,cells,tokens)
        for place, shape in zip(places, on, strict=True):
            bias[-n:, :, place] += strength * largest[:, None, None] * shape[:, None]
        bias = bias if given is None else bias + given
        return args, kwargs | {"attention_mask": bias.to(hidden.dtype)}

    with attention.hooked(dict.fromkeys(attention.cross_attention(unet).values(), lean)):
        yield


def _leaning(unet, n, places, shapes, how, timesteps):
    """For Walk.steps: the guidance of each level."""
    moves, most = len(timesteps) - 1, how.strength * PUBLISHED
    strength = {t: most * (1 - (i + 1) / moves) for i, t in enumerate(timesteps)}
    return lambda t: attend(unet, n, places, shapes, strength[t], how.widen)


def _shapes(boxes, size, guide):
    """(words,h,w): 1 in a box, or a Gaussian that has a standard deviation at its edges."""
    y, x = ((torch.arange(side) + 0.5) / side for side in size)
    shapes = []
    for x0, y0, x1, y1 in boxes:
        off = [(2 * at - low - high) / (high - low) for at, low, high in ((y, y0, y1), (x, x0, x1))]
        down, across = (
            torch.exp(-(d**2) / 2) if guide == "soft" else (d.abs() <= 1).float() for d in off
        )
        shapes.append(down[:, None] * across)
    return torch.stack(shapes)


# What was asked for


def _pairs(boxes):
    """Words and boxes, or a sentence that says how to pass them."""
    boxes = list(boxes) if isinstance(boxes, Iterable) else []
    several = boxes and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in boxes)
    if not several or not all(isinstance(word, str) for word, _ in boxes):
        raise Refused(
            "boxes is a list of a word and its box each: pass [('cat', (0.1, 0.5, 0.4, 0.9))]"
        )
    words = [word for word, _ in boxes]
    for word in (word for word in words if words.count(word) > 1):
        fix = f"tell its objects apart by phrases of the prompt, as 'red {word}'"
        raise Refused(f"{word!r} has several boxes: {fix}")
    return words, [masks.corners(box) for _, box in boxes]
