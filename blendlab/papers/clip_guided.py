"""Blended Diffusion (2111.14818), algorithm 1: CLIP guides inside the mask, a second loss asks for
the background.

The baseline that blending replaces: the background is asked for at every step and never exact, and
the more it is asked for (`background`, the paper's lambda, figure 3), the less is edited. Next:
blended.py.
"""

import torch
from torch import Tensor

from ..edit import Edit
from ..networks.perceptual import perceptual_distance
from ..noise import Noise
from .clip_guidance import admit, choose, clip_loss, guided_steps, looked_at, read_model, results

# arguments.py:36-59, the copies as in the paper; from pure noise
FALLBACK = {"scale": 1000.0, "augmentations": 16, "steps": 100, "skip": 0.0, "eta": 1.0}


def background_distance(pictures: Tensor, image: Tensor, mask: Tensor, perceptual) -> Tensor:
    """D_bg of each picture, (B,): half mean square, half perceptual distance, of what is outside
    the mask.

    pictures, image (B or 1,3,H,W) in [-1,1]; inside the mask (B or 1,1,H,W) both are grey.
    perceptual: a function of two batches of pictures, (B,).
    """
    a, b = (x * (1 - mask) for x in (pictures, image))
    return ((a - b).square().mean((1, 2, 3)) + perceptual(a, b.expand_as(a))) / 2


def official_distance(pictures: Tensor, image: Tensor, mask: Tensor, perceptual) -> Tensor:
    """The code's D_bg, (B,): perceptual distance and ten times the mean square, 1000 and 10000 with
    the usual weight (arguments.py:66-79).

    What is grey inside the mask is compared with the whole picture (image_editor.py:193-208), so it
    is never 0. The code averages the mean square over its batch; this is that of a batch of one.
    """
    a = pictures * (1 - mask)
    return perceptual(a, image.expand_as(a)) + 10 * (a - image).square().mean((1, 2, 3))


@torch.no_grad()
def clip_guided(
    model,
    clip,
    image,
    mask,
    prompt,
    *,
    scale=None,
    background=1000.0,
    augmentations=None,
    steps=None,
    skip=None,
    eta=None,
    preset=None,
    perceptual=None,
    ranking="mask",
    n=1,
    seed=0,
    batch=None,
    **options,
) -> Edit:
    """Make a picture that shows the prompt inside the mask and resembles `image` outside; an `Edit`
    with n results.

    background: lambda, the weight of D_bg (the paper compares 100, 1000 and 10000); 0 forgets the
                picture
    perceptual: a function of two batches of pictures in [-1,1] that gives (B,); None: LPIPS, or for
                tinyworld, which has no such weights offline, the same distance over its
                autoencoder's features
    The rest as in `blended`. With skip=0 (usual) the picture comes from pure noise. Nothing is
    pasted at the end unless paste=True: how far the background is off is the point. Bad input
    raises ValueError with the fix before any network runs.
    """
    chosen = dict(scale=scale, augmentations=augmentations, steps=steps, skip=skip, eta=eta)
    how = choose(model, "clip_guided", FALLBACK, preset, {"paste": False} | chosen | options)
    image, mask, text = admit(model, clip, image, mask, prompt, n)
    perceptual = perceptual or perceptual_distance(model)

    def run(source, mask, text, rows):
        return _run(model, clip, source, mask, text, how, background, perceptual, seed, rows)

    return results(
        run, clip, image, mask, text, prompt, how, ranking, n, seed, batch, background=background
    )


def _run(model, clip, source, mask, text, how, background, perceptual, seed, rows):
    """The results of the samples in `rows`, each with its own streams of noise."""
    schedule, denoiser = read_model(model)
    timesteps = schedule.timesteps(how.steps, how.skip)
    shape, device = source.shape[1:], source.device
    stream = {
        name: Noise(seed, len(rows), name, device, rows.start)
        for name in ("initial", "step", "augment")
    }

    towards = clip_loss(text, mask, clip, how, schedule, stream["augment"])

    def loss(x0_hat, x, t):  # D_CLIP + lambda * D_bg
        total = towards(x0_hat, x, t)
        if not background:
            return total
        if how.background_loss == "official":
            seen = looked_at(x0_hat, x, t, schedule, how)
            return total + background * official_distance(seen, source, mask, perceptual)
        return total + background * background_distance(x0_hat, source, mask, perceptual)

    noise = stream["initial"](shape)  # (B,3,H,W)
    x = schedule.add_noise(source, timesteps[0], noise) if how.skip else noise
    steps = guided_steps(
        denoiser(timesteps), loss, x, schedule, timesteps, how, lambda: stream["step"](shape)
    )
    for step in steps:
        result = step.x if how.result == "state" else step.x0_hat
    return result
