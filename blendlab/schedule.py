"""How much picture and how much noise a level holds: x_t = a_t * x0 + s_t * noise.

The variance-preserving schedule of DDPM (2006.11239, section 2): a = sqrt(abar), s = sqrt(1 -
abar). Level -1 is the clean picture, always. Next: sampler.py, the loop that walks down these
levels.
"""

import math
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor

from .errors import Refused
from .options import choice, number, tensor

Spacing = Literal["leading", "trailing", "linspace"]
SPACINGS = get_args(Spacing)


@dataclass(frozen=True, eq=False)
class Schedule:
    """A noise schedule, and the places on it where a sampler stops.

    abar:    (T,) float64 on the CPU, decreasing: the share of the picture's variance left at level
             t
    final:   where a sampler's last move ends: "clean" (a=1, s=0), or "first" (abar[0]:
             set_alpha_to_one=False, SD 1.x)
    spacing: how `timesteps` picks levels: "leading", "trailing" or "linspace" (2305.08891, table 2)
    offset:  added to every "leading" level; 1 in Stable Diffusion
    """

    abar: Tensor
    final: str = "clean"
    spacing: str = "leading"
    offset: int = 0

    def __post_init__(self):
        tensor("abar", self.abar, "T")
        if not (self.abar.diff() <= 0).all() or not 0 <= self.abar[-1] <= self.abar[0] < 1:
            raise Refused(
                "abar is not falling from below 1 to at least 0: pass the share of picture of each "
                "level, without the clean one"
            )
        choice("final", self.final, ("clean", "first"))
        choice("spacing", self.spacing, SPACINGS)
        number("offset", self.offset)

    def levels(self, t):
        """(a_t, s_t) as Python floats, so that a GPU is never waited for."""
        number("t", t, span=(-1, len(self.abar) - 1, "a level; -1 is clean"))
        if t < 0:
            return 1.0, 0.0
        abar = float(self.abar[t])
        return math.sqrt(abar), math.sqrt(1 - abar)

    def target(self, t):
        """(a, s) that a sampler's move to level t ends on: `levels(t)`, but for `final` at -1."""
        return self.levels(0 if t < 0 and self.final == "first" else t)

    def add_noise(self, x0, t, noise):
        """The picture x0 as it looks at level t; at the clean level x0 itself, bit for bit."""
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
        spacing, offset: None: the schedule's; its offset is cut where it does not fit.
        """
        T = len(self.abar)
        asked, offset = offset, self.offset if offset is None else offset
        spacing = self.spacing if spacing is None else spacing
        number("steps", steps, span=(1, T, "it counts levels of this schedule"))
        number("offset", offset)
        number("skip", skip, whole=False)
        choice("spacing", spacing, SPACINGS)
        if asked and spacing != "leading":
            raise Refused(
                f"offset={asked} moves the levels of spacing='leading', and here they are "
                f"'{spacing}': take offset=0, or spacing='leading'"
            )
        if spacing == "leading":
            ratio = T // steps
            room = T - 1 - (steps - 1) * ratio
            if asked and asked > room:
                raise Refused(
                    f"offset={asked} leads past the last of {T} levels with steps={steps}: take "
                    f"{room} or less"
                )
            last = min(offset, room)
            ts = [last + i * ratio for i in reversed(range(steps))]
        elif spacing == "trailing":
            ts = [round(T - i * T / steps) - 1 for i in range(steps)]
        else:
            ts = [round(i * (T - 1) / max(steps - 1, 1)) for i in reversed(range(steps))]
        return ts[int(steps * skip + 1e-9) :] + [-1]

    @classmethod
    def from_scheduler(cls, scheduler):
        """Read the levels of any diffusers scheduler with betas; the stepping stays ours.

        A warning, once for each kind of scheduler, says where its own stepping is another.
        """
        name, config = type(scheduler).__name__, getattr(scheduler, "config", {})
        if not hasattr(scheduler, "alphas_cumprod") or config.get("use_flow_sigmas"):
            raise Refused(f"{name} has no betas: use a pipeline trained with betas")
        abar = scheduler.alphas_cumprod.detach().cpu().double()
        if config.get("rescale_betas_zero_snr"):
            abar[-1] = 0.0  # Euler and the multistep solvers keep 2^-24, to be able to divide by it
        noisy_end = (  # Euler carries set_alpha_to_one in SDXL's file, and ignores it
            hasattr(scheduler, "final_alpha_cumprod") and not config.get("set_alpha_to_one", True)
        ) or config.get("final_sigmas_type") == "sigma_min"
        if unlike := differences(scheduler):
            _say_once(
                f"{name} {' and '.join(unlike)}; blendlab takes its levels, evenly spaced, and "
                "steps down them as DDIM (eta=0) or DDPM (eta=1), clipping no estimate"
            )
        return cls(
            abar,
            final="first" if noisy_end else "clean",
            spacing=config.get("timestep_spacing", "leading"),
            offset=config.get("steps_offset", 0),
        )

    @classmethod
    def linear(cls, T=1000, beta0=1e-4, beta1=0.02):
        """DDPM's schedule (2006.11239, section 4): beta rises linearly."""
        return cls._rising(T, beta0, beta1)

    @classmethod
    def scaled_linear(cls, T=1000, beta0=0.00085, beta1=0.012):
        """Latent diffusion's schedule (2112.10752): sqrt(beta) rises linearly."""
        return cls._rising(T, beta0, beta1, power=2)

    @classmethod
    def _rising(cls, T, beta0, beta1, power=1):
        number("T", T)
        number("beta0", beta0, whole=False)
        number("beta1", beta1, whole=False)
        roots = torch.linspace(beta0 ** (1 / power), beta1 ** (1 / power), T, dtype=torch.float64)
        return cls((1 - roots**power).cumprod(0))


def read_from(scheduler, spacing=None) -> dict:
    """What an Edit's settings record of a diffusers scheduler; only its levels are used, and its
    spacing where no other was asked for.
    """
    spacing = spacing or scheduler.config.get("timestep_spacing", "leading")
    return {"scheduler": type(scheduler).__name__, "spacing": spacing}


# Sets of levels other than those of the betas; and the schedulers that step as we do.
OTHER_LEVELS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")
CLIPPED = ("thresholding", "clip_sample")  # the estimate, at each step
SAME_STEPS = {f"{name}Scheduler" for name in ("DDIM", "DDIMParallel", "DDPM", "DDPMParallel")}
SAME_STEPS |= {"EulerDiscreteScheduler"}  # without fresh noise it is DDIM, in other units


def differences(scheduler) -> list[str]:
    """What a diffusers scheduler does otherwise than the loop here, as ends of a sentence."""
    config = scheduler.config
    unlike = ["has a solver of its own"] * (type(scheduler).__name__ not in SAME_STEPS)
    unlike += [f"has {name}=True" for name in (*OTHER_LEVELS, *CLIPPED) if config.get(name)]
    unlike += ["has variance_type='fixed_large'"] * (config.get("variance_type") == "fixed_large")
    return unlike


@cache
def _say_once(sentence):
    warnings.warn(sentence, stacklevel=3)
