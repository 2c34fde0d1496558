"""How a method's options are chosen: what was asked for, else a preset's, else the model's, else
the papers'.

Each method has a frozen dataclass of options; a field that is a Literal takes only its values.
Next: the methods in papers/, such as blended_latent.py.
"""

from dataclasses import dataclass, fields, replace
from types import NoneType, UnionType
from typing import Literal, get_args, get_origin

from . import cards


@dataclass(frozen=True)
class Options:
    """The base of such a dataclass: it refuses words that a field does not know."""

    def __post_init__(self):
        for f in fields(self):
            value = getattr(self, f.name)
            kinds = (
                get_args(f.type)
                if get_origin(f.type) is UnionType or NoneType in get_args(f.type)
                else (f.type,)
            )
            words = [
                word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)
            ]
            if words and value not in words and not (value is None and NoneType in kinds):
                raise ValueError(f"{f.name} is {value!r}; choose {' or '.join(map(repr, words))}")


def settle(kind, method: str, model, presets: dict, fallback: dict, preset, asked: dict) -> Options:
    """The options (of class `kind`) to use for a method with a model.

    preset: a name in `presets`, or options, or None. asked: {name: value}, None for what was left
            out.
    """
    if isinstance(preset, str) and preset not in presets:
        raise ValueError(
            f"there is no preset {preset!r}; choose {', '.join(presets)}, or pass a {kind.__name__}"
        )
    names = [f.name for f in fields(kind)]
    for name in asked.keys() - names:
        raise TypeError(f"{method} has no option {name!r}; it has {', '.join(names)}")
    how = presets[preset] if isinstance(preset, str) else preset or kind()
    how = replace(how, **{name: value for name, value in asked.items() if value is not None})
    numbers = fallback | cards.settings(model, method)
    return replace(
        how, **{name: value for name, value in numbers.items() if getattr(how, name) is None}
    )
