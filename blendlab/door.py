"""One door for every editing method: it checks the input, places it, and puts the Edit together.

    request = door.latent(pipe, image, mask, prompt, n=4, seed=0, batch=None, first=0)
    with request.memory():
        for rows, part in request.batches(text=text, null=null):
            noise = request.noise("initial", rows)  # noise() draws for the samples in rows
            ...
    return request.finish(tensors, latents, settings)

Bad input gets a sentence before any network runs. No paper. Next: papers/blended_latent.py.
"""

import math
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import images, masks, prompts
from .blend import blend
from .edit import Edit, one_or_n, take
from .errors import Refused, WrongType
from .latents import encode
from .noise import Noise
from .options import check, number, tensor
from .rank import rank

LARGEST = 32  # gigabytes that the pictures of one call may take


@dataclass
class Request:
    """One call of an editing method, checked and on the device.

    image: (1 or n,3,H,W) in [-1,1]. strength: (1 or n,1,H,W) in [0,1], how strongly a place may
    change: the mask as it was given. mask: 1 where that is not 0. prompt: 1 or n texts.
    shape: of one sample's state, (C,h,w). first: the number of the first sample.
    given: the noise to start from, (1 or n,C,h,w). Methods without an image or a mask have None.
    """

    image: Any
    mask: Any
    strength: Any
    prompt: list[str]
    n: int
    seed: int | str
    shape: tuple[int, ...]
    at_once: int
    device: torch.device
    first: int = 0
    given: Tensor | None = None

    @property
    def size(self):
        """(h, w) of the state."""
        return self.shape[-2:]

    def one_of_each(self, what: str):
        """Refuse several pictures, masks or prompts: ranks are of one."""
        counts = {"image": len(self.image), "mask": len(self.mask), "prompt": len(self.prompt)}
        for name, given in counts.items():
            if given > 1:
                raise Refused(
                    f"{what} ranks edits of one picture and prompt: pass one {name}, not {given}"
                )

    @contextmanager
    def memory(self):
        """In a `with`, "out of memory" becomes a sentence that says which option halves it."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            fix = "load the model with dtype=torch.float16, or edit a smaller picture"
            if self.at_once > 1:
                fix = f"batch={self.at_once // 2} halves it and gives the same pictures"
            raise MemoryError(f"out of memory with {self.at_once} at once: {fix}") from error

    def batches(self, **values):
        """Yield (rows, part): positions range(i, j) of the n samples, and their rows of each value.

        values: tensors (1 or n,...), or dicts and lists of them. image and mask are in part, where
        there are any.
        """
        values = {"image": self.image, "mask": self.mask} | values
        values = {key: value for key, value in values.items() if value is not None}
        for start in range(0, self.n, self.at_once):
            rows = range(start, min(start + self.at_once, self.n))
            yield rows, SimpleNamespace(**{key: take(v, rows) for key, v in values.items()})

    def noise(self, purpose: str, rows, shape=None, shared=False) -> Noise:
        """The noise of the samples in rows; shared: one draw that serves them all, sample 0's."""
        rows, start = ([0], 0) if shared else (rows, self.first)
        return Noise(self.seed, rows, purpose, self.device, start, shape or self.shape)

    def encoded(self, vae, pictures: Tensor, sampled: bool, purpose="posterior") -> Tensor:
        """Latents (1 or n,C,h,w) of pictures, as many at once as samples are made.

        sampled: draw from each posterior. All draws have the stream of sample 0, so that a
        picture's own does not depend on how many there are.
        """

        def drawn(many):
            return Noise(self.seed, [0] * many, purpose, self.device, 0, self.shape)()

        parts = pictures.split(self.at_once)
        return torch.cat([encode(vae, x, drawn(len(x)) if sampled else None) for x in parts])

    def finish(
        self, tensors, latents, settings: dict, paste=False, clip=None, view=None, closer=None
    ) -> Edit:
        """The Edit: pasted, the best first where `clip` is to rank and there is something to rank.

        tensors: pictures of each batch, in order; latents: the same, or None. view: the ranking, as
        in `rank`; None: none. closer: the Closer that the pictures are crops of; it brings them
        back. What is not finite is refused.
        """
        tensor, latents = torch.cat(tensors), latents and torch.cat(latents)  # (n,3,H,W), (n,C,h,w)
        finite(settings, tensor, latents)
        if paste:
            tensor = blend(self.mask, edit=tensor, keep=self.image)
        mask = closer.mask if closer else self.mask
        tensor = closer.back(tensor) if closer else tensor
        order, scores = list(range(self.n)), None
        several = clip and view and self.n > 1
        if several and len(self.image) == len(self.mask) == len(self.prompt) == 1:
            order, scores = rank(Edit(tensor), self.prompt[0], clip, mask, view)
        used = dict(n=self.n, seed=self.seed, order=[self.first + i for i in order])
        used |= {"first": self.first} if self.first else {}
        return Edit(
            tensor[order], None if latents is None else latents[order], scores, used | settings
        )


def finite(settings: dict, *tensors: Tensor | None) -> None:
    """Refuse a result that is not finite."""
    if not all(x.isfinite().all() for x in tensors if x is not None):
        raise Refused(f"the result has NaN or infinite values: {_likely(settings)}")


def latent(pipe, image, mask, prompt, **how):
    """The request of a method that works on a pipeline's latents; how: see `placed`."""
    has_autoencoder(pipe)
    takes_latents(pipe)
    return placed(pipe, image, mask, prompt, **how)


def pixel(model, image, mask, prompt, **how):
    """The request of a method that works on pixels; how: see `placed`."""
    unet = getattr(model, "unet", None)
    if unet is None or unet.config.in_channels != 3 or hasattr(model, "vae"):
        raise Refused(
            f"pass a model of pixels, as bl.load('tinyworld-pixel') gives{_not(model)}; "
            "blended_latent is for latents"
        )
    return placed(model, image, mask, prompt, **how)


def placed(model, image, mask, prompt, *, n, seed, batch, first, soft=None, known=False):
    """Picture, mask and prompts on the device; the state is of pixels without an autoencoder.

    soft: whether greys of the mask pass; None: a method that has no such option. known: as in
    images.image.
    """
    counted(n, seed, batch, first)
    latents = hasattr(model, "vae")
    if latents:
        device, factor = model._execution_device, model.vae_scale_factor
    else:
        device = model.unet.device
        factor = getattr(model.unet, "patch", 1) * step(model.unet)
    image = images.image(image, size_multiple=factor, known=known).to(device)
    strength = _strength(mask, image, soft)
    mask = (strength > 0).float()
    prompt = prompts.listed(prompt)
    one_or_n(n, {"image": len(image), "mask": len(mask), "prompt": len(prompt)})
    _fits(n, image.shape[-2:])
    shape = state_shape(model, image) if latents else tuple(image.shape[1:])
    return Request(image, mask, strength, prompt, n, seed, shape, batch or n, image.device, first)


def words(pipe, texts, image=None, noise=None, *, n=1, seed=0, batch=None, first=0):
    """The request of a method that makes pictures from noise by words; it has no mask.

    image, noise: (1 or n,...) to start from, or None; n None: as many as these.
    """
    has_autoencoder(pipe)
    prompts.reads_texts(pipe)
    takes_latents(pipe)
    for text in texts:
        if isinstance(text, list | tuple):
            raise WrongType("the prompt is a list: pass one text, which serves all n")
    device = pipe._execution_device
    if image is not None or n is None and noise is None:
        image = images.image(image, size_multiple=pipe.vae_scale_factor).to(device)
    if noise is not None:
        noise = finite_latents("noise", noise, pipe.vae).to(device)
    counts = {name: len(x) for name, x in (("image", image), ("noise", noise)) if x is not None}
    n = max(counts.values()) if n is None else n
    counted(n, seed, batch, first)
    one_or_n(n, counts)
    shape = state_shape(pipe, image, noise)
    _fits(n, (side * pipe.vae_scale_factor for side in shape[-2:]))
    return Request(image, None, None, list(texts), n, seed, shape, batch or n, device, first, noise)


def finite_latents(name: str, z, vae) -> Tensor:
    """Latents (1 or n,C,h,w) of an autoencoder in float32; a sentence for what is none."""
    tensor(name, z, f"1 or n,{vae.config.latent_channels},h,w")
    if not z.is_floating_point() or not z.isfinite().all():
        raise Refused(f"{name} has NaN or infinite values, or no floats: make it in torch.float32")
    return z.detach().float()


def state_shape(pipe, image=None, noise=None) -> tuple[int, ...]:
    """(C,h,w) of a latent: of a picture's, of a given noise, or of the model's own size."""
    if noise is not None:
        return tuple(noise.shape[1:])
    if image is None:
        cells = [pipe.unet.config.sample_size] * 2
    else:
        cells = [side // pipe.vae_scale_factor for side in image.shape[-2:]]
    return (pipe.vae.config.latent_channels, *cells)


def _strength(mask, image, soft):
    """The mask as given; where only its greys are wrong, the sentence names soft=True (unless soft
    is None).
    """
    try:
        return images.mask(mask, like=image, soft=bool(soft), allow_full=True)
    except ValueError as error:
        if soft is not False:
            raise
        try:
            images.mask(mask, like=image, soft=True, allow_full=True)
        except ValueError:
            raise error from None
        hint = "or pass soft=True, which takes a grey for how strongly a place may change"
        raise Refused(f"{error}; {hint}") from None


def per_move(mask_small, moves: int, shrink, soft: bool) -> list[Tensor]:
    """One mask at latent size for each move: shrinking, by strength, or always the same.

    shrink: how many dilations, or their radii in cells.
    """
    several = isinstance(shrink, list | tuple)
    for radius in shrink if several else [0 if shrink is None else shrink]:
        number("shrink", radius)
    radii = shrink if several else range(1, (shrink or 0) + 1)
    if soft and radii:
        raise Refused("soft=True lets the mask grow and shrink lets it shrink: choose one")
    if soft:
        return masks.strengths(mask_small, moves)
    return masks.stages(mask_small, moves, tuple(radii))


def squares(pipe, request, masks_small, least: int | None) -> list[tuple[int, int, int, int]]:
    """For each sample, or once for all, the square of the latent to edit it in.

    They are (left, top, right, bottom) in cells, and hold each cell that the request's mask touches
    and all of masks_small, a list of (1 or n,1,h,w). least: their side in pixels at least; 0: the
    whole. See masks.square.
    """
    if not least:
        return [(0, 0, *reversed(request.size))]
    touched = masks.to_latent(request.mask, request.size, "any")
    for mask in masks_small:
        touched = touched.maximum(mask)
    cells = math.ceil(least / pipe.vae_scale_factor)
    return [masks.square(one[None], cells, step(pipe.unet)) for one in touched]


def in_pixels(pipe, squares) -> list[tuple[int, ...]]:
    """Squares of the latent as the settings of an Edit say them, in pixels."""
    return [tuple(pipe.vae_scale_factor * side for side in one) for one in squares]


def step(unet) -> int:
    """What the sides of a state must be a multiple of, so that the UNet can halve them."""
    return 2 ** (len(unet.config.block_out_channels) - 1)


def in_squares(z, rows, part, squares, maps):
    """Yield (rows, part, places) for each size of square: some of the samples, what is given of
    them, and where in the latents z (B,C,h,w) their edits belong, a view each.

    maps: the names of what of the part is cut to the squares; the rest is not.
    """
    sizes: dict[tuple, list] = {}
    for i, row in enumerate(rows):
        left, top, right, bottom = squares[row if len(squares) > 1 else 0]
        place = slice(None), slice(top, bottom), slice(left, right)
        sizes.setdefault((bottom - top, right - left), []).append((i, place))
    for samples in sizes.values():
        some, places = [list(values) for values in zip(*samples, strict=True)]
        piece = take(vars(part), some)
        for name in maps:
            piece[name] = _cut(piece[name], places)
        yield [rows[i] for i in some], SimpleNamespace(**piece), [z[i][at] for i, at in samples]


def _cut(maps, places):
    """The squares of latents or masks (1 or n,C,h,w), or of a list of them."""
    if isinstance(maps, list):
        return [_cut(one, places) for one in maps]
    if all(place == places[0] for place in places):
        return maps[(slice(None), *places[0])]
    each = zip(maps.expand(len(places), -1, -1, -1), places, strict=True)
    return torch.stack([one[place] for one, place in each])


@dataclass
class Closer:
    """A square of a picture at the model's size, and the way back.

    crop: (1,3,S,S). crop_strength: (1,1,S,S) in [0,1]. image and mask: of the whole picture,
    (1,3,H,W) and (1,1,H,W) in [0,1], 1 = edit. square: (left, top, right, bottom) in its pixels.
    """

    crop: Tensor
    crop_strength: Tensor
    image: Tensor
    mask: Tensor
    square: tuple[int, int, int, int]

    def back(self, tensor: Tensor) -> Tensor:
        """Edited crops (n,3,S,S) in the picture; outside the mask the source bit for bit."""
        left, top, right, bottom = self.square
        canvas = self.image.expand(len(tensor), -1, -1, -1).clone().to(tensor.device)
        small = images.resized(tensor, (bottom - top, right - left))
        canvas[..., top:bottom, left:right] = small
        keep = self.image.to(canvas.device)
        return blend(self.mask.to(canvas.device), edit=canvas, keep=keep)


def closer(pipe, image, mask, around: float, soft: bool) -> Closer:
    """The square around the mask, enlarged to the size that the model was trained on."""
    has_autoencoder(pipe)
    image = images.image(image)
    strength = _strength(mask, image, soft)
    if len(strength) > 1 or len(image) > 1:
        given = f"{len(image)} and {len(strength)}"
        raise Refused(f"around= takes one picture and one mask, not {given}")
    left, top, right, bottom = square = masks.square_around(strength, around)
    size = (pipe.unet.config.sample_size * pipe.vae_scale_factor,) * 2
    crop, crop_strength = (x[..., top:bottom, left:right] for x in (image, strength))
    if right - left > size[0]:  # a thin line stays white
        crop_strength = F.adaptive_max_pool2d(crop_strength, size)
    else:
        crop_strength = F.interpolate(crop_strength, size, mode="nearest-exact")
    return Closer(images.resized(crop, size), crop_strength, image, strength, square)


def counted(n, seed, batch, first):
    """Refuse numbers of samples, seeds and batches that are none."""
    number("n", n, span=(1, math.inf, "it counts the edits to make, so take 1 or more"))
    number("seed", seed)
    number("first", first)
    check("batch", batch, int | None)


def _fits(n, size):
    """Refuse more pictures than a machine can hold."""
    gigabytes = n * math.prod(size) * 3 * 4 / 1e9
    if gigabytes > LARGEST:
        room = f"{gigabytes:,.0f} GB"
        raise Refused(
            f"n is {n}, and its pictures alone take {room}: make fewer, go on with first="
        )


def has_autoencoder(pipe, unet=True):
    """Refuse what is not a pipeline of latents, naming what it is."""
    parts = ("vae", "unet", "scheduler") if unet else ("vae",)
    if any(getattr(pipe, part, None) is None for part in parts):
        raise Refused(
            f"pass a pipeline with an autoencoder, as bl.load('tinyworld') gives{_not(pipe)}; "
            "blended is for pixels"
        )


def takes_latents(pipe):
    """Refuse a UNet that takes another number of channels than a latent has."""
    wanted, given = pipe.vae.config.latent_channels, pipe.unet.config.in_channels
    if given != wanted:
        what = f"this UNet takes {given} channels, a latent has {wanted}"
        raise Refused(f"{what}: pass a text-to-image pipeline")
    if getattr(pipe.unet.config, "time_cond_proj_dim", None):
        what = "this UNet has to be told the guidance weight (a latent consistency model)"
        raise Refused(f"{what}, and nobody does here: load the model that it was distilled from")


def readable(pipe, texts, negative="", w=None):
    """Refuse texts that the pipeline's text encoder cannot read whole."""
    for text in texts:
        prompts.check(pipe, text)
    prompts.check(pipe, negative, "negative")
    if negative and w == 1:
        images.warn("negative= is not honoured at w=1, which is no guidance: take w=4 or so")


def a(given) -> str:
    """What an object is, for a sentence."""
    return f"the name {given!r}" if isinstance(given, str) else f"a {type(given).__name__}"


def _not(given):
    return f", not {a(given)}" + f": bl.load({given!r}) opens it" * isinstance(given, str)


def _likely(settings):
    big = [
        f"{name}={settings[name]:g}"
        for name in ("w", "scale", "background", "lr", "range_scale")
        if settings.get(name)
    ]
    return f"take a smaller {' or '.join(big)}" if big else "load the model in torch.float32"
