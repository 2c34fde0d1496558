"""The walk from noise to picture by words alone, and back up again.

DDIM with eta 0 is an equation that runs both ways (2010.02502, section 4.3): a picture has a noise
that it comes from. Next: papers/inversion.py, reword.py, repaint.py, layout.py, which walk.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from . import cards, door, prompts
from .errors import Refused
from .guidance import cfg, from_pipe
from .latents import decode, encode
from .options import Options, settle
from .sampler import last, sample
from .schedule import Schedule


@dataclass(frozen=True)
class Drawing(Options):
    """How a picture is made from noise; None: as the model recommends, else usual numbers."""

    w: float | None = None
    steps: int | None = None
    eta: float | None = None  # 0 is DDIM: the noise alone decides
    # Guidance weight on the way from a picture to its noise; 1 is without guidance.
    invert_w: float = 1.0
    refine: int = 1  # calls of the network for each move up; more follow the way down more closely


# Initial image editing (2305.03382) on Stable Diffusion 1.4: README and utils.py:119-126.
FALLBACK = {"w": 7.5, "steps": 50, "eta": 0.0}


def settled(kind, method, pipe, asked, presets=None, preset=None, **fallback):
    """The options: what was asked for, else the model's (w and steps for editing will do)."""
    editing = cards.settings(pipe, "blended_latent")
    usual = {name: editing[name] for name in ("w", "steps") if name in editing}
    usual |= cards.settings(pipe, method.__name__)
    return settle(kind, method, pipe, presets or {}, FALLBACK | fallback, preset, asked, usual)


def admit(pipe, texts, negative, image, noise, how, **counts) -> door.Request:
    """The request of a walk (see door.words), from a picture, a noise, or the seed's noise."""
    if image is not None and noise is not None:
        raise Refused("both image= and noise= are given: pass the one to start from")
    if image is not None and how.eta:
        raise Refused(f"eta is {how.eta}, and image= has a noise only under DDIM: pass eta=0")
    request = door.words(pipe, texts, image, noise, **counts)
    door.readable(pipe, texts, negative, how.w)
    Schedule.from_scheduler(pipe.scheduler).timesteps(how.steps)
    return request


@dataclass(frozen=True)
class Walk:
    """Prompts that a pipeline has read: noise walks down to a latent, a latent up to its noise."""

    pipe: Any
    net: Callable
    text: object  # as prompts.encode gives it, 1 or B rows
    null: object
    schedule: Schedule
    timesteps: list[int]
    how: Drawing

    @classmethod
    def of(cls, pipe, said, how, negative="", size=None, unet=None):
        """said: a prompt, or one for each row. size: (h, w) of the latents; None: the model's own.

        unet: to run in the place of the pipeline's, as a twin that hooks can go to.
        """
        schedule, timesteps, net = from_pipe(pipe, how.steps, unet=unet)
        h, w = (side * pipe.vae_scale_factor for side in size or door.state_shape(pipe)[1:])
        text, null = prompts.encode(pipe, prompts.listed(said), negative, (h, w))
        return cls(pipe, net, text, null, schedule, timesteps, how)

    def start(self, request) -> Tensor:
        """The noise (n,C,h,w) to start from: that of a picture, the given one, or the seed's."""
        z = request.given
        if request.image is not None:
            z = torch.cat([self.up(encode(self.pipe.vae, one)) for one in request.image.split(1)])
        if z is None:
            return request.noise("initial", range(request.n))()
        return z.expand(request.n, -1, -1, -1)

    def steps(self, z, fresh=None, within=nullcontext):
        """The moves from noise (B,C,h,w), as `sample` yields them.

        fresh: a function that draws noise, for eta > 0. within: gives, for a level, what the
               network is to run in, a `with`.
        """
        guided = cfg(self.net, self.text, self.null, self.how.w)

        def denoise(x, t):
            with within(t):
                return guided(x, t)

        return sample(denoise, z, self.schedule, self.timesteps, self.how.eta, fresh)

    def down(self, z, fresh=None, within=nullcontext) -> Tensor:
        """The latents (B,C,h,w) that the noise leads to."""
        return last(self.steps(z, fresh, within))

    def pictures(self, z, request, rows=None) -> tuple[Tensor, Tensor]:
        """Latents and pictures of the samples at these positions (None: all), in batches; z: their
        noise, a row each.
        """
        rows = list(range(request.n) if rows is None else rows)
        parts = []
        for i in range(0, len(rows), request.at_once):
            now = rows[i : i + request.at_once]
            parts.append(self.down(z[i : i + request.at_once], request.noise("step", now)))
        return torch.cat(parts), torch.cat([decode(self.pipe.vae, part) for part in parts])

    def up(self, z) -> Tensor:
        """The noise of clean latents: each move of DDIM, solved for where it came from."""
        denoise = cfg(self.net, self.text, self.null, self.how.invert_w)
        if len(self.timesteps) == 2 and not self.schedule.levels(self.timesteps[0])[0]:
            raise Refused("one step leads to pure noise, which remembers nothing: take steps=2")
        for t, t_next in pairwise(reversed(self.timesteps)):
            (a, s), (a_next, s_next) = self.schedule.target(t), self.schedule.levels(t_next)
            x = z
            for _ in range(self.how.refine):
                x0_hat = denoise(x, t_next).x0_hat
                if a_next:
                    eps = (x - a_next * x0_hat) / s_next
                    x = a_next / a * z + (s_next - a_next / a * s) * eps
                else:  # zero terminal SNR: the state is all noise, so only the estimate says more
                    x = (z - a * x0_hat) / s
            z = x
        return z
