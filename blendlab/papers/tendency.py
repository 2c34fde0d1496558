"""Tendency (initial image editing, 2305.03382, section 3): the same noise puts objects at the same
places, whatever the words are.

The attention of the first step foretells where. Next: layout.py, which makes use of it.
"""

import math
import re
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .. import door, prompts
from ..errors import Refused
from ..options import takes
from ..reader import Reader, Reading
from ..twins import twin
from ..walk import Walk, admit, settled


@dataclass
class Landing:
    """Where the objects of one word appear, noise by noise, and where the word looked before."""

    prompt: str
    word: str
    # (n,2) x and y of the middle of the largest one, in fractions; nan where the judge finds none
    place: Tensor
    attention: Tensor  # (n,h,w) of the first step

    def foretold(self) -> Tensor:
        """(m,) for each noise with one: the share of others that look there less (0.5: chance)."""
        there = ~self.place.isnan().any(1)
        maps, side = self.attention[there], torch.tensor(self.attention.shape[:0:-1])  # w, h
        x, y = (self.place[there] * side).long().minimum(side - 1).unbind(1)
        return _beaten(maps[:, y, x].T)  # (m,m): at the place of object i, the map of noise j


def agreement(one: Landing, other: Landing) -> Tensor:
    """(m,) for each noise with both: the share of others whose `other` is further (0.5: chance)."""
    there = ~(one.place + other.place).isnan().any(1)
    return _beaten(-torch.cdist(one.place[there], other.place[there]))


@takes(Reading)
@torch.no_grad()
def tendency(pipe, judge, said, *, n=16, seed=0, batch=None, **options) -> list[Landing]:
    """Make pictures of prompts from the same n noises; see where objects land (section 3).

    judge: bl.load("tinyworld-judge"), or whatever has its `kinds` and `found`
    said:  prompts; each of their words that the judge knows gives a Landing, in their order
    layers: whose attention is read, see reader.Reading. w, steps, options: see walk.Drawing; with
            eta above 0 every prompt draws fresh noise of its own, and only the initial noise is
            shared
    """
    how = settled(Reading, tendency, pipe, options)
    if not (hasattr(judge, "kinds") and hasattr(judge, "found")):
        raise Refused(f"{door.a(judge)} finds no objects: pass bl.load('tinyworld-judge')")
    said = prompts.listed(said)
    request = admit(pipe, said, "", None, None, how, n=n, seed=seed, batch=batch)
    readers, landings = {}, []
    for prompt in said:
        nouns = dict.fromkeys(re.findall(r"[\w'-]+", prompt.lower()))
        nouns = [word for word in nouns if word in judge.kinds]
        if not nouns:
            raise Refused(
                f"the judge knows no word of {prompt!r}; it knows {', '.join(judge.kinds)}"
            )
        readers[prompt] = nouns, Reader.of(pipe, prompt, nouns, request.shape, how.layers)

    with request.memory():
        unet = twin(pipe.unet)  # hooks go to the twin
        for prompt, (nouns, reader) in readers.items():
            walk, reader = Walk.of(pipe, prompt, how, unet=unet), replace(reader, unet=unet)
            z = walk.start(request)
            t = walk.timesteps[0]
            maps = [reader.looks(walk.net, x, t, walk.text) for x in z.split(request.at_once)]
            _, tensor = walk.pictures(z, replace(request, seed=f"{seed}/{prompt}"))
            found = judge.found(tensor)
            for word, heat in zip(nouns, torch.cat(maps).unbind(1), strict=True):
                place = torch.stack([middle_of(objects, word) for objects in found])
                landings.append(Landing(prompt, word, place, heat))
    return landings


def middle_of(objects, kind):
    """(2,) the middle of the first, which is the largest, of a kind; nan without one."""
    boxes = [one.box for one in objects if one.kind == kind]
    if not boxes:
        return torch.full((2,), torch.nan)
    x0, y0, x1, y1 = boxes[0]
    return torch.tensor([x0 + x1, y0 + y1]) / 2


def _beaten(scores):
    """For each row of (m,m) the share of others below its diagonal, ties half; nan without any."""
    m, own = len(scores), scores.diagonal()[:, None]
    wins = (own > scores).float() + 0.5 * (own == scores)
    return (wins.sum(1) - wins.diagonal()) / (m - 1 if m > 1 else math.nan)
