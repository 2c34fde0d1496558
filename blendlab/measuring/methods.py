"""The editing methods that precision.py compares, each a registered function of a few lines.

    @method("tinyworld")                       # the networks that it is called with, after `ask`
    def mine(ask, pipe):
        return bl.blended_latent(pipe, ask.image, ask.mask, ask.prompt, eta=0.5, **ask.how)

A method returns an Edit or a tensor (ask.n,3,S,S) in [-1,1]. It is called under torch.no_grad(), so
put `with torch.enable_grad():` around a loss. It must not look at the truth or the judge. Next:
precision.py, which runs them; leaderboard.py for a whole class.
"""

import importlib.machinery
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import cards, files, masks
from ..blend import blend
from ..errors import Refused
from ..noise import Noise
from ..papers.blended import blended
from ..papers.blended_latent import FALLBACK, PRESETS, blended_latent
from ..papers.clip_guided import clip_guided
from ..papers.decoder import reconstruct
from ..papers.exemplar import exemplar
from ..papers.paint_by_word import paint_by_word
from ..papers.repaint import repaint
from ..rank import fit, look, read
from ..warps import warp
from .exemplars import frame
from .pixel_blending import algorithm_1


@dataclass(frozen=True)
class Ask:
    """What a method is asked for: n pictures of one scene."""

    image: Tensor  # (1,3,S,S) in [-1,1]
    mask: Tensor  # (1,1,S,S) in {0,1}, 1 = edit
    prompt: str  # what is to be inside: "a red mushroom"
    reference: Tensor  # (1,3,2S,2S) such an object in another place and light
    caption: str  # of the picture as it is
    whole: str  # of the picture to come
    n: int
    seed: int

    @property
    def how(self) -> dict:
        return dict(n=self.n, seed=self.seed)


@dataclass(frozen=True)
class Method:
    """A function of an Ask and of the networks in `needs`.

    keeps: it promises the source outside the mask, up to what an autoencoder loses. scenes: it is
    measured on the first so many only; None: on all.
    """

    name: str
    function: Callable
    needs: tuple[str, ...]
    keeps: bool
    how: dict
    scenes: int | None = None

    def __call__(self, ask, *loaded):
        return self.function(ask, *loaded, **self.how)

    @property
    def what(self) -> str:
        """What it does, and its options."""
        said = " ".join((inspect.getdoc(self.function) or "").split())
        return said + f" Options: {self.how}." * bool(self.how)

    @property
    def code(self) -> str:
        """What makes it this method and no other: its source (of yours, the file) and options."""
        function = inspect.unwrap(self.function)  # below torch.no_grad() and the like
        file = Path(function.__code__.co_filename)
        if files.PACKAGE in file.parents:
            source = inspect.getsource(function)
        else:
            source = file.read_text(encoding="utf-8") if file.is_file() else _cells(function)
        return source + repr(self.how)


def _cells(function, known=None) -> str:
    """The source of a notebook's function, and of the functions and numbers that it names."""
    known = {} if known is None else known
    known[function] = inspect.getsource(function)
    inner = [c for c in function.__code__.co_consts if inspect.iscode(c)]
    names = {n for code in (function.__code__, *inner) for n in code.co_names}
    for name in sorted(names & function.__globals__.keys()):
        other = function.__globals__[name]
        if inspect.isfunction(other) and other.__module__ == function.__module__:
            if inspect.unwrap(other) not in known:
                _cells(inspect.unwrap(other), known)
        elif isinstance(other, int | float | str):
            known[name] = f"{name}: {other!r}"
        else:
            known[name] = f"{name}: {getattr(other, '__qualname__', None)}"
    return "\n".join(known.values())


METHODS: dict[str, Method] = {}
OURS: frozenset = frozenset()  # the names of those below, which nobody may take


def method(*needs: str, name: str | None = None, keeps: bool = True, **how):
    """Register the decorated function as a method; `how` are more arguments for it."""

    def register(function):
        label = name or function.__name__
        if not re.fullmatch(r"\w[\w+.-]*", label):
            raise Refused(f"a method is called {label!r}: take letters, digits, +, - and _")
        if "tinyworld-judge" in needs:
            raise Refused("the judge measures, so it may guide no method: name another network")
        if label in OURS:
            raise Refused(f"there is a method {label!r} already: give yours another name")
        METHODS[label] = Method(label, function, needs, keeps, how)
        return function

    return register


def chosen(words: str | None) -> list[Method]:
    """The methods of a list such as "blended,blended_latent*,paint_by_word:8", where the last is
    measured on eight scenes only; None: all of them.
    """
    if words is None:
        return list(METHODS.values())
    found: dict[str, Method] = {}
    for word in words.split(","):
        pattern, colon, most = word.strip().partition(":")
        if colon and not (most.isascii() and most.isdigit() and int(most)):
            raise Refused(
                f"{word.strip()!r} is no method and its number of scenes: write blended:8"
            )
        names = [name for name in METHODS if fnmatchcase(name, pattern)]
        if not names:
            raise Refused(f"there is no method {pattern!r}; there are {', '.join(METHODS)}")
        found |= {n: replace(METHODS[n], scenes=int(most) if colon else None) for n in names}
    return list(found.values())


def added(file) -> list[Method]:
    """Run a Python file of yours, and return the methods that it registers."""
    file = Path(file)
    if not file.is_file() or file.suffix != ".py":
        raise Refused(f"{file} is no Python file: name the one that holds your @method")
    name = f"added_{file.stem}"
    loader = importlib.machinery.SourceFileLoader(name, str(file))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None  # there is a loader
    before, module = dict(METHODS), importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look themselves up there
    loader.exec_module(module)
    new = [one for label, one in METHODS.items() if before.get(label) is not one]
    if not new:
        raise Refused(
            f"{file} registers no method: put @method() over a function, from "
            "blendlab.measuring.methods"
        )
    return new


# In pixels


@method("tinyworld-pixel", "tinyworld-clip", keeps=False, name="clip_guided")
def _algorithm_1(ask, model, clip):
    """Blended Diffusion's algorithm 1: CLIP guides, a loss asks for the background."""
    how = algorithm_1(model) | ask.how
    return clip_guided(model, clip, ask.image, ask.mask, ask.prompt, ranking=None, **how)


@method("tinyworld-pixel", "tinyworld-clip", name="blended")
def _algorithm_2(ask, model, clip):
    """Blended Diffusion's algorithm 2: CLIP guides, each step is blended with the source."""
    return blended(model, clip, ask.image, ask.mask, ask.prompt, ranking=None, **ask.how)


@method(
    "tinyworld", "tinyworld-clip", keeps=False, name="paint_by_word", steps=150, augmentations=4
)
def _paint_by_word(ask, pipe, clip, **how):
    """PaintByWord++: latents that CLIP optimises (the paper: 500 steps, 16 copies)."""
    how = how | ask.how
    return paint_by_word(pipe, clip, ask.image, ask.mask, ask.prompt, ranking=None, **how)


@method("tinyworld-clip", name="clip_alone")
def _clip_alone(ask, clip, steps=40):
    """No diffusion: from the source and a little noise, pixels go where CLIP's distance falls."""
    text, noise = read(clip, [ask.prompt]), Noise(ask.seed, ask.n, "initial")(ask.image.shape[1:])
    mask, source = ask.mask.to(text.device), ask.image.to(text.device)
    with torch.enable_grad():
        x = (source + 0.1 * noise.to(text.device)).clamp(-1, 1).requires_grad_()
        adam = torch.optim.Adam([x], lr=0.05)
        for _ in range(steps):
            seen = look(clip, fit(clip, (x + 1) / 2 * mask))  # as `rank` shows it
            (x.grad,) = torch.autograd.grad(-(seen * text).sum(), x)
            adam.step()
            x.data.clamp_(-1, 1)
    return blend(mask, edit=x.detach(), keep=source)


# In latents


def _latent(ask, pipe, **how):
    """Blended Latent Diffusion."""
    return blended_latent(pipe, ask.image, ask.mask, ask.prompt, **ask.how, **how)


def _preset(ask, pipe, preset):
    """Blended Latent Diffusion by the rules of an implementation, with this model's w and steps."""
    numbers = FALLBACK | cards.settings(pipe, "blended_latent")
    return _latent(ask, pipe, preset=preset, w=numbers["w"], steps=numbers["steps"])


method("tinyworld", name="blended_latent")(_latent)
method("tinyworld", name="blended_latent+whole", window=0)(_latent)
method("tinyworld", name="blended_latent+resamplings", resamplings=3)(_latent)
method("tinyworld", name="blended_latent+around", around=1.5)(_latent)
method("tinyworld", name="blended_latent+shrink", shrink=3)(_latent)
method("tinyworld", name="blended_latent+paste", paste=True)(_latent)
for _name in PRESETS:
    method("tinyworld", name=f"blended_latent-{_name}", preset=_name)(_preset)


@method("tinyworld", name="blended_latent+soft")
def _soft(ask, pipe):
    """Blended Latent Diffusion with a mask that fades towards its border."""
    side = ask.mask.shape[-1] // 16 * 2 + 1
    grey = F.avg_pool2d(ask.mask, side, 1, side // 2, count_include_pad=False) * ask.mask
    return blended_latent(pipe, ask.image, grey, ask.prompt, soft=True, **ask.how)


@method("tinyworld", name="blended_latent+decoder")
def _decoder(ask, pipe):
    """Blended Latent Diffusion, then a decoder tuned for each result."""
    edit = blended_latent(pipe, ask.image, ask.mask, ask.prompt, **ask.how)
    return reconstruct(pipe, edit, ask.image, ask.mask)


@method("tinyworld", keeps=False, name="repaint")
def _repaint(ask, pipe):
    """DDIM inversion with the picture's caption, fresh noise in the mask, and down again."""
    how = dict(image=ask.image, caption=ask.caption, new_seed=ask.seed, refine=1)
    return repaint(pipe, ask.whole, ask.mask, n=ask.n, **how)


@method("tinyworld-exemplar", name="exemplar")
def _exemplar(ask, pipe):
    """Paint by Example: a picture of such an object in place of words."""
    return exemplar(pipe, ask.image, ask.mask, ask.reference, **ask.how)


@method("tinyworld-inpaint", name="inpaint")
def _inpaint(ask, pipe):
    """A network with nine channels, trained for inpainting with words (GLIDE, SD inpainting)."""
    numbers = FALLBACK | cards.settings(pipe, "inpaint")
    how = dict(num_inference_steps=numbers["steps"], guidance_scale=numbers["w"])
    how |= dict(num_images_per_prompt=ask.n, output_type="pt")
    how |= dict(zip(("height", "width"), ask.image.shape[-2:], strict=True))
    draws = [torch.Generator().manual_seed(ask.seed * 1009 + i) for i in range(ask.n)]
    return 2 * pipe(ask.prompt, ask.image / 2 + 0.5, ask.mask, generator=draws, **how).images - 1


# Without a network


@method(name="naive_paste")
def _naive_paste(ask):
    """The picture of such an object, squeezed into the mask's box, with its own ground."""
    box = torch.tensor([masks.box(ask.mask)])
    squeezed = F.interpolate(
        warp(ask.reference, frame(box).inverse()), ask.image.shape[-2:], mode="area"
    )
    return blend(ask.mask, edit=squeezed, keep=ask.image).expand(ask.n, -1, -1, -1)


@method(name="source")
def _source(ask):
    """The floor: the picture as it was."""
    return ask.image.expand(ask.n, -1, -1, -1)


@method(keeps=False, name="truth")
def _truth(ask):
    """The ceiling: one of the right answers, which precision.py puts in for this method alone."""


OURS = frozenset(METHODS)
