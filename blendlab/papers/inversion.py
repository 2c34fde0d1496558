"""A picture's noise, by DDIM walked upwards (2010.02502, section 4.3).

Initial image editing (2305.03382) edits the noise that a picture comes from; a picture that no
model made has one, too. The walk is ../walk.py's. Next: reword.py, which exchanges words.
"""

import torch
from torch import Tensor

from ..latents import encode
from ..walk import Drawing, Walk, admit, settled


@torch.no_grad()
def invert(
    pipe, image, prompt: str, *, steps=None, w=1.0, refine=1, negative="", batch=None
) -> Tensor:
    """The noise (B,C,h,w) that DDIM turns into a picture, found by walking its equation upwards.

    pipe:   a StableDiffusionPipeline or a StableDiffusionXLPipeline
    image:  PIL, a path or (B,3,H,W) in [-1,1]; sides are multiples of the autoencoder's factor
    prompt: what the picture shows. steps: None: what the model recommends, else 50
    w:      guidance weight. Without guidance (1) the way back retraces; the larger w is, the less
            it does
    refine: calls of the network for each move. The usual way takes 1 and asks what the noise is one
            level below the one that is right; each further call asks again from where the last one
            led
    """
    how = settled(Drawing, invert, pipe, dict(steps=steps, w=w, invert_w=w, refine=refine))
    request = admit(pipe, [prompt], negative, image, None, how, n=None, batch=batch)
    with request.memory():
        walk = Walk.of(pipe, prompt, how, negative, request.size)
        parts = request.image.split(request.at_once)
        return torch.cat([walk.up(encode(pipe.vae, part)) for part in parts])
