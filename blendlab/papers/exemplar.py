"""Paint by Example (2211.13227): a picture in place of words; what it shows appears inside the
mask.

The UNet sees nine channels: noisy latent, latent of the picture with its hole, mask. The exemplar
goes through CLIP and a mapper and arrives as one token (section 3.2). Next:
../training/exemplar.py, which trains one.
"""

from dataclasses import asdict, dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .. import images, masks
from ..blend import blend
from ..edit import Edit, memory_advice, one_or_n, take
from ..guidance import cfg, denoiser
from ..latents import decode, encode
from ..noise import Noise
from ..options import Options, settle
from ..sampler import sample
from ..schedule import Schedule, read_from

LARGEST = 2**26  # pixels of a reference: a gigabyte while it is made small


@dataclass(frozen=True)
class Painting(Options):
    """How to paint. The defaults are diffusers' port with the posterior's mode, so that runs
    repeat.
    """

    # The mask's channel at latent size: diffusers' pipeline_paint_by_example.py:318-320, or
    # ddpm.py:688.
    mask_channel: Literal["nearest", "bilinear"] = "nearest"
    # What is put back outside the mask: nothing (as published), the source's latent after each
    # move, or its pixels.
    paste: Literal["none", "latent", "pixels"] = "none"
    # Which cells paste="latent" leaves to the edit, see masks.to_latent; "any": all that the hole
    # touches.
    mask_rule: Literal["any", "centre", "corner", "area"] = "any"
    # Latents of the picture: the posterior's mode, or a sample of it (both published codes).
    posterior: Literal["mode", "sample"] = "mode"
    eta: float | None = None  # 0 is DDIM; None: what the model recommends, also below
    w: float | None = None
    steps: int | None = None
    skip: float | None = None


# Weight 5 and 50 steps: the authors' test.sh, and diffusers' pipeline_paint_by_example.py:405-406.
FALLBACK = {"w": 5.0, "steps": 50, "skip": 0.0, "eta": 0.0}
PRESETS = {
    "official": Painting(mask_channel="bilinear", posterior="sample", **FALLBACK),
    "diffusers": Painting(posterior="sample", **FALLBACK),
}


@torch.no_grad()
def exemplar(
    pipe,
    image,
    mask,
    reference,
    *,
    region=None,
    w=None,
    steps=None,
    skip=None,
    paste=None,
    preset=None,
    n=1,
    seed=0,
    batch=None,
    **options,
) -> Edit:
    """Paint what the reference shows inside the mask, in the light and place of the picture; return
    an `Edit`.

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
               the edit starts from the noised source). Left out, they and eta come from the preset,
               else from the model, else from the published code (5, 50, 0, 0)
    paste:     "none": outside the mask the picture is what the network and the autoencoder make of
               it, as published; "latent": its latent is the source's exactly; "pixels": its pixels
               are, bit for bit
    preset:    "official", "diffusers", or a Painting; options: any field of Painting
    n, seed, batch: how many, from which seed, how many at once. Sample i is the same whatever n and
                    batch are

    Bad input raises ValueError (TypeError, OSError) with the fix before any network runs.
    """
    asked = {"w": w, "steps": steps, "skip": skip, "paste": paste} | options
    how = settle(Painting, "exemplar", pipe, PRESETS, FALLBACK, preset, asked)
    image, mask, shown = _admit(pipe, image, mask, reference, region, n)
    schedule = Schedule.from_scheduler(pipe.scheduler)
    timesteps = schedule.timesteps(how.steps, how.skip)
    size = [side // pipe.vae_scale_factor for side in image.shape[-2:]]  # h, w
    keep = F.interpolate(1 - mask, size, mode=how.mask_channel)  # inside, 1 = keep
    if (keep.flatten(1).amin(1) == 1).any():
        raise ValueError(f"the mask vanishes at latent size {size[1]}x{size[0]}: paint it thicker")
    mask_small = masks.to_latent(mask, size, how.mask_rule, allow_empty=how.paste != "latent")
    at_once = batch or n

    with memory_advice(at_once):
        # What stands beside the noisy latent: the picture with a grey hole, then the mask.
        holed = image * (1 - mask)
        shape = (pipe.vae.config.latent_channels, *size)
        hidden = encode(pipe.vae, holed, _posterior(how, seed, holed, "holed posterior", shape))
        beside = torch.cat([hidden, keep.expand(len(hidden), -1, -1, -1)], dim=1)  # (1 or n,5,h,w)
        source = encode(
            pipe.vae, image, _posterior(how, seed, image, "posterior", shape)
        )  # (1 or n,4,h,w)

        # What the exemplar says, and what the null vector says in its place.
        tokens = pipe.encoder(_normalised(pipe, shown)).float()  # (1 or n,L,d)
        nothing = pipe.encoder.uncond_vector.float().expand(1, *tokens.shape[1:])
        text, null = (
            {"encoder_hidden_states": said, "beside": beside} for said in (tokens, nothing)
        )
        net = denoiser(
            nine_channels(pipe.unet),
            schedule,
            pipe.scheduler.config.get("prediction_type", "epsilon"),
        )

        latents, tensors = [], []
        for start in range(0, n, at_once):
            rows = range(start, min(start + at_once, n))
            denoise = cfg(net, take(text, rows), take(null, rows), how.w)
            z = _run(
                denoise,
                take(source, rows),
                take(mask_small, rows),
                schedule,
                timesteps,
                how,
                seed,
                rows,
            )
            latents.append(z)
            tensors.append(decode(pipe.vae, z))

    latents, tensor = torch.cat(latents), torch.cat(tensors)  # (n,C,h,w), (n,3,H,W)
    if how.paste == "pixels":
        tensor = blend(mask, edit=tensor, keep=image)
    used = dict(region=region, n=n, seed=seed, order=list(range(n)))
    return Edit(tensor, latents, None, used | read_from(pipe.scheduler) | asdict(how))


def nine_channels(unet):
    """The network on a noisy latent (B,4,h,w) with what stands beside it (B,5,h,w), in the order of
    its training.
    """

    def net(z, t, encoder_hidden_states, beside):
        return unet(torch.cat([z, beside], dim=1), t, encoder_hidden_states)

    net.dtype = unet.dtype
    return net


def _run(denoise, source, mask_small, schedule, timesteps, how, seed, rows):
    """The final latents of the samples in `rows`, each with its own streams of noise."""
    shape, device = source.shape[1:], source.device
    initial = Noise(seed, len(rows), "initial", device, rows.start)(shape)  # (B,C,h,w)
    fresh = Noise(seed, len(rows), "step", device, rows.start)
    z = schedule.add_noise(source, timesteps[0], initial) if how.skip else initial
    for step in sample(denoise, z, schedule, timesteps, how.eta, lambda: fresh(shape)):
        if how.paste == "latent":
            level = source if step.t_next < 0 else schedule.add_noise(source, step.t_next, initial)
            step.x = blend(mask_small, edit=step.x, keep=level)
    return step.x


def _posterior(how, seed, picture, purpose, shape):
    """The noise that draws from the posterior, or None for its mode."""
    return (
        Noise(seed, len(picture), purpose, picture.device)(shape)
        if how.posterior == "sample"
        else None
    )


def _normalised(pipe, pictures):
    mean, std = (
        torch.tensor(v, device=pictures.device).view(3, 1, 1) for v in (pipe.mean, pipe.std)
    )
    return ((pictures + 1) / 2 - mean) / std


# Input, and what is wrong with it


def _admit(pipe, image, mask, reference, region, n):
    """Picture, mask, and references at CLIP's size (1 or n,3,S,S), or a sentence that says what is
    wrong.
    """
    if n < 1:
        raise ValueError(f"n is {n}; it counts the edits to make, so take 1 or more")
    if not hasattr(pipe, "encoder"):
        kind = type(pipe).__name__
        raise ValueError(
            f"a {kind} has no encoder for exemplars: pass bl.load('tinyworld-exemplar')"
        )
    channels, latent = pipe.unet.config.in_channels, pipe.vae.config.latent_channels
    if channels != 2 * latent + 1:
        raise ValueError(
            f"this UNet takes {channels} channels, not {2 * latent + 1} (noisy latent "
            f"{latent}, masked latent "
            f"{latent}, mask 1): pass bl.load('tinyworld-exemplar')"
        )
    image = images.image(image, size_multiple=pipe.vae_scale_factor).to(pipe.unet.device)
    mask = images.mask(mask, like=image, allow_full=True)
    several = reference if isinstance(reference, (list, tuple)) else [reference]
    if not len(several):
        raise ValueError("reference is an empty list: give a picture of a thing, or n of them")
    shown = torch.cat(
        [see(one, pipe.size, region).to(image.device) for one in several]
    )  # (1 or n,3,S,S)
    one_or_n(n, {"image": len(image), "mask": len(mask), "reference": len(shown)})
    return image, mask, shown


def see(reference, size: int, region=None) -> Tensor:
    """A reference as the encoder gets it, (B,3,size,size) in [-1,1]: its region, on grey, squashed
    (bicubic).
    """
    cover = 1.0
    if not isinstance(reference, Tensor):
        reference = images._open(reference, "reference")
        width, height = reference.size
        if not width * height:
            raise ValueError(
                f"reference is {width}x{height}, which holds no pixel: give a picture of a thing"
            )
        if width * height > LARGEST:
            fix = "reference.thumbnail((1024, 1024))"
            raise ValueError(
                f"reference is {width}x{height}, and {size}x{size} of it are seen: shrink it, {fix}"
            )
        if reference.has_transparency_data:
            rgba = reference.convert("RGBA").split()
            if rgba[3].getextrema()[1] == 0:
                raise ValueError(
                    "reference is transparent everywhere, so it shows nothing: check its "
                    "alpha channel"
                )
            reference, cover = (
                Image.merge("RGB", rgba[:3]),
                images.mask(rgba[3], soft=True, allow_full=True),
            )
    picture = images.image(reference, name="reference") * cover  # (B,3,H,W); see-through is grey, 0
    if region is not None:
        inside = masks.from_box(region, picture.shape[-2:])[0, 0].nonzero()  # (pixels,2)
        (y0, x0), (y1, x1) = inside[0].tolist(), (inside[-1] + 1).tolist()
        picture = picture[..., y0:y1, x0:x1]
    if ((picture.amax((2, 3)) - picture.amin((2, 3))).amax(1) < 0.02).any():  # two grey levels
        raise ValueError(
            "reference is of one colour, so it shows nothing to paint: give a picture of a thing"
        )
    if picture.shape[-2:] != (size, size):
        picture = F.interpolate(picture, (size, size), mode="bicubic", antialias=True).clamp(-1, 1)
    return picture
