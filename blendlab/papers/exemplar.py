"""Paint by Example (2211.13227): what a picture shows, in place of words, appears in the mask.

The UNet sees nine channels: noisy latent, latent of the picture with its hole, mask. The exemplar
goes through CLIP and a mapper and arrives as one token (section 3.2). Next:
../training/exemplar.py, which trains one.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .. import door, images, masks
from ..blend import blend
from ..edit import Edit, one_or_n
from ..errors import Refused
from ..guidance import cfg, from_pipe
from ..latents import decode
from ..options import Options, settle, takes
from ..rank import normalised
from ..sampler import sample
from ..schedule import read_from


@dataclass(frozen=True)
class Painting(Options):
    """How to paint. The defaults are diffusers' port, but with the posterior's mode."""

    # How the mask comes to latent size for the UNet's ninth channel: nearest (the rule "corner" of
    # masks.to_latent), as pipeline_paint_by_example.py:318-320 of diffusers, or as ddpm.py:688.
    mask_channel: Literal["nearest", "bilinear"] = "nearest"
    # Outside the mask, which the published codes leave as it comes: blend each step with the
    # source's latent, as blended_latent does; put the source's pixels back at the end, bit for bit.
    blend: bool = False
    paste: bool = False
    # Which cells blend=True leaves to the edit, see masks.to_latent; "any": all touched.
    mask_rule: Literal["any", "centre", "corner", "area"] = "any"
    # Latents of the picture: the posterior's mode, or a sample of it (both published codes).
    posterior: Literal["mode", "sample"] = "mode"
    # Paint in a square of at least so many pixels around the mask, at its own size, as a network
    # sees it that was trained on crops; 0: the whole picture, None: what the model recommends.
    window: int | None = None
    eta: float | None = None  # 0 is DDIM; None: what the model recommends, also below
    w: float | None = None
    steps: int | None = None
    skip: float | None = None


# Weight 5 and 50 steps: the authors' test.sh (which samples by PLMS; here both step by DDIM), and
# diffusers' pipeline_paint_by_example.py:405-406.
FALLBACK: dict[str, Any] = {"w": 5.0, "steps": 50, "skip": 0.0, "eta": 0.0, "window": 0}
PRESETS = {  # the whole picture, as FALLBACK says
    "official": Painting(mask_channel="bilinear", posterior="sample", **FALLBACK),
    "diffusers": Painting(posterior="sample", **FALLBACK),
}


@takes(Painting)
@torch.no_grad()
def exemplar(
    pipe, image, mask, reference, *,
    region=None, preset=None, n=1, seed=0, batch=None, first=0, **options,
) -> Edit:  # fmt: skip
    """Paint what the reference shows inside the mask, in the picture's light; return an `Edit`.

    pipe:      an ExemplarPipeline, as bl.load("tinyworld-exemplar") or of the published checkpoint
               gives
    image:     PIL, a path or (1 or n,3,H,W) in [-1,1]; sides are multiples of the autoencoder's
               factor
    mask:      PIL, a path or (1 or n,1,H,W) in {0,1}; 1 (white) = edit, whatever the checkpoint
               takes inside
    reference: PIL, a path or (1 or n,3,h,w) in [-1,1], of any size, or a list of n; CLIP sees it
               squashed to its square. Where PIL or a file is see-through it goes on grey, which is
               also what fills the hole
    region:    the part of the reference to look at, a box (x0, y0, x1, y1) in fractions of it
    w, steps, skip: guidance weight, number of levels, share left out at the noisy end (more than 0:
               the edit starts from the noised source). Left out, they, eta and window come from the
               preset, else from the model, else from the published code (5, 50, 0, 0, and the whole
               picture)
    window:    paint in a square around the mask, of so many pixels at least; 0: the whole picture
    blend, paste: with neither, the picture outside the mask is what the network and the autoencoder
               make of it, as published; blend=True: its latent is the source's exactly; paste=True:
               its pixels are, bit for bit
    preset:    "official" (its script samples by PLMS; here it is DDIM), "diffusers", or a Painting;
               options: any field of Painting
    n, seed, batch, first: how many, from which seed, how many at once, the number of the first.
               Sample i is the same whatever n, batch and first are

    Bad input raises ValueError (TypeError, OSError) with the fix before any network runs.
    """
    how = settle(Painting, exemplar, pipe, PRESETS, FALLBACK, preset, options)
    if "mask_rule" in options and not how.blend:
        images.warn("mask_rule= is for blend=True and is not honoured without it: leave it out")
    counts = dict(n=n, seed=seed, batch=batch, first=first)
    request, shown = _admit(pipe, image, mask, reference, region, counts)
    unet = nine_channels(pipe.unet)
    schedule, timesteps, net = from_pipe(pipe, how.steps, how.skip, unet=unet)
    size = request.size
    hole = F.interpolate(request.mask, size, mode=how.mask_channel)  # (1 or n,1,h,w), 1 = edit
    if (hole.flatten(1).amax(1) == 0).any():
        raise Refused(f"the mask vanishes at latent size {size[1]}x{size[0]}: paint it thicker")
    masks.warn_of_lost_parts(request.mask, hole, how.mask_channel, "paint them thicker")
    mask_small = masks.to_latent(request.mask, size, how.mask_rule, allow_empty=not how.blend)
    squares = door.squares(pipe, request, [hole, mask_small], how.window)
    sampled = how.posterior == "sample"

    latents, tensors = [], []
    with request.memory():
        # What stands beside the noisy latent: the picture with a grey hole, then the mask, which
        # inside the network is 1 where the picture is kept.
        holed = request.image * (1 - request.mask)
        hidden = request.encoded(pipe.vae, holed, sampled, "holed posterior")
        kept = (1 - hole).expand(len(hidden), -1, -1, -1)
        beside = torch.cat([hidden, kept], dim=1)  # (1 or n,5,h,w)
        source = request.encoded(pipe.vae, request.image, sampled)  # (1 or n,4,h,w)

        # What the exemplar says, and what the null vector says in its place.
        parts = normalised(pipe, (shown + 1) / 2).split(request.at_once)
        tokens = torch.cat([pipe.encoder(part).float() for part in parts])  # (1 or n,L,d)
        nothing = pipe.encoder.uncond_vector.float().expand(1, *tokens.shape[1:])
        maps = dict(source=source, beside=beside, mask_small=mask_small)
        for rows, part in request.batches(tokens=tokens, nothing=nothing, **maps):
            z = part.source.repeat(len(rows) // len(part.source), 1, 1, 1)
            for some, piece, places in door.in_squares(z, rows, part, squares, maps):
                made = _run(request, net, schedule, timesteps, how, some, piece)
                for place, edit in zip(places, made, strict=True):
                    place.copy_(edit)
            latents.append(z)
            tensors.append(decode(pipe.vae, z))

    used = dict(region=region) | read_from(pipe.scheduler) | asdict(how)
    if how.window:
        used["square"] = door.in_pixels(pipe, squares)
    return request.finish(tensors, latents, used, how.paste)


def _run(request, net, schedule, timesteps, how, rows, part):
    """The final latents (B,4,h,w) of the samples in `rows`, from noise of their own."""
    shape = part.source.shape[1:]
    text = {"encoder_hidden_states": part.tokens, "beside": part.beside}
    null = {"encoder_hidden_states": part.nothing, "beside": part.beside}
    denoise = cfg(net, text, null, how.w)
    initial, fresh = request.noise("initial", rows, shape)(), request.noise("step", rows, shape)
    z = schedule.add_noise(part.source, timesteps[0], initial) if how.skip else initial
    for step in sample(denoise, z, schedule, timesteps, how.eta, fresh):
        if how.blend:
            keep = schedule.add_noise(part.source, step.t_next, initial)  # last the source itself
            step.x = blend(part.mask_small, edit=step.x, keep=keep)
    return step.x


def nine_channels(unet):
    """The network on a noisy latent (B,4,h,w) and what stands beside it (B,5,h,w)."""

    def net(z, t, encoder_hidden_states, beside):
        return unet(torch.cat([z, beside], dim=1), t, encoder_hidden_states)

    net.dtype = unet.dtype
    return net


# Input, and what is wrong with it


def _admit(pipe, image, mask, reference, region, counts):
    """The request, and references at CLIP's size (1 or n,3,S,S), checked."""
    if not hasattr(pipe, "encoder"):
        raise Refused(
            f"{door.a(pipe)} has no encoder for exemplars: pass bl.load('tinyworld-exemplar')"
        )
    channels, latent = pipe.unet.config.in_channels, pipe.vae.config.latent_channels
    if channels != 2 * latent + 1:
        raise Refused(
            f"this UNet takes {channels} channels, not {2 * latent + 1} (noisy latent {latent}, "
            f"masked latent {latent}, mask 1): pass bl.load('tinyworld-exemplar')"
        )
    request = door.placed(pipe, image, mask, "", **counts)
    several = reference if isinstance(reference, (list, tuple)) else [reference]
    if not len(several):
        raise Refused("reference is an empty list: give a picture of an object, or n of them")
    shown = torch.cat([see(one, pipe.size, region) for one in several])  # (1 or n,3,S,S)
    one_or_n(request.n, {"reference": len(shown)})
    return request, shown.to(request.image.device)


def see(reference, size: int, region=None) -> Tensor:
    """A reference as the encoder gets it, (B,3,size,size) in [-1,1]: its region, on grey."""
    cover: Tensor | float = 1.0
    if not isinstance(reference, Tensor):
        reference, _ = images._open(reference, "reference")
        if reference.has_transparency_data:
            rgba = reference.convert("RGBA").split()
            if rgba[3].getextrema()[1] == 0:
                raise Refused("reference is transparent everywhere: check its alpha channel")
            reference = Image.merge("RGB", rgba[:3])
            cover = images.mask(rgba[3], soft=True, allow_full=True)
    picture = images.image(reference, name="reference") * cover  # (B,3,H,W); see-through is grey, 0
    if region is not None:
        size_now = (picture.shape[-2], picture.shape[-1])
        left, top, right, bottom = masks.edges(masks.from_box(region, size_now))
        picture = picture[..., top:bottom, left:right]
    if ((picture.amax((2, 3)) - picture.amin((2, 3))).amax(1) < 0.02).any():  # two grey levels
        raise Refused(
            "reference is of one colour, so it shows nothing to paint: give a picture of an object"
        )
    return images.resized(picture, (size, size))
