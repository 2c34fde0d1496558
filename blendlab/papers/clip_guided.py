"""Blended Diffusion (2111.14818), algorithm 1: CLIP guides inside, a loss asks for the background.

The baseline that blending replaces: the background is asked for at every step and never exact, and
the more it is asked for (`background`, the paper's lambda, figure 3), the less is edited. Next:
blended.py.
"""

from dataclasses import asdict

import torch
from torch import Tensor

from .. import door
from ..clip_guidance import (
    FALLBACK,
    Guiding,
    choose,
    clip_loss,
    guided_steps,
    looked_at,
    not_for,
    told,
)
from ..edit import Edit
from ..guidance import from_pipe
from ..networks.perceptual import perceptual_distance
from ..options import function, number, registered
from ..rank import is_clip, read
from ..schedule import read_from

FROM_NOISE = FALLBACK | {"skip": 0.0}


@registered("tinyworld-pixel", Guiding)
@torch.no_grad()
def clip_guided(
    model, clip, image, mask, prompt, *,
    background=1000.0, preset=None, perceptual=None, ranking="mask",
    n=1, seed=0, batch=None, first=0, **options,
) -> Edit:  # fmt: skip
    """Make a picture that shows the prompt in the mask and `image` outside; return an `Edit`.

    mask:       PIL, a path or (1 or n,1,H,W) in {0,1}; 1 (white) = edit
    background: lambda, the weight of D_bg (the paper compares 100, 1000 and 10000); 0 forgets the
                picture
    perceptual: a function of two batches of pictures in [-1,1] that gives (B,); None: LPIPS, or for
                tinyworld, which has no such weights offline, the same distance over its
                autoencoder's features
    The rest as in `blended`. With skip=0 (usual) the picture comes from pure noise. Nothing is
    pasted at the end unless paste=True: how far the background is off is the point. Bad input
    raises ValueError with the fix before any network runs.
    """
    usual = {} if isinstance(preset, Guiding) else {"paste": False}
    how = choose(model, clip_guided, FROM_NOISE, preset, usual | options)
    why = "here a loss asks for the background, which blended puts back"
    not_for("clip_guided", options | {"soft": how.soft}, level=why, batch_noise=why, soft=why)
    number("background", background, whole=False)
    function("perceptual", perceptual, "a function of two batches of pictures")
    is_clip(clip, ranking)
    counts = dict(n=n, seed=seed, batch=batch, first=first)
    request = door.pixel(model, image, mask, prompt, soft=how.soft, **counts)
    schedule, timesteps, net = from_pipe(model, how.steps, how.skip)
    text = read(clip, request.prompt).to(request.image.device)  # (1 or n,d)
    if background and perceptual is None:
        perceptual = perceptual_distance(model)
    tensors = []

    with request.memory():
        for rows, part in request.batches(text=text):
            denoise = told(net, model.unet, how, request.noise("class", rows))
            copies = request.noise("augment", rows)
            towards = clip_loss(part.text, part.mask, clip, how, schedule, copies)
            loss = _with_background(towards, background, part, perceptual, schedule, how)
            x = request.noise("initial", rows)()  # (B,3,H,W)
            if how.skip:
                x = schedule.add_noise(part.image, timesteps[0], x)
            fresh, again = request.noise("step", rows), request.noise("resample", rows)
            for step in guided_steps(denoise, loss, x, schedule, timesteps, how, fresh, again):
                result = step.x if how.result == "state" else step.x0_hat
            tensors.append(result.clamp(-1, 1))  # a state may overshoot, a picture may not

    used = dict(background=background, prompt=prompt, ranking=ranking)
    used |= read_from(model.scheduler) | asdict(how)
    return request.finish(tensors, None, used, how.paste, clip, ranking)


def _with_background(towards, background, part, perceptual, schedule, how):
    """The loss D_CLIP + lambda * D_bg."""

    def loss(x0_hat, x, t):
        if how.background_loss == "official":
            seen = looked_at(x0_hat, x, t, schedule, how)
            behind = official_distance(seen, part.image, part.mask, perceptual)
        else:
            behind = background_distance(x0_hat, part.image, part.mask, perceptual)
        words = towards(x0_hat, x, t) if towards else 0.0
        return words + background * behind

    return loss if background else towards


def background_distance(pictures: Tensor, image: Tensor, mask: Tensor, perceptual) -> Tensor:
    """D_bg of each picture, (B,): half mean square, half perceptual distance, outside the mask.

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
