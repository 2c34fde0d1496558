"""From noise to picture by DDIM and back again.

DDIM with eta 0 is an equation that runs both ways (2010.02502, section 4.3), so that a picture has
a noise that it comes from. Next: reword.py, which exchanges words; repaint.py and layout.py, which
edit the noise.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .. import cards, images, prompts
from ..edit import memory_advice, one_or_n
from ..guidance import cfg, denoiser
from ..latents import decode, encode
from ..noise import Noise
from ..options import Options, settle
from ..sampler import last, sample
from ..schedule import Schedule


@dataclass(frozen=True)
class Drawing(Options):
    """How a picture is made from noise. None: what the model recommends, else Stable Diffusion's
    usual numbers.
    """

    w: float | None = None
    steps: int | None = None
    eta: float | None = None  # 0 is DDIM: the noise alone decides
    invert_w: float = (
        1.0  # guidance weight on the way from a picture to its noise; 1 is without guidance
    )
    refine: int = 1  # calls of the network for each move up; more follow the way down more closely


# Initial image editing (2305.03382) on Stable Diffusion 1.4: README and utils.py:119-126.
FALLBACK = {"w": 7.5, "steps": 50, "eta": 0.0}


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
    how = settled(Drawing, "invert", pipe, dict(steps=steps, invert_w=w, refine=refine))
    image, _, n = admit(pipe, [prompt, negative], image, None, None, how)
    with memory_advice(batch or n):
        ready = Ready.of(pipe, prompt, negative, image.shape[-2:], how)
        return torch.cat([ready.up(encode(pipe.vae, part)) for part in image.split(batch or n)])


# From noise to picture and back


@dataclass(frozen=True)
class Ready:
    """A prompt that a pipeline has read: noise goes down to a latent, a latent goes up to its
    noise.
    """

    pipe: object
    net: object
    text: object  # as prompts.encode gives it, one row
    null: object
    schedule: Schedule
    timesteps: list[int]
    how: Drawing

    @classmethod
    def of(cls, pipe, prompt, negative, size, how, unet=None):
        """unet: to run in the place of the pipeline's, as a twin that hooks can go to."""
        schedule = Schedule.from_scheduler(pipe.scheduler)
        text, null = prompts.encode(pipe, [prompt], negative, tuple(size))
        prediction = pipe.scheduler.config.get("prediction_type", "epsilon")
        net = denoiser(unet or pipe.unet, schedule, prediction)
        return cls(pipe, net, text, null, schedule, schedule.timesteps(how.steps), how)

    def start(self, image, noise, n, seed):
        """The noise (n,C,h,w) to start from: that of a picture, the given one, or the seed's."""
        if image is not None:
            noise = torch.cat([self.up(encode(self.pipe.vae, one)) for one in image.split(1)])
        if noise is not None:
            return noise.expand(n, -1, -1, -1)
        return Noise(seed, n, "initial", self.pipe._execution_device)(latent_shape(self.pipe))

    def steps(self, z, seed, rows, within=None):
        """The moves from noise (B,C,h,w), as `sample` yields them.

        rows: the number of each sample. within: gives, for a level, what the network is to run in,
              a `with`.
        """
        denoise = cfg(self.net, self.text, self.null, self.how.w)
        fresh = draws(seed, rows, "step", z.device)
        denoise = denoise if within is None else _run_within(denoise, within)
        return sample(
            denoise, z, self.schedule, self.timesteps, self.how.eta, lambda: fresh(z.shape[1:])
        )

    def down(self, z, seed, rows, within=None):
        return last(self.steps(z, seed, rows, within))

    def pictures(self, z, seed, rows, at_once):
        """Latents and pictures of the noises of these samples, so many at once."""
        parts = [self.down(z[at], seed, rows[at]) for at in split(len(z), at_once)]
        return torch.cat(parts), torch.cat([decode(self.pipe.vae, part) for part in parts])

    def up(self, z):
        """The noise of clean latents: each move of DDIM, solved for where it came from."""
        denoise = cfg(self.net, self.text, self.null, self.how.invert_w)
        for t, t_next in pairwise(reversed(self.timesteps)):
            (a, s), (a_next, s_next) = self.schedule.target(t), self.schedule.levels(t_next)
            x = z
            for _ in range(self.how.refine):
                eps = (x - a_next * denoise(x, t_next).x0_hat) / s_next
                x = a_next / a * z + (s_next - a_next / a * s) * eps
            z = x
        return z


def _run_within(denoise, within):
    def inside(x, t):
        with within(t):
            return denoise(x, t)

    return inside


def split(n, at_once):
    """The slices of 0 .. n-1, so many at once."""
    return [slice(i, i + at_once) for i in range(0, n, at_once)]


def draws(seed, rows, purpose, device="cpu"):
    """A function that draws noise for the samples of these numbers, each from its own stream."""
    streams = [Noise(seed, 1, purpose, device, row) for row in rows]
    return lambda shape: torch.cat([stream(shape) for stream in streams])


def latent_shape(pipe, image=None, noise=None):
    """(C,h,w) of what is to be made: of a picture's latent, of a given noise, or of the model's own
    size.
    """
    if noise is not None:
        return tuple(noise.shape[1:])
    cells = [pipe.unet.config.sample_size] * 2
    if image is not None:
        cells = [side // pipe.vae_scale_factor for side in image.shape[-2:]]
    return (pipe.vae.config.latent_channels, *cells)


def picture_size(pipe, image=None, noise=None):
    """(H, W) of what is to be made."""
    return tuple(side * pipe.vae_scale_factor for side in latent_shape(pipe, image, noise)[1:])


# What may go in


def settled(kind, method, pipe, asked, presets=None, preset=None, **fallback):
    """The options: what was asked for, else the model's (its w and steps for editing do for this
    too).
    """
    editing = cards.settings(pipe, "blended_latent")
    fallback |= FALLBACK | {name: editing[name] for name in ("w", "steps") if name in editing}
    return settle(kind, method, pipe, presets or {}, fallback, preset, asked, known=bool(editing))


def admit(pipe, texts, image, noise, n, how):
    """Picture or noise on the model's device, and n (None: as many as are given), or a sentence
    that says why not.
    """
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(
                f"the prompt is a {type(text).__name__}: pass one text, which serves all n"
            )
        prompts.check(pipe, text)
    channels = pipe.vae.config.latent_channels
    if pipe.unet.config.in_channels != channels:
        raise ValueError(
            f"this UNet takes {pipe.unet.config.in_channels} channels, a latent has "
            f"{channels}: pass a text-to-image "
            "pipeline, not one for inpainting"
        )
    Schedule.from_scheduler(pipe.scheduler).timesteps(how.steps)
    if image is not None and noise is not None:
        raise ValueError("both image= and noise= are given: pass the one to start from")
    if image is not None:
        if how.eta:
            raise ValueError(
                f"eta is {how.eta}, and only DDIM leads back to a picture's noise: pass eta=0 "
                "with image="
            )
        image = images.image(image, size_multiple=pipe.vae_scale_factor).to(pipe._execution_device)
    if noise is not None:
        if noise.ndim != 4 or noise.shape[1] != channels or not noise.isfinite().all():
            shape = ",".join(map(str, noise.shape))
            raise ValueError(
                f"noise is ({shape}); pass finite numbers of shape (1 or n,{channels},h,w)"
            )
        noise = noise.to(pipe._execution_device, torch.float32)
    given = {name: len(x) for name, x in (("image", image), ("noise", noise)) if x is not None}
    n = max(given.values()) if n is None else n
    if n < 1:
        raise ValueError(f"n is {n}; it counts the pictures to make, so take 1 or more")
    one_or_n(n, given)
    return image, noise, n
