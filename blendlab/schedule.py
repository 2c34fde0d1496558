"""How much picture and how much noise a level holds: x_t = a_t * x0 + s_t * noise.

The variance-preserving schedule of DDPM (2006.11239, section 2): a = sqrt(abar), s = sqrt(1 -
abar). Level -1 is the clean picture. Next: sampler.py, the loop that walks down these levels.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Schedule:
    """A noise schedule, and the places on it where a sampler stops.

    abar:    (T,) float64 on the CPU, decreasing: the share of the picture's variance left at level
             t
    final:   what level -1 is: "clean" (a=1, s=0), or "first" (abar[0]: set_alpha_to_one=False, SD
             1.x)
    spacing: how `timesteps` picks levels: "leading", "trailing" or "linspace" (2305.08891, table 2)
    offset:  added to every "leading" level; 1 in Stable Diffusion
    """

    abar: Tensor
    final: str = "clean"
    spacing: str = "leading"
    offset: int = 0

    def levels(self, t):
        """(a_t, s_t) as Python floats, so that a GPU is never waited for."""
        if t < 0 and self.final == "clean":
            return 1.0, 0.0
        abar = float(self.abar[max(t, 0)])
        return math.sqrt(abar), math.sqrt(1 - abar)

    def add_noise(self, x0, t, noise):
        """The picture x0 as it looks at level t. At the clean level it is x0 itself, bit for
        bit.
        """
        a, s = self.levels(t)
        return a * x0 + s * noise

    def renoise(self, x, t, t_next, noise):
        """The state x on the less noisy level t_next, brought up to level t with fresh noise."""
        (a, s), (a_next, s_next) = self.levels(t), self.levels(t_next)
        ratio = a / a_next
        return ratio * x + math.sqrt(max(s**2 - (ratio * s_next) ** 2, 0.0)) * noise

    def timesteps(self, steps, skip=0.0, spacing=None, offset=None):
        """Levels from noisy to clean, as a list of ints that ends with -1.

        `skip` is the share of `steps` left out at the noisy end; int(steps * skip) of them, as
        BLD's text_editing_SD2.py. The list holds one more entry than the moves that are kept.
        """
        T = len(self.abar)
        spacing, offset = spacing or self.spacing, self.offset if offset is None else offset
        if not 1 <= steps <= T:
            raise ValueError(f"steps is {steps}; this schedule takes 1 to {T}")
        if not 0 <= skip < 1:
            raise ValueError(
                f"skip is {skip}; it is a share of the steps, 0.25 leaves out a quarter of them"
            )

        if spacing == "leading":
            ratio = T // steps
            ts = [
                i * ratio + min(offset, T - 1 - (steps - 1) * ratio) for i in reversed(range(steps))
            ]
        elif spacing == "trailing":
            ts = [round(T - i * T / steps) - 1 for i in range(steps)]
        elif spacing == "linspace":
            ts = [round(i * (T - 1) / max(steps - 1, 1)) for i in reversed(range(steps))]
        else:
            raise ValueError(f"spacing is {spacing!r}; choose leading, trailing or linspace")
        return ts[int(steps * skip + 1e-9) :] + [-1]

    @classmethod
    def from_scheduler(cls, scheduler):
        """Read the levels of any diffusers scheduler with betas; the stepping stays ours."""
        if not hasattr(scheduler, "alphas_cumprod"):
            raise ValueError(
                f"{type(scheduler).__name__} has no betas: use a pipeline trained with betas"
            )
        config = scheduler.config
        return cls(
            scheduler.alphas_cumprod.detach().cpu().double(),
            final="clean" if config.get("set_alpha_to_one", True) else "first",
            spacing=config.get("timestep_spacing", "leading"),
            offset=config.get("steps_offset", 0),
        )

    @classmethod
    def linear(cls, T=1000, beta0=1e-4, beta1=0.02):
        """DDPM's schedule (2006.11239, section 4): beta rises linearly."""
        return cls((1 - torch.linspace(beta0, beta1, T, dtype=torch.float64)).cumprod(0))

    @classmethod
    def scaled_linear(cls, T=1000, beta0=0.00085, beta1=0.012):
        """Latent diffusion's schedule (2112.10752): sqrt(beta) rises linearly."""
        roots = torch.linspace(beta0**0.5, beta1**0.5, T, dtype=torch.float64)
        return cls((1 - roots**2).cumprod(0))
