"""Hundreds of bad calls, function by parameter by bad value: each ends in one good sentence.

A good sentence is raised by a line of blendlab (not by a library, nor by Python), names what is
wrong, and says what to do. `python tests/test_bad_calls.py` prints how many calls end how.
"""

import contextlib
import io
import math
import re
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from dataclasses import fields
from functools import cache
from pathlib import Path

import checkpoints
import colour_clip
import numpy as np
import test_exemplar
import torch
from PIL import Image

import blendlab as bl
from blendlab.papers.blended_latent import Blending
from blendlab.papers.clip_guidance import Guiding
from blendlab.papers.exemplar import Painting
from blendlab.papers.layout import Arranging
from blendlab.papers.paint_by_word import Optimising
from blendlab.walk import Drawing

PACKAGE = Path(bl.__file__).parent
FIX = re.compile(
    r"\b(pass|take|choose|give|make|paint|divide|its words are|shrink|get|save|check|load|clamp|shorten|leave|call|open"
    r"|has|have|knows|it is|may mean|replace|tell|go on|connect|scale it|resize|it counts|how many"
    r"|it numbers|the nearest is|takes 1 to|they are|a guidance weight|the (share|weight|passes|calls|number|side)|a share|or more"
    r"|a number of|a level|it says|it weighs)\b"
)


class Stranger:
    """An object of no use."""

    def __repr__(self):
        return "Stranger()"


# Bad values by what a parameter is.

NAN, INF = math.nan, math.inf
ANYTHING = [Stranger(), b"bytes", {}, 1j]


def grey(*shape, value=0.5):
    return torch.full(shape, value)


@cache
def white_middle():
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:48, 16:48] = 1
    return mask


def pictures():
    see_through = Image.new("RGBA", (64, 64), (0, 0, 0, 9))
    return [
        None, 3, NAN, [], ["a", "b"], "no/such.png", Path("no/such.png"), ".", "", *ANYTHING,
        np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64)), np.array("cat"),
        torch.zeros(3, 64, 64), torch.zeros(64, 64), torch.zeros(()), torch.zeros(0, 3, 64, 64),
        torch.zeros(1, 1, 64, 64), torch.zeros(1, 4, 64, 64), torch.zeros(1, 64, 64, 3),
        grey(1, 3, 64, 64, value=NAN), grey(1, 3, 64, 64, value=INF),
        grey(1, 3, 64, 64, value=200.0), torch.zeros(1, 3, 64, 64, dtype=torch.uint8),
        torch.zeros(1, 3, 64, 64, dtype=torch.complex64), torch.zeros(1, 3, 64, 64).to_sparse(),
        torch.zeros(1, 3, 64, 64, device="meta"),
        see_through, Image.new("CMYK", (64, 64)), Image.new("I;16", (64, 64), 999),
        Image.new("F", (64, 64)), Image.new("RGB", (0, 0)),
    ]  # fmt: skip


def placed_pictures():
    """Also wrong for a model, or beside a mask."""
    return [*pictures(), torch.zeros(1, 3, 60, 61), torch.zeros(1, 3, 32, 32)]


def bad_masks():
    return [
        *pictures()[:-6], torch.zeros(1, 3, 64, 64), torch.zeros(1, 64, 64), torch.zeros(64, 64),
        torch.zeros(1, 1, 64, 64), grey(1, 1, 64, 64), torch.ones(1, 1, 32, 32),
        -white_middle(), 255 * white_middle(), grey(1, 1, 64, 64, value=NAN),
        Image.new("L", (64, 64), 100), Image.new("L", (64, 64)), Image.new("RGB", (64, 64), "red"),
        white_middle().to(torch.complex64), white_middle().expand(3, -1, -1, -1),
    ]  # fmt: skip


TEXTS = [None, 3, *ANYTHING, [None], [3], [], "cat " * 100, "\ud800", Path("cat")]
COUNTS = [0, -1, 1.5, NAN, INF, "3", True, [1], 10**30, *ANYTHING, torch.tensor(2.0)]
SEEDS = [None, 1.5, NAN, "0", True, [0], 10**30, -(10**30), torch.Generator(), *ANYTHING]
NUMBERS = ["4", NAN, INF, -INF, True, [1.0], 1e30, -1e30, *ANYTHING, torch.ones(2)]
CHOICES = ["magic", "", 3, True, [], ["magic"], *ANYTHING]
FLAGS = ["no", 1, 0, None, [], *ANYTHING]
FUNCTIONS = ["yes", 3, [], *ANYTHING]
BOXES = [
    3, NAN, "cat", (0, 0), (0, 0, 1), (0, 0, 1, 2), (0.5, 0.5, 0.5, 0.5), (NAN, 0, 1, 1), (0,) * 5,
    ("a", "b", "c", "d"), (None,) * 4, (0.9, 0, 0.1, 1), [], *ANYTHING,
]  # fmt: skip
PAIRS = [
    None, 3, "cat", [], [3], ["cat"], [("cat",)], [("dog", (0, 0, 1, 1))], [(3, (0, 0, 1, 1))],
    [("cat", box) for box in [(0, 0, 1, 1)] * 2], *([("cat", box)] for box in BOXES), *ANYTHING,
]  # fmt: skip
LAYERS = ["nowhere", 3, [3], "", [], *ANYTHING]


def starts():
    """Bad noises to start from."""
    return [
        3, "noise", [], *ANYTHING, np.zeros((1, 4, 8, 8)), torch.zeros(4, 8, 8),
        torch.zeros(1, 3, 8, 8), grey(1, 4, 8, 8, value=NAN), torch.zeros(2, 4, 8, 8),
        torch.zeros(0, 4, 8, 8), torch.zeros(1, 4, 0, 0), torch.zeros(1, 4, 8, 8).long(),
    ]  # fmt: skip


def models():
    clip = colour_clip.ColourClip(colour_clip.ColourModel())
    return [None, "tinyworld", 3, torch.nn.Linear(1, 1), clip, *ANYTHING]


def clips():
    return ["ViT-B-32", 3, torch.nn.Linear(1, 1), checkpoints.pixel(), *ANYTHING]


# Good calls, and what each parameter is.


@cache
def latent_model():
    return checkpoints.sd1()


@cache
def pixel_model():
    return checkpoints.pixel()


@cache
def exemplar_model():
    return test_exemplar.build()


@cache
def clip_model():
    return colour_clip.ColourClip(colour_clip.ColourModel())


def look_alike(a, b):
    return (a - b).square().mean((1, 2, 3))


COMMON = dict(n=COUNTS, seed=SEEDS, batch=COUNTS)
EDITING = COMMON | dict(first=["0", -1, *COUNTS[2:]], image=placed_pictures(), mask=bad_masks())
WORDS = dict(prompt=TEXTS, negative=TEXTS[1:])
GUIDED = EDITING | dict(
    prompt=TEXTS, model=[*models(), checkpoints.sd1()], clip=clips(), ranking=CHOICES
)
NOISED = COMMON | dict(
    pipe=[*models(), checkpoints.pixel()], prompt=TEXTS, negative=TEXTS[1:], layers=LAYERS,
    image=placed_pictures()[1:-1], noise=starts(),
)  # fmt: skip


def options(kind):
    """Bad values for each field of a dataclass of options; None may mean "the model's"."""
    bad = {}
    for f in fields(kind):
        said = str(f.type)
        if "Literal" in said:
            bad[f.name] = CHOICES
        elif "bool" in said:
            bad[f.name] = FLAGS[:3] + FLAGS[4:]
        elif "int" in said or "float" in said:
            bad[f.name] = [value for value in NUMBERS if value is not None]
    return bad | {"preset": ["magic", 3, [], *ANYTHING], "banana": [1]}


def calls():
    """(name, function, good arguments, {parameter: bad values})."""
    image, mask = torch.zeros(1, 3, 64, 64), white_middle()
    place = dict(image=image, mask=mask)
    latent = dict(pipe=latent_model(), steps=1, w=1.0)
    pixel = dict(model=pixel_model(), clip=clip_model(), prompt="red", **place)
    pixel |= dict(steps=1, scale=1.0, augmentations=1, skip=0.0, eta=1.0)
    return [
        ("blended_latent", bl.blended_latent, latent | place | dict(prompt="a cat", skip=0.0),
         options(Blending) | EDITING | WORDS
         | dict(pipe=[*models(), pixel_model()], clip=clips(), shrink=["3", -1, 1.5, NAN, [NAN],
                ["a"], *ANYTHING])),
        ("blended", bl.blended, pixel, options(Guiding) | GUIDED),
        ("clip_guided", bl.clip_guided, pixel | dict(perceptual=look_alike),
         options(Guiding) | GUIDED | dict(background=NUMBERS, perceptual=FUNCTIONS)),
        ("paint_by_word", bl.paint_by_word,
         dict(pipe=latent_model(), clip=clip_model(), prompt="red", steps=1, lr=0.1, **place),
         options(Optimising) | EDITING
         | dict(prompt=TEXTS, pipe=[*models(), pixel_model()], clip=clips(), ranking=CHOICES)),
        ("exemplar", bl.exemplar,
         dict(pipe=exemplar_model(), reference=torch.rand(1, 3, 32, 32), steps=1, w=1.0, skip=0.0,
              eta=0.0, **place),
         options(Painting) | EDITING
         | dict(pipe=[*models(), latent_model()], reference=pictures()[:-4], region=BOXES)),
        ("invert", bl.invert, dict(image=image, prompt="a cat", **latent),
         dict(pipe=[*models(), pixel_model()], image=placed_pictures()[:-1], prompt=TEXTS,
              negative=TEXTS[1:], steps=COUNTS, w=NUMBERS, refine=COUNTS, batch=COUNTS)),
        ("reword", bl.reword, latent | dict(prompt="a red car", changed="a red bus"),
         options(Drawing) | NOISED | dict(keep=[None, *NUMBERS], changed=TEXTS)),
        ("repaint", bl.repaint,
         latent | dict(prompt="a cat", region=(0, 0, 0.5, 0.5), distance=look_alike),
         options(Drawing) | {key: value for key, value in NOISED.items() if key != "layers"}
         | dict(region=[*BOXES, [(0, 0)], *bad_masks()], new_seed=SEEDS, until=FUNCTIONS,
                tries=COUNTS, caption=TEXTS[1:2], distance=FUNCTIONS, mask_rule=CHOICES)),
        ("layout", bl.layout, latent | dict(prompt="a cat", boxes=[("cat", (0, 0, 0.5, 0.5))]),
         options(Arranging) | NOISED
         | dict(boxes=PAIRS, caption=TEXTS[1:2], at=[3, "0", [NAN], ["a"], *ANYTHING])),
        ("reconstruct", bl.reconstruct,
         dict(pipe=latent_model(), edit=torch.zeros(1, 4, 8, 8), steps=1, lr=1e-4, **place),
         dict(pipe=[*models(), pixel_model()], edit=[None, "edit", image, *starts()[:-4], *starts()[-3:]],
              image=placed_pictures(), mask=bad_masks(), method=CHOICES, steps=COUNTS,
              lam=NUMBERS, lr=[0, -1, *NUMBERS], preset=["magic", 3, [], *ANYTHING],
              blocks=["some", -1, 99, 1.5, True, *ANYTHING], plateau=[-1, 1, *NUMBERS],
              reuse=FLAGS, precision=CHOICES, together=FLAGS)),
        ("rank", bl.rank, dict(images=image, prompt="red", clip=clip_model(), mask=mask),
         dict(images=[*pictures(), [image, 3], [None], [image, torch.zeros(1, 3, 32, 32)]],
              prompt=[["a", "b"], *TEXTS], clip=[None, *clips()], mask=bad_masks()[1:],
              view=CHOICES, normalised=FLAGS)),
        ("load", bl.load, dict(name="tinyworld-clip", device="cpu"),
         dict(name=[None, 3, "", "magic", "no/such/folder", Path("no"), ".", "a b", "\0", *ANYTHING],
              device=["gpu", "cuda:99", 3, "cpu:9", *ANYTHING],
              dtype=["float16", torch.int8, 3, *ANYTHING])),
    ]  # fmt: skip


# How a call ends

PATIENCE = 20  # seconds; the slowest good call takes one


class Hang(BaseException):
    """A call takes too long."""


def give_up(*_):
    raise Hang


signal.signal(signal.SIGALRM, give_up)


def outcome(function, given, name):
    """(kind, text): "sentence", "vague", "accepted", "warning" or "nan"."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                result = function(**given)
        except Hang:
            return "hang", ""
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            good = isinstance(error, (ValueError, TypeError, OSError)) and said_by_us(error)
            return "sentence" if good and names(str(error), name) else "vague", text
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    if not finite(result):
        return "nan", ""
    ours = [str(w.message) for w in warned if names(str(w.message), name)]
    return ("warning", ours[0]) if ours else ("accepted", "")


def said_by_us(error):
    """Whether a `raise` of blendlab made the error, not an instruction that failed."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    inside = PACKAGE in Path(last.filename).parents
    return inside and last.line.lstrip().startswith("raise")


# What a sentence may call a parameter.
OTHER = {"n": "n is|n=", "edit": "edit|latents", "pipe": "pipeline|bl.load", "model": "bl.load"}
OTHER |= {"normalised": "normalised", "prompt": "prompt|text|this CLIP", "changed": "prompt|text"}
OTHER |= {
    "images": "image",
    "preset": "preset",
    "region": "box|region",
    "boxes": "box|in the prompt",
}
OTHER |= {
    "negative": "negative|prompt",
    "layers": "layer",
    "mask_rule": "mask.rule",
    "caption": "prompt|caption",
    "name": "",
}


def names(sentence, name):
    return re.search(OTHER.get(name, name), sentence) and FIX.search(sentence)


def finite(result):
    found = result if isinstance(result, (tuple, list)) else [getattr(result, "tensor", result)]
    tensors = [x for x in found if isinstance(x, torch.Tensor) and x.is_floating_point()]
    numbers = [x for x in found if isinstance(x, float)]
    return all(x.isfinite().all() for x in tensors) and all(map(math.isfinite, numbers))


def main():
    counts, started = Counter(), time.time()
    for function, f, good, bad in calls():
        if sys.argv[1:] and function not in sys.argv[1:]:
            continue
        print(function, round(time.time() - started))
        for name, values in bad.items():
            for value in values:
                kind, text = outcome(f, good | {name: value}, name)
                counts[kind] += 1
                if kind != "sentence":
                    said = repr(value).replace("\n", " ")[:60]
                    if isinstance(value, torch.Tensor):
                        said = f"tensor {tuple(value.shape)} {value.dtype}"
                    print(f"{function} {name}={said}: {kind}: {text[:150]}", flush=True)
    print(dict(counts), sum(counts.values()), time.time() - started)


if __name__ == "__main__":
    main()
