"""How a method's options are chosen and checked: what was asked for, else a preset's, else the
model's, else the papers'.

Each method has a frozen dataclass of options. Types come from its fields, ranges from RANGES by
name, because a name means the same everywhere. Next: door.py, then the methods in papers/.
"""

import ast
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from inspect import Parameter, signature
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

import torch
from torch import Tensor

from . import cards, images
from .errors import Refused, WrongType

# name: (smallest, largest, what it is); both ends are allowed.
RANGES = {
    "w": (-1000, 1000, "a guidance weight, 1 is none and 7.5 usual"),
    "invert_w": (-1000, 1000, "a guidance weight, 1 is none"),
    "eta": (0, 1, "the share of fresh noise, 0 is DDIM and 1 is DDPM"),
    "skip": (0, 0.999999, "a share of the steps, 0.25 leaves out a quarter of them"),
    "scale": (0, 1e6, "the weight of the CLIP distance, the official code takes 1000"),
    "background": (0, 1e6, "the weight of the background, the paper takes 100 to 10000"),
    "range_scale": (0, 1e6, "the weight of what leaves [-1,1], the official code takes 50"),
    "augmentations": (1, 1024, "take 1 with unwarped=1 for none"),
    "unwarped": (0, 1024, "how many of the copies are not warped"),
    "lr": (1e-9, 1000, "it says how far a step goes, so take more than 0"),
    "steps": (-math.inf, math.inf, "it counts the steps, so take 1 or more"),  # see Schedule
    "lam": (0, 1e9, "it weighs the source outside, so take 0 or more (the paper: 100)"),
    "plateau": (0, 0.999999, "a share of the loss, 0.02 is usual and 0 never stops early"),
    "blocks": (0, 1000, "how many up blocks are tuned, or 'all'"),
    "noise": (0, 1000, "it is a standard deviation, so take 0 (none) or more"),
    "refine": (1, 1000, "the calls of the network for each move up"),
    "resamplings": (1, 100, "the passes at each level, 1 is the plain method"),
    "resample_above": (0, 10**6, "a level; passes are repeated above it only"),
    "noises": (1, 1000, "how many noises to choose from, 1 is the first and 8 usual"),
    "shrink": (0, 1000, "a number of dilations, 0 is none and 3 the paper's"),
    "offset": (0, math.inf, "it is added to every level, so take 0 or more; 1 is usual"),
    "strength": (0, 1000, "the weight of the attention guidance, 0.1 is usual"),
    "block": (1, 10**4, "the side of a block in cells of the latent, so take 1 or more"),
    "classes": (0, 10**6, "it is the number of a class, or 'random'"),
    "keep": (0, 1, "it is a share of the steps, 0.8 keeps the attention for four in five"),
    "tries": (1, 10**6, "it is the budget for each picture, so take 1 or more"),
    "radius": (0, 10**4, "the pixels to grow by on each side, 0 is none"),
    "moves": (1, 10**6, "it counts the moves, so take 1 or more"),
    "T": (1, 10**6, "it counts the levels, 1000 is usual"),
    "beta0": (1e-12, 1, "the share of noise that the first level adds, 1e-4 is usual"),
    "beta1": (0, 1, "the share of noise that the last level adds, 0.02 is usual"),
    "start": (0, 10**9, "the number of the first sample, 0 is usual"),
    "horizon": (0, 1, "where the sky ends, 0.55 is usual"),
    "around": (1, 100, "the side of the crop in sides of the mask's box, 1.5 is usual"),
    "window": (0, 10**5, "the side in pixels of a square around the mask, 0 is the whole picture"),
    "batch": (1, 10**6, "how many are made at once, so take 1 or more"),
    "first": (0, 10**9, "the number of the first sample, 0 is usual"),
    "n": (1, 10**5, "it counts the edits to make, so take 1 or more; more go on with first="),
    "seed": (-(2**63), 2**64, "it numbers the random draws, 0 is usual"),
    "new_seed": (-(2**63), 2**64, "it numbers the fresh draws, 1 is usual"),
}

ADAM = (1, 10**6, "it counts the steps of Adam, so take 1 or more")  # what steps mean in tuning

# What other libraries call it.
ALIASES = {
    "negative_prompt": "negative",
    "generator": "seed",
    "num_inference_steps": "steps",
    "guidance_scale": "w",
    "strength": "skip",
    "num_images_per_prompt": "n",
    "padding_mask_crop": "around",
    "num_samples": "n",
    "cfg": "w",
}


Chosen = TypeVar("Chosen", bound="Options")


@dataclass(frozen=True)
class Options:
    """The base of such a dataclass: it refuses values of another type or out of range."""

    SPANS: ClassVar[dict[str, tuple]] = {}  # in the place of RANGES, where a name means another

    def __post_init__(self):
        for f in fields(self):
            check(f.name, getattr(self, f.name), f.type, self.SPANS.get(f.name))


def check(name: str, value, kind, span=None) -> None:
    """Refuse a value not of its kind (a type, a Literal or a union), or out of span or RANGES."""
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if value is None and NoneType in kinds:
        return
    words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    numeric = int in kinds or float in kinds
    if words and (isinstance(value, str) or not numeric):
        choice(name, value, words)
    elif bool in kinds:
        if not isinstance(value, bool):
            raise Refused(f"{name} is {value!r}; choose True or False")
    elif numeric:
        number(name, value, whole=float not in kinds, span=span)
    elif tuple[int, ...] in kinds:
        if not isinstance(value, list | tuple | range) or not all(type(i) is int for i in value):
            raise Refused(f"{name} is {value!r}; pass whole numbers, as in (0,)")


def choice(name: str, value, words) -> None:
    """Refuse what is none of the words."""
    if value not in tuple(words):
        raise Refused(f"{name} is {value!r}; choose {' or '.join(map(repr, words))}")


def number(name: str, value: Any, whole=True, span=None) -> None:
    """Refuse what is no number (a whole one), not finite, or out of the range of its name.

    span: (smallest, largest, what it is) where the name means something else.
    """
    kind = "an integer" if whole else "a number"
    low, high, meaning = span or RANGES.get(name, (-math.inf, math.inf, kind))
    fix = ": of a Generator, pass generator.initial_seed()" * hasattr(value, "initial_seed")
    if isinstance(value, bool) or not isinstance(value, Integral if whole else Real):
        raise Refused(f"{name} is {value!r}, not {kind}; {meaning}{fix}")
    inside = low <= value <= high  # type: ignore[operator]  # mypy knows no order of Real
    if not inside or value in (math.inf, -math.inf):
        ends = f" ({low:g} to {high:g})" if math.isfinite(high) else ""
        raise Refused(f"{name} is {value}; {meaning}{ends}")


def tensor(name: str, x, form: str, bools=False) -> None:
    """Refuse what is no tensor of a form, as in "B,1,H,W": letters are sizes from 1 on.

    bools: whether these pass, too.
    """
    wanted, is_tensor = form.split(","), isinstance(x, Tensor)
    fits = is_tensor and x.ndim == len(wanted) and x.numel() > 0
    if not fits or any(w.isdigit() and int(w) != n for w, n in zip(wanted, x.shape, strict=True)):
        given = f"({','.join(map(str, x.shape))})" if is_tensor else f"a {type(x).__name__}"
        raise Refused(f"{name} is {given}: pass a tensor ({form})")
    if x.is_complex():
        raise Refused(f"{name} holds complex numbers: pass {name}.real")
    if x.dtype == torch.bool and not bools:
        raise Refused(f"{name} holds bools: pass {name}.float()")


def sides(size) -> None:
    """Refuse what is no height and width."""
    pair = isinstance(size, list | tuple) and len(size) == 2
    if not pair or not all(type(side) is int and side > 0 for side in size):
        raise Refused(f"size is {size!r}: pass (height, width), whole numbers from 1 on")


def function(name: str, value, what: str, needed=False) -> None:
    """Refuse what is given for a function, but cannot be called; None is one left out."""
    if not callable(value) and (needed or value is not None):
        raise Refused(f"{name} is {value!r}, which cannot be called: pass {what}")


@dataclass(frozen=True)
class EditMethod:
    """What the command line has to know of an editing method.

    change: its function, (model, image, mask, prompt, *, n, seed, ...), or with a Clip after the
            model. model: the name of the usual one. kind: the dataclass of its options.
    """

    change: Callable
    model: str
    kind: type[Options]

    @property
    def guided(self) -> bool:
        """Whether a CLIP guides it: its function takes one after the model."""
        return "clip" in list(signature(self.change).parameters)[:2]

    def check(self, asked: dict) -> None:
        """Refuse options that the method does not have, and values that a field does not take."""
        known(self.kind, self.change, asked)
        own = asked.keys() & {f.name for f in fields(self.kind)}
        self.kind(**{name: asked[name] for name in own})


METHODS: dict[str, EditMethod] = {}


def registered(model: str, kind: type[Options]):
    """Register the decorated function: `blendlab edit --method` finds it by its name."""

    def register(function):
        METHODS[function.__name__] = EditMethod(function, model, kind)
        return takes(kind)(function)

    return register


def takes(kind: type[Options]):
    """Show the fields of `kind` in the signature of a function that takes them as **options.

    help() and Jupyter then list them; None is one left out.
    """

    def show(function):
        own = signature(function).parameters
        left_out = [f.name for f in fields(kind) if f.name not in own]
        shown = [p for p in own.values() if p.kind is not p.VAR_KEYWORD]
        shown += [Parameter(name, Parameter.KEYWORD_ONLY, default=None) for name in left_out]
        function.__signature__ = signature(function).replace(parameters=shown)
        return function

    return show


def known(kind, method, asked: Iterable[str]) -> None:
    """Refuse names that are neither fields of `kind` nor taken by the method's function."""
    taken = signature(method).parameters.values()
    names = [f.name for f in fields(kind)]
    names += [p.name for p in taken if p.kind is p.KEYWORD_ONLY and p.name not in names]
    for name in asked:
        if name not in names:
            raise WrongType(_unknown(method.__name__, name, names))


def pairs(texts: Iterable[str], example: str, flags: Iterable[str]) -> dict:
    """["noises=8", "mask_rule=any"] as {name: value}: what Python reads as a value, else text.

    flags: names that have an option of their own, and are refused here.
    """
    for text in texts:
        name, equals, _ = text.partition("=")
        if not name or not equals:
            raise Refused(f"{text!r} is no setting; write NAME=VALUE, as in {example}")
        if name in flags:
            raise Refused(f"{name} is no setting: it is an option of its own")
    return {name: _value(text) for name, _, text in (text.partition("=") for text in texts)}


def _value(text: str):
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return text


def settle(
    kind: type[Chosen], method, model, presets, fallback, preset, asked, recommended=None
) -> Chosen:
    """The options (of class `kind`) to use for a method, by its function, with a model.

    preset: a name in `presets`, or options, or None. asked: {name: value}, None for what was left
            out.
    recommended: by the model; None: what its card says for the method.
    """
    if preset not in (None, *presets) and not isinstance(preset, kind):
        raise Refused(
            f"there is no preset {preset!r}; choose {', '.join(presets)}, or pass a {kind.__name__}"
        )
    known(kind, method, asked)
    how = presets[preset] if isinstance(preset, str) else preset or kind()
    how = replace(how, **{name: value for name, value in asked.items() if value is not None})
    if recommended is None:
        recommended = cards.settings(model, method.__name__)
    known(kind, method, recommended)
    left = {name: v for name, v in (fallback | recommended).items() if getattr(how, name) is None}
    how = replace(how, **left)
    if not recommended and any(v for v in left.values() if isinstance(v, int | float)):
        used = ", ".join(f"{name}={value}" for name, value in left.items())
        images.warn(
            f"this model recommends no settings for {method.__name__}, so it runs with {used}: "
            "pass them to choose"
        )
    return how


def _unknown(method, name, names):
    near = [ALIASES[name]] if ALIASES.get(name) in names else get_close_matches(name, names, 1)
    hint = f"; you may mean {near[0]!r}" if near else ""
    if name == "strength" and "skip" in names:
        hint += ", the share left out: strength=0.75 is skip=0.25"
    return f"{method} has no option {name!r}; it has {', '.join(names)}{hint}"
