"""Words for scenes: plain captions as an editor would type them, and rich ones that name more."""

from functools import cache

import torch

from .noise import uniform
from .scenes import COLOURS, GROUNDS, KINDS, PATTERNS, SIGN_WORDS, TIMES, Scenes

_TIME = {"day": "in the day", "sunset": "at sunset", "night": "at night"}
_WHERE = {
    "grass": "on grass",
    "sand": "on sand",
    "snow": "on snow",
    "water": "on water",
    "stone": "on stone",
}


def captions(scenes: Scenes, seed: int = 0, rich: float = 0.0, setting: float = 0.5) -> list[str]:
    """One caption a scene; which words are left out is drawn per scene from seed.

    Objects are named in either order. rich: share of captions that also name pattern, accent colour
    and the word on a sign. setting: share that name ground and time as well ("on snow at night"),
    or now and then one of the two.
    """
    draw = uniform(seed, torch.arange(len(scenes)), 7, 12)
    # A caption drawn for scene content, not batch position: mix in what the scene looks like.
    draw = (
        (draw + scenes.look[:, :1].cpu() + 0.618 * scenes.look[:, 1:2].cpu()).remainder(1).tolist()
    )
    rows = torch.stack(
        [scenes.kind, scenes.colour, scenes.accent, scenes.pattern, scenes.word], -1
    ).tolist()
    places = zip(scenes.ground.tolist(), scenes.time.tolist(), strict=True)
    return [
        _caption(r, GROUNDS[g], TIMES[t], u, rich, setting)
        for r, (g, t), u in zip(rows, places, draw, strict=True)
    ]


def _caption(objects, ground: str, time: str, u: list[float], rich: float, setting: float) -> str:
    names = [_name(o, u[0] < rich) for o in objects if o[0] >= 0]
    if u[1] < 0.5:
        names.reverse()
    where = [_WHERE[ground], _TIME[time]]
    if not names:
        return " ".join(
            [ground, _TIME[time]]
            if u[2] < 0.7
            else [["nothing", *where[:1]], ["nothing", *where]][u[3] < 0.5]
        )
    listed = names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
    if u[2] >= setting:
        return listed
    return " ".join([listed, *(where if u[3] < 0.8 else where[:1] if u[3] < 0.9 else where[1:])])


def _name(o: list[int], rich: bool) -> str:
    kind, colour, accent, pattern, word = o
    noun = f"{COLOURS[colour]} {KINDS[kind]}"
    if not rich:
        return _article(noun)
    if KINDS[kind] == "sign":
        return f"{_article(noun)} that says {SIGN_WORDS[word]}"
    return (
        _article(f"{PATTERNS[pattern]} {noun} with {COLOURS[accent]}")
        if pattern
        else f"{_article(noun)} with {COLOURS[accent]}"
    )


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def describe(scenes: Scenes, slot: int | torch.Tensor, rich: bool = False) -> list[str]:
    """The name of one object of each scene, as in "a red mushroom": the prompt that asks for it.

    rich: also pattern, accent colour and the word on a sign. An empty slot is "nothing".
    """
    slot = torch.as_tensor(slot).cpu().expand(len(scenes))
    fields = torch.stack(
        [scenes.kind, scenes.colour, scenes.accent, scenes.pattern, scenes.word], -1
    ).cpu()
    objects = fields[torch.arange(len(scenes)), slot].tolist()
    return ["nothing" if o[0] < 0 else _name(o, rich) for o in objects]


@cache
def words() -> tuple[str, ...]:
    """Every word that a caption can hold, in alphabetical order (the comma is one too)."""
    small = "a an and at day in night nothing on says sunset that the with plain , .".split()
    return tuple(sorted({*small, *KINDS, *COLOURS, *GROUNDS, *TIMES, *PATTERNS, *SIGN_WORDS}))
