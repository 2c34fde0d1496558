"""PaintByWord++, what Blended Diffusion (2111.14818) is compared with: latents that CLIP optimises.

The naive paste is `blend`, pyramids and the gradient domain are in ../joins.py, guidance that only
asks for the background is clip_guided.py. Next: ../measuring/metrics.py, whose `seam` and
`background_error` tell them apart.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from .. import door, masks
from ..blend import blend
from ..clip_guidance import clip_distance, copied
from ..edit import Edit
from ..guidance import needs_gradients
from ..latents import decode, encode, tuned
from ..options import ADAM, Options, registered, settle
from ..rank import is_clip, read


@dataclass(frozen=True)
class Optimising(Options):
    """How to optimise: steps and lr as in the paper, CLIP's view as in Blended Diffusion."""

    # Of Adam. None: what the model recommends.
    steps: int | None = None
    lr: float | None = None
    # The copies that CLIP sees and their distance to the words, as in clip_guidance.Guiding.
    augmentations: int = 16
    unwarped: int = 0
    distance: Literal["cosine", "spherical"] = "cosine"
    copies: Literal["paper"] = "paper"
    # Standard deviation of the noise that is added to the source's latent at the start.
    noise: float = 0.0
    # How the mask comes to latent size, see masks.to_latent.
    mask_rule: Literal["centre", "corner", "area", "any"] = "centre"
    paste: bool = False  # put the source's pixels back outside the mask, bit for bit
    SPANS = {"steps": ADAM}


# The paper's, for VQGAN's latents; here they are the pipeline's, scaled.
FALLBACK: dict[str, Any] = {"steps": 500, "lr": 0.1}
PRESETS = {"paper": Optimising(**FALLBACK)}


@registered("tinyworld", Optimising)
@torch.no_grad()
def paint_by_word(
    pipe, clip, image, mask, prompt, *,
    preset=None, ranking="mask", n=1, seed=0, batch=None, first=0, **options,
) -> Edit:  # fmt: skip
    """Optimise the latents inside the mask until CLIP sees the prompt; return an `Edit`.

    PaintByWord++ of Blended Diffusion's comparison: Paint by Word (2103.10951) for any picture,
    with the latents of an autoencoder. No diffusion model takes part, so nothing asks the result to
    look real.

    pipe:     a StableDiffusionPipeline or another with an autoencoder, which is left as it was,
              whatever happens
    mask:     PIL, a path or (1 or n,1,H,W) in {0,1}; 1 (white) = edit
    clip, image, prompt, ranking, n, seed, batch, first: as in `blended`; sides are multiples of the
              autoencoder's factor. Samples differ in the warps that CLIP sees and, with noise > 0,
              in where they start
    steps, lr: of Adam. Left out, they come from the preset ("paper", or an Optimising), else from
              the model, else from the paper (500, 0.1). options: any field of Optimising

    Outside the mask the latents are the source's exactly. The pixels there are not: the autoencoder
    loses detail and lets an extreme latent change the whole picture a little; paste=True puts them
    back bit for bit. Bad input raises ValueError with the fix before any network runs.
    """
    needs_gradients("optimising")
    how = settle(Optimising, paint_by_word, pipe, PRESETS, FALLBACK, preset, options)
    door.has_autoencoder(pipe, unet=False)
    is_clip(clip, ranking)
    counts = dict(n=n, seed=seed, batch=batch, first=first)
    request = door.placed(pipe, image, mask, prompt, **counts)
    mask_small = masks.to_latent(request.mask, request.size, how.mask_rule)
    text = read(clip, request.prompt).to(request.device)

    latents, tensors = [], []
    with request.memory():
        for rows, part in request.batches(text=text, mask_small=mask_small):
            vae = tuned(pipe.vae)  # a copy in float32
            noise = request.noise("initial", rows), request.noise("augment", rows)
            latents.append(_run(vae, clip, part, how, *noise))
            tensors.append(decode(vae, latents[-1]))

    used = dict(prompt=prompt, ranking=ranking) | asdict(how)
    return request.finish(tensors, latents, used, how.paste, clip, ranking)


def _run(vae, clip, part, how, initial, draw):
    """The latents (B,C,h,w) of a batch, each sample with its own streams of noise."""
    mask, mask_small, text = part.mask, part.mask_small, part.text
    source = encode(vae, part.image)  # (1 or B,C,h,w)
    free = source + how.noise * initial()  # (B,C,h,w)
    adam = torch.optim.Adam([free.requires_grad_()], lr=how.lr)

    for _ in range(how.steps):
        u = copied(how, draw)
        with torch.enable_grad():
            z = blend(mask_small, edit=free, keep=source)
            picture = vae.decode(z / vae.config.scaling_factor).sample  # (B,3,H,W), not clamped
            loss = clip_distance(picture, text, mask, clip, how, u)  # (B,)
            (free.grad,) = torch.autograd.grad(loss.sum(), free)
        adam.step()
    return blend(mask_small, edit=free.detach(), keep=source)
