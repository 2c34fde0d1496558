"""tinyworld: a procedural world of small landscapes with known ground truth.

    scenes = world.sample(8, seed=3)         # numbers
    view = world.render(scenes, size=64)     # pictures, masks, boxes
    world.captions(scenes)                   # words

A counterfactual is the same scene with one change: added, without, changed, elsewhere.
"""

from .captions import captions, describe, words
from .render import PALETTE, View, render
from .scenes import (
    COLOURS,
    FAMILIES,
    GROUNDS,
    HELD_OUT,
    KINDS,
    PATTERNS,
    SIGN_WORDS,
    SIMPLE,
    SLOTS,
    TIMES,
    Scenes,
    added,
    cat,
    changed,
    elsewhere,
    sample,
    scene,
    simple,
    without,
)

__all__ = [
    "COLOURS",
    "FAMILIES",
    "GROUNDS",
    "HELD_OUT",
    "KINDS",
    "PALETTE",
    "PATTERNS",
    "SIGN_WORDS",
    "SIMPLE",
    "SLOTS",
    "TIMES",
    "Scenes",
    "View",
    "added",
    "captions",
    "cat",
    "changed",
    "describe",
    "elsewhere",
    "render",
    "sample",
    "scene",
    "simple",
    "without",
    "words",
]
