"""The steps of an edit as the film that a panel scrubs.

    def play(mask, words):
        with filmed() as film:                # of sampler.py: the steps that are made in here
            edit = bl.blended_latent(pipe, image, mask, words, n=4, clip=clip)
        return scrub(film, edit, pipe.vae)

No paper. Read next: panel.py, which shows it.
"""

from math import ceil

import torch

from ... import latents, viz

FRAMES = 25  # at most, so that decoding them takes a small part of the time of the edit
WIDE = 384  # pixels, of frames with a mask in them


def scrub(film, edit, vae=None, masks=None):
    """Yield (done, picture) for the estimates of an edit's first picture; return that picture.

    film: the steps of the edit, all samples at once. vae: decodes them; None: they are pixels.
    masks: one at latent size for each step, drawn as an outline around its cells.
    """
    first = edit.settings["order"][0] - edit.settings.get("first", 0)
    if any(len(step.x) != edit.settings["n"] for step in film):
        fix = "leave batch= out, and until=; after reword keep the last n rows of x and x0_hat"
        raise ValueError(f"the film does not hold just the samples at each step: {fix}")
    every = ceil(len(film) / FRAMES)
    for number in range(0, len(film), every or 1):
        picture = film[number].x0_hat[first : first + 1]
        if edit.settings.get("window"):
            picture = _placed(picture, edit)
        with torch.no_grad():
            picture = picture if vae is None else latents.decode(vae, picture)
        if masks is not None:
            picture = viz.show(picture.clamp(-1, 1), mask=masks[number], panel=WIDE)
        else:
            picture = picture.clamp(-1, 1)
        yield number / len(film), picture
    return edit.images[0]


def _placed(square, edit):
    """The latent of an edit's first picture, with a step's (1,C,h,w) in its square."""
    z = edit.latents[:1].clone()
    factor = edit.tensor.shape[-1] // z.shape[-1]
    left, top, right, bottom = (side // factor for side in edit.settings["square"][0])
    z[..., top:bottom, left:right] = square
    return z
