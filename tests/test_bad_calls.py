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
import tempfile
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
import pytest
import test_exemplar
import torch
from PIL import Image

import blendlab as bl
from blendlab import attention, cli, guidance, joins, latents, masks, prompts
from blendlab.clip_guidance import Guiding
from blendlab.measuring import metrics
from blendlab.networks import opening
from blendlab.networks.load import load
from blendlab.noise import Noise
from blendlab.papers.blended_latent import Blending
from blendlab.papers.exemplar import Painting
from blendlab.papers.layout import Arranging
from blendlab.papers.paint_by_word import Optimising
from blendlab.schedule import Schedule
from blendlab.walk import Drawing

PACKAGE = Path(bl.__file__).parent
# Words of a sentence that says what to do, or what there is.
FIX = re.compile(
    r"\b(pass|take|choose|give|make|paint|paste|divide|decode|shrink|get|save|check|load|clamp"
    r"|shorten|leave|call|open|replace|tell|go on|connect|scale it|resize|may mean|has|have|knows"
    r"|it is|it says|it weighs|it numbers|it counts|how many|takes 1 to|they are|can be|or more"
    r"|the nearest is|its words are|is (usual|none)|a guidance weight|a share|a number of|a level"
    r"|the (share|weight|passes|calls|number|side))\b"
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
         options(Blending) | EDITING | WORDS | dict(ranking=CHOICES)
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
         dict(pipe=[*models(), pixel_model()],
              edit=[None, "edit", image, *starts()[:-4], *starts()[-3:]],
              image=placed_pictures(), mask=bad_masks(), method=CHOICES, steps=COUNTS,
              lam=NUMBERS, lr=[0, -1, *NUMBERS], preset=["magic", 3, [], *ANYTHING],
              blocks=["some", -1, 99, 1.5, True, *ANYTHING], plateau=[-1, 1, *NUMBERS],
              reuse=FLAGS[:3] + FLAGS[4:], precision=CHOICES, together=FLAGS[:3] + FLAGS[4:])),
        ("rank", bl.rank, dict(images=image, prompt="red", clip=clip_model(), mask=mask),
         dict(images=[*pictures(), [image, 3], [None], [image, torch.zeros(1, 3, 32, 32)]],
              prompt=[["a", "b"], *TEXTS], clip=[None, *clips()], mask=bad_masks()[1:],
              view=CHOICES, normalised=FLAGS)),
        ("load", bl.load, dict(name="tinyworld-clip", device="cpu"),
         dict(name=[None, 3, "", "magic", "no/such/folder", Path("no"), ".", "a b", "\0",
                    *ANYTHING],
              device=["gpu", "cuda:99", 3, "cpu:9", *ANYTHING],
              dtype=["float16", torch.float16, torch.int8, 3, *ANYTHING])),
    ]  # fmt: skip


STATES = [None, 3, "x", [], *ANYTHING, torch.zeros(4, 8), torch.zeros(())]
SHAPES = [3, "x", [], (3,), (0, 8), (8.0, 8), (-1, 8), ("a", "b"), (8, 8, 8), *ANYTHING]


def small_masks():
    """Bad ones where a checked mask (1,1,64,64) is expected."""
    odd = [torch.zeros(1, 3, 64, 64), torch.zeros(0, 1, 64, 64)]
    return [*STATES, *odd, torch.zeros(1, 64, 64), white_middle().to(torch.complex64)]


def blocks():
    """The same for what methods and notebooks are built of."""
    image, mask, schedule = torch.zeros(1, 3, 64, 64), white_middle(), Schedule.linear()
    pipe, z = latent_model(), torch.zeros(1, 4, 8, 8)
    joined = dict(mask=mask, edit=image, keep=image)
    sizes = [torch.zeros(1, 3, 32, 32), torch.zeros(2, 3, 64, 64), torch.zeros(1, 5, 64, 64)]
    bad_join = dict(
        mask=[*small_masks(), torch.ones(1, 1, 32, 32)],
        edit=[*STATES, sizes[0], sizes[2]], keep=[*STATES, sizes[0], sizes[2]],
    )  # fmt: skip
    words = dict(size=SHAPES, rule=CHOICES, mask=small_masks())
    other_masks = [torch.ones(1, 1, 32, 32), 255 * mask, NAN * mask]
    empty, full = [0 * mask], [0 * mask + 1]
    no_picture = [*STATES, *sizes[::2], NAN * image, image.byte(), torch.zeros(1, 1, 64, 64)]

    def measure(name, *pictures, no_mask):
        good = {"result": image, **dict.fromkeys(pictures, image + 0.5), "mask": mask}
        bad = {key: no_picture for key in good if key != "mask"}
        bad["mask"] = [*small_masks(), *other_masks, *no_mask]
        return name, getattr(metrics, name), good, bad

    net = guidance.denoiser(pipe.unet, schedule)
    held = lambda x, t: guidance.Prediction(x)  # noqa: E731
    steps = dict(x=z, schedule=schedule, timesteps=[500, -1], denoise=held)
    walk = lambda **how: bl.last(bl.sample(**how))  # noqa: E731
    scheduler = [None, 3, "ddim", pipe, *ANYTHING]
    return [
        ("blend", bl.blend, joined,  # of any dimensions
         dict(mask=[*STATES[:-1], torch.ones(1, 1, 32, 32), white_middle().to(torch.complex64)],
              edit=[*STATES[:-1], *sizes[::2]], keep=[*STATES[:-1], *sizes[::2]])),
        ("pyramid", joins.pyramid, joined, bad_join | dict(levels=[-1, 99, 1.5, "3", *ANYTHING])),
        ("poisson", joins.poisson, joined, bad_join | dict(mask=[torch.ones(1, 1, 64, 64)])),
        ("to_latent", masks.to_latent, dict(mask=mask, size=(8, 8)), words),
        ("survival", masks.survival, dict(mask=mask, size=(8, 8)), words),
        ("dilate", masks.dilate, dict(mask=mask, radius=1),
         dict(mask=small_masks(), radius=["1", *COUNTS[1:]])),
        ("stages", masks.stages, dict(mask_small=mask, steps=9),
         dict(mask_small=small_masks(), steps=COUNTS, radii=[3, "3", [-1], ["a"], *ANYTHING])),
        ("strengths", masks.strengths, dict(mask=mask, moves=3),
         dict(mask=small_masks(), moves=COUNTS)),
        ("square_around", masks.square_around, dict(mask=mask, around=1.5),
         dict(mask=small_masks(), around=[0, *NUMBERS])),
        ("box", masks.box, dict(mask=mask), dict(mask=small_masks())),
        ("from_box", masks.from_box, dict(box=(0, 0, 1, 1), size=(8, 8)),
         dict(box=[None, *BOXES], size=SHAPES)),
        ("fit", bl.fit, dict(picture=image, size=32),
         dict(picture=pictures(), size=[0, -1, None, NAN, *SHAPES[1:]])),
        ("to_pil", bl.images.to_pil, dict(x=image),
         dict(x=[*STATES, torch.zeros(1, 4, 8, 8), grey(1, 3, 8, 8, value=NAN)])),
        ("data", bl.data, dict(name="scenes/meadow.png"),
         dict(name=[None, 3, "no.png", "../x", "/etc/passwd", "\0", Path("x"), *ANYTHING])),
        ("Noise", lambda **how: Noise(**how)(), dict(seed=0, n=1, purpose="step", shape=(2,)),
         dict(seed=SEEDS[:3] + SEEDS[4:], n=[*COUNTS[:7], *COUNTS[8:], ["a"], [1.5], [-1]],
              purpose=[None, 3, *ANYTHING],
              start=[-1, *COUNTS[2:]], shape=["x", (-1,), ("a",), (1.5,), *ANYTHING])),
        ("Schedule", Schedule, dict(abar=schedule.abar),
         dict(abar=[*STATES, torch.zeros(0), torch.tensor([0.5, 0.9]), torch.tensor([NAN]),
                    torch.tensor([2.0, 1.0]), torch.tensor([0.5, -0.5])],
              final=CHOICES, spacing=CHOICES, offset=NUMBERS)),
        ("Schedule.linear", Schedule.linear, {},
         dict(T=COUNTS, beta0=[-1, 2, *NUMBERS], beta1=[-1, 2, *NUMBERS])),
        ("from_scheduler", Schedule.from_scheduler, {}, dict(scheduler=scheduler)),
        ("timesteps", schedule.timesteps, dict(steps=4),
         dict(steps=[1001, None, *COUNTS], skip=[1, -1, None, *NUMBERS], spacing=CHOICES[:1],
              offset=NUMBERS)),
        ("levels", schedule.levels, {}, dict(t=[1000, -2, None, *NUMBERS])),
        ("denoiser", guidance.denoiser, dict(unet=pipe.unet, schedule=schedule),
         dict(unet=[None, "unet", 3, *ANYTHING], schedule=scheduler, prediction=[None, *CHOICES],
              timesteps=[3, "x", *ANYTHING])),
        ("cfg", guidance.cfg, dict(net=net, text=z, null=z, w=2.0),
         dict(net=FUNCTIONS, w=[None, *NUMBERS])),
        ("loss_guided", guidance.loss_guided, dict(denoise=held, loss=look_alike),
         dict(denoise=FUNCTIONS, loss=FUNCTIONS, scale=[None, *NUMBERS])),
        ("sample", walk, steps,
         dict(denoise=FUNCTIONS, x=STATES[:-2], schedule=scheduler, eta=[2, -1, None, *NUMBERS],
              timesteps=[None, 3, [], [500], ["a", "b"], [5000, -1], "ab", *ANYTHING])),
        ("encode", latents.encode, dict(vae=pipe.vae, image=image),
         dict(vae=[None, "vae", 3, *ANYTHING], image=[*STATES, torch.zeros(1, 4, 64, 64)])),
        ("decode", latents.decode, dict(vae=pipe.vae, z=z),
         dict(vae=[None, "vae", 3, *ANYTHING], z=[*STATES, torch.zeros(1, 3, 8, 8)])),
        ("tokens", attention.tokens, dict(pipe=pipe, prompt="a cat", word="cat"),
         dict(pipe=[*models(), pixel_model()], prompt=TEXTS, word=["dog", "", *TEXTS])),
        ("capture", lambda **how: attention.capture(**how).__enter__(), dict(unet=pipe.unet),
         dict(unet=[None, "unet", 3, pipe, pixel_model().unet, *ANYTHING], layers=LAYERS,
              branch=CHOICES, steps=[3, "x", *ANYTHING])),
        ("listed", prompts.listed, {}, dict(prompt=[*TEXTS[:-3], *TEXTS[-2:]])),
        ("psnr", metrics.psnr, dict(a=image, b=image + 0.5), dict(a=no_picture, b=no_picture)),
        measure("background_error", "image", no_mask=full),
        measure("border", "source", no_mask=[*empty, *full]),
        measure("seam", no_mask=[*empty, *full]),
        measure("appeared", "before", no_mask=empty),
        measure("truth_error", "truth", no_mask=empty),
        measure("light_error", "truth", no_mask=empty),
        ("stayed_behind", metrics.stayed_behind,
         dict(result=image, source=image + 0.5, truth=image, mine=mask),
         dict(result=no_picture, source=no_picture, truth=no_picture,
              mine=[*small_masks(), *other_masks, *full])),
        ("world.sample", bl.world.sample, dict(n=1),
         dict(n=COUNTS, seed=SEEDS, start=[-1, *COUNTS[2:]])),
        ("world.render", bl.world.render, dict(scenes=bl.world.sample(1)),
         dict(scenes=[None, 3, "x", *ANYTHING], size=COUNTS)),
        ("world.scene", bl.world.scene, {},
         dict(ground=CHOICES[:3] + CHOICES[4:], time=CHOICES[:3] + CHOICES[4:], seed=SEEDS,
              horizon=NUMBERS, objects=[3, "x", [3], [{"kind": "dragon"}], *ANYTHING[:2]])),
    ]  # fmt: skip


# How a call ends

PATIENCE = 20  # seconds; the slowest good call takes one


class Hang(BaseException):
    """A call takes too long."""


def give_up(*_):
    raise Hang


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
OTHER = {
    "n": "n is|n=", "edit": "edit|latents", "pipe": "pipeline|bl.load", "model": "bl.load",
    "prompt": "prompt|text|this CLIP", "changed": "prompt|text", "caption": "prompt|caption",
    "negative": "negative|prompt", "images": "image", "picture": "image", "region": "box|region",
    "boxes": "box|in the prompt", "layers": "layer", "mask_rule": "mask.rule", "name": "",
    "rule": "rule", "scheduler": "betas", "size": "size|pixel", "word": "word|in the prompt",
    "ground": "ground", "x": "x is|the picture|to_pil", "t": "t is", "timesteps": "timesteps|t is",
    "keep": "keep", "steps": "steps", "objects": "object|kind", "radii": "radi", "heat": "heat",
}  # fmt: skip


def names(sentence, name):
    return re.search(OTHER.get(name, name), sentence) and FIX.search(sentence)


def finite(result):
    found = result if isinstance(result, (tuple, list)) else [getattr(result, "tensor", result)]
    tensors = [x for x in found if isinstance(x, torch.Tensor) and x.is_floating_point()]
    numbers = [x for x in found if isinstance(x, float)]
    return all(x.isfinite().all() for x in tensors) and all(map(math.isfinite, numbers))


# The command line


def files_of(folder):
    """Good and bad files in a folder, by name."""
    white_middle_picture = Image.fromarray(white_middle()[0, 0].byte().numpy() * 255)
    Image.new("RGB", (64, 64), "navy").save(folder / "image.png")
    white_middle_picture.save(folder / "mask.png")
    white_middle_picture.resize((32, 32)).save(folder / "small.png")
    Image.new("L", (64, 64)).save(folder / "black.png")
    Image.new("L", (64, 64), 99).save(folder / "grey.png")
    (folder / "text.png").write_text("no picture")
    (folder / "empty.png").touch()
    (folder / "torn.png").write_bytes((folder / "image.png").read_bytes()[:80])
    (folder / "folder").mkdir()


NO_PICTURE = ["no.png", "folder", "text.png", "empty.png", "torn.png", ".", "/dev/null"]
NO_MASK = [*NO_PICTURE, "small.png", "black.png", "grey.png"]
NO_COUNT = ["0", "-1", "1.5", "x", "nan", "", "1" * 30]
NO_NUMBER = ["x", "nan", "inf", "-1e30", "1e30", ""]
NO_FILE = ["out.xyz", "out", "folder", "text.png/out.png", "/proc/out.png"]
NO_DEVICE = ["gpu", "cuda:99", "mps", "cpu:9", "x:y", ""]
NO_SEED = ["x", "1.5", "nan", "", "1" * 30]


def commands():
    """(command, good words, {option: bad texts})."""
    edit = "edit --image image.png --mask mask.png --model ready --steps 1 --w 1 --skip 0 -o o.png"
    train = "train latent --cpu --steps 1 --batch 1"
    return [
        (edit + " --prompt cat",
         {"--image": NO_PICTURE, "--mask": NO_MASK, "--prompt": ["cat " * 100], "-o": NO_FILE,
          "-n": NO_COUNT, "--batch": NO_COUNT, "--seed": NO_SEED, "--steps": [*NO_COUNT, "1001"],
          "--w": NO_NUMBER, "--skip": ["1", "-1", *NO_NUMBER], "--around": ["0", *NO_NUMBER],
          "--preset": ["magic", ""], "--method": ["magic", "", "paint_by_word"],
          "--device": NO_DEVICE,
          "--model": ["magic", "no/such", ".", "text.png", "", "tinyworld-judge",
                      "tinyworld-clip", "tinyworld-pixel"], "--banana": ["1"],
          "--clip": ["magic", "no/such", "folder", "text.png", "", "tinyworld"],
          "--set": ["x", "", "=", "=3", "noises=0", "noises=x", "noises=", "banana=1", "w=3", "n=2",
                    "strength=0.5", "mask_rule=magic", "mask_rule=3", "negative=3", "shrink=-1",
                    "shrink=a", "ranking=magic", "first=-1", "first=x", "eta=nan", "soft=1",
                    "when=[[]]", "clip=x", "own=x"]}),
        ("rank --prompt red image.png",
         {"": [*NO_PICTURE, "small.png"], "--prompt": ["dragon " * 9], "--device": NO_DEVICE,
          "--clip": ["magic", "no/such", "folder", "text.png", "", "tinyworld"],
          "--view": ["magic", "", "mask", "both"], "--mask": NO_MASK, "--banana": ["1"]}),
        ("world out.png",
         {"-n": [*NO_COUNT, "999999"], "--seed": NO_SEED, "--size": [*NO_COUNT, "7", "99999"],
          "": ["extra.png"], "--banana": ["1"]}),
        (train,
         {"--steps": NO_COUNT, "--minutes": ["0", "-1", *NO_NUMBER], "--batch": NO_COUNT,
          "--lr": ["0", "-1", *NO_NUMBER], "--seed": ["-1", "15625", *NO_SEED],
          "--precision": ["magic", ""], "--autoencoder": ["no/such", "folder", "text.png"],
          "--from": ["no/such", "folder", "text.png"], "--out": ["text.png", "/proc/x"],
          "--export": ["export"], "--share": ["2", *NO_NUMBER], "--banana": ["1"],
          "--set": ["x", "", "pool=0", "pool=x", "size=7", "banana=1", "widths=", "widths=a",
                    "widths=0,0", "steps=3", "rung=magic", "=", "size=nan"],
          "": ["extra", "--background"]}),
        ("train all --cpu",
         {"--steps": NO_COUNT, "--minutes": ["1"], "--share": ["0", "-1", *NO_NUMBER],
          "--lr": ["0", "x", "nan"], "--from": ["folder"], "--export": ["e"], "--seed": ["-1"]}),
        ("results edits -n 1 --no-save",
         {"-n": NO_COUNT, "-o": ["folder", "text.png/t.json", "/proc/t.json"], "": ["extra"]}),
        ("results", {"": ["magic", "../edits", "edits -n 0"]}),
        ("train", {"": ["magic", "../latent", "latent --resume"]}),
        ("doctor", {"": ["extra", "--banana"]}),
        ("", {"": ["magic", "--banana"]}),
    ]  # fmt: skip


def wordings():
    """(the good words, the bad ones) of each bad call: options come last, and the last counts."""
    for good, bad in commands():
        for option, texts in bad.items():
            for text in texts:
                yield good, [option, text] if option else text.split()


def shell(words):
    """How the command line ends, as in `outcome` or with a "traceback", and what it says."""
    said = io.StringIO()
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    before, sys.argv = sys.argv, ["blendlab", *words]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            cli.main()
    except SystemExit as end:
        good = end.code == 2 and "Traceback" not in said.getvalue() and said.getvalue().strip()
        return "accepted" if not end.code else "sentence" if good else "vague", said.getvalue()
    except Hang:
        return "hang", said.getvalue()
    except Exception as error:
        return "traceback", f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.argv = before
    return "accepted", said.getvalue()


def at_hand(name, **how):
    """`load`, but that the small model is there already."""
    if name != "ready":
        return load(name, **how)
    opening.device(how["device"])
    return latent_model()


# All of it

TABLE = {"functions": calls, "building blocks": blocks}


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    files_of(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("blendlab.networks.load.load", at_hand)
    monkeypatch.setattr("blendlab.training.harness.with_jemalloc", lambda argv: None)
    return tmp_path


@pytest.fixture(scope="module", autouse=True)
def impatience():
    """A call that hangs is given up, and counts."""
    before = signal.signal(signal.SIGALRM, give_up)
    yield
    signal.signal(signal.SIGALRM, before)


def bad(function, good, values):
    """What of the bad calls of one function ends otherwise than in a sentence, and how many."""
    ends = [
        (name, value, *outcome(function, good | {name: value}, name))
        for name, each in values.items()
        for value in each
    ]
    return [end for end in ends if end[2] != "sentence"], len(ends)


@pytest.mark.parametrize("part", TABLE)
def test_good_calls_are_good(part):
    """The bad ones differ from these in one argument."""
    for name, function, good, _ in TABLE[part]():
        if name not in ("from_scheduler", "levels", "listed"):  # take one argument alone
            kind, text = outcome(function, good, "no parameter")
            assert kind == "accepted", (name, text)


@pytest.mark.parametrize("name", [name for make in TABLE.values() for name, *_ in make()])
def test_every_bad_call_of_a_function_ends_in_a_sentence(name):
    ((function, good, values),) = [
        rest for make in TABLE.values() for of, *rest in make() if of == name
    ]
    wrong, count = bad(function, good, values)
    assert count > 3 and not wrong, "\n".join(map(str, wrong))


@pytest.mark.parametrize("good", [good for good, _ in commands()])
def test_every_bad_command_ends_in_a_sentence(good, workplace):
    ends = [(bad, *shell([*good.split(), *bad])) for of, bad in wordings() if of == good]
    wrong = [end for end in ends if end[1] != "sentence"]
    assert ends and not wrong, "\n".join(map(str, wrong))


def main():
    """Print what does not end in a sentence, and the counts of all."""
    signal.signal(signal.SIGALRM, give_up)
    for part, make in TABLE.items():
        counts, started = Counter(), time.time()
        for name, function, good, values in make():
            wrong, count = bad(function, good, values)
            counts.update(end[2] for end in wrong)
            counts["sentence"] += count - len(wrong)
            for parameter, value, kind, text in wrong:
                print(f"{name} {parameter}={value!r:.60}: {kind}: {text[:150]}")
        print(f"{part}: {dict(counts)}, {time.time() - started:.0f} s", flush=True)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        workplace.__wrapped__(Path(folder), patch)
        ends = [(words, bad, *shell([*words.split(), *bad])) for words, bad in wordings()]
        for words, bad_words, kind, text in ends:
            if kind != "sentence":
                print(f"{words.split()[:2]} {bad_words}: {kind}: {text[:300]}")
        print(f"commands: {dict(Counter(end[2] for end in ends))}")


if __name__ == "__main__":
    main()
