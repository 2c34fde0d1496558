"""PaintByWord++, what Blended Diffusion (2111.14818) is compared with: latents that CLIP optimises.

The naive paste is `blend`, pyramids and the gradient domain are in ../joins.py, guidance that only
asks for the background is clip_guided.py. Next: ../measuring/metrics.py, whose `seam` and
`background_error` tell them apart.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch

from .. import images, masks
from ..blend import blend
from ..edit import Edit, one_or_n, take
from ..latents import decode, encode, tuned
from ..noise import Noise
from ..options import Options, settle
from ..rank import read
from .clip_guidance import clip_distance, results


@dataclass(frozen=True)
class Optimising(Options):
    """How to optimise. The paper says steps and lr; what CLIP sees is as in its own method, the
    rest is ours.
    """

    # Of Adam. None: what the model recommends.
    steps: int | None = None
    lr: float | None = None
    # The copies that CLIP sees and their distance to the words, as in clip_guidance.Guiding.
    augmentations: int = 16
    unwarped: int = 0
    distance: Literal["cosine", "spherical"] = "cosine"
    # Standard deviation of the noise that is added to the source's latent at the start.
    noise: float = 0.0
    # How the mask comes to latent size, see masks.to_latent.
    mask_rule: Literal["centre", "corner", "area", "any"] = "centre"
    paste: bool = False  # put the source's pixels back outside the mask, bit for bit

    def __post_init__(self):
        super().__post_init__()
        if self.augmentations < 1:
            raise ValueError(
                f"augmentations is {self.augmentations}; take 1 with unwarped=1 for none"
            )
        if self.steps is not None and self.steps < 1:
            raise ValueError(
                f"steps is {self.steps}; it counts the steps of Adam, so take 1 or more (the "
                "paper: 500)"
            )
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise ValueError(
                f"lr is {self.lr}; it says how far a step goes, so take more than 0 (the "
                "paper: 0.1)"
            )
        if not 0 <= self.noise < float("inf"):
            raise ValueError(
                f"noise is {self.noise}; it is a standard deviation, so take 0 (none) or more"
            )


FALLBACK = {
    "steps": 500,
    "lr": 0.1,
}  # the paper's, for VQGAN's latents; here they are the pipeline's, scaled
PRESETS = {"paper": Optimising(**FALLBACK)}


@torch.no_grad()
def paint_by_word(
    pipe,
    clip,
    image,
    mask,
    prompt,
    *,
    steps=None,
    lr=None,
    augmentations=None,
    noise=None,
    paste=None,
    preset=None,
    ranking="mask",
    n=1,
    seed=0,
    batch=None,
    **options,
) -> Edit:
    """Optimise the latents inside the mask until CLIP sees the prompt there; return an `Edit` with
    n results.

    PaintByWord++ of Blended Diffusion's comparison: Paint by Word (2103.10951) for any picture,
    with the latents of an autoencoder. No diffusion model takes part, so nothing asks the result to
    look real.

    pipe:     a StableDiffusionPipeline or another with an autoencoder, which is left as it was,
              whatever happens
    clip, image, mask, prompt, ranking, n, seed, batch: as in `blended`; sides are multiples of the
              autoencoder's factor. Samples differ in the warps that CLIP sees and, with noise > 0,
              in where they start
    steps, lr: of Adam. Left out, they come from the preset ("paper", or an Optimising), else from
              the model, else from the paper (500, 0.1). options: any field of Optimising

    Outside the mask the latents are the source's exactly. The pixels there are not: the autoencoder
    loses detail and lets an extreme latent change the whole picture a little; paste=True puts them
    back bit for bit. Bad input raises ValueError with the fix before any network runs.
    """
    asked = dict(steps=steps, lr=lr, augmentations=augmentations, noise=noise, paste=paste)
    how = settle(Optimising, "paint_by_word", pipe, PRESETS, FALLBACK, preset, asked | options)
    image, mask, mask_small, text = _admit(pipe, clip, image, mask, prompt, n, how.mask_rule)
    latents = []

    def run(image, mask, text, rows):
        vae = tuned(pipe.vae)  # a copy in float32
        latents.append(_run(vae, clip, image, mask, take(mask_small, rows), text, how, seed, rows))
        return decode(vae, latents[-1])

    edit = results(run, clip, image, mask, text, prompt, how, ranking, n, seed, batch)
    return replace(edit, latents=torch.cat(latents)[edit.settings["order"]])


def _admit(pipe, clip, image, mask, prompt, n, rule):
    """Picture, mask in two sizes and the prompts' vectors (1 or n,d), or a sentence that says what
    is wrong.
    """
    if n < 1:
        raise ValueError(f"n is {n}; it counts the edits to make, so take 1 or more")
    if getattr(pipe, "vae", None) is None:
        raise ValueError(
            "pass a pipeline with an autoencoder, as bl.load('tinyworld') gives; blended is "
            "for pixels"
        )
    image = images.image(image, size_multiple=pipe.vae_scale_factor).to(pipe._execution_device)
    mask = images.mask(mask, like=image, allow_full=True)
    prompt = [prompt] if isinstance(prompt, str) else list(prompt)
    one_or_n(n, {"image": len(image), "mask": len(mask), "prompt": len(prompt)})
    mask_small = masks.to_latent(
        mask, [side // pipe.vae_scale_factor for side in image.shape[-2:]], rule
    )
    return image, mask, mask_small, read(clip, prompt).to(image.device)


def _run(vae, clip, image, mask, mask_small, text, how, seed, rows):
    """The latents (B,C,h,w) of the samples in `rows`, each with its own streams of noise."""
    source = encode(vae, image)  # (1 or B,C,h,w)
    initial, draw = (
        Noise(seed, len(rows), name, source.device, rows.start) for name in ("initial", "augment")
    )
    free = source + how.noise * initial(source.shape[1:])  # (B,C,h,w)
    adam = torch.optim.Adam([free.requires_grad_()], lr=how.lr)
    alone = how.augmentations == how.unwarped == 1

    for _ in range(how.steps):
        u = None if alone else torch.special.ndtr(draw((how.augmentations, 12)))
        with torch.enable_grad():
            z = blend(mask_small, edit=free, keep=source)
            picture = vae.decode(z / vae.config.scaling_factor).sample  # (B,3,H,W), not clamped
            loss = clip_distance(picture, text, mask, clip, how, u)  # (B,)
            (free.grad,) = torch.autograd.grad(loss.sum(), free)
        adam.step()
    return blend(mask_small, edit=free.detach(), keep=source)
