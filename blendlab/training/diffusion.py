"""What diffusion models are trained on: one level for each sample, the noised sample, its target.

v as in arXiv 2202.00512, appendix D; predicting the picture itself with the loss of v as in arXiv
2511.13720. Read next: pixel.py, the shortest of latent, pixel and exemplar.
"""

import re
from pathlib import Path

import torch
from torch import Tensor

from ..errors import Refused
from ..networks import opening


def levels(B: int, g: torch.Generator) -> Tensor:
    """Levels t (B,) in 0 .. 999: each part of the schedule once per batch."""
    return (
        ((torch.randperm(B, generator=g) + torch.rand(B, generator=g)) / B * 1000)
        .long()
        .clamp(max=999)
    )


def noised(scheduler, x0: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x0 (B,C,H,W) on levels t (B,), the target (v or x0), and its weight (B,1,1,1) in the loss.

    An error of x0_hat weighs SNR + 1, as the loss of v has it, but at most 6, as in min-SNR-5
    (arXiv 2303.09556): else the levels of little noise drown those of much noise.
    """
    abar = scheduler.alphas_cumprod.to(t.device)[t][:, None, None, None]
    a, s = abar.sqrt(), (1 - abar).sqrt()
    x = a * x0 + s * noise
    if scheduler.config.prediction_type == "sample":
        return x, x0, (1 / s**2).clamp(max=6)
    return x, a * noise - s * x0, (6 * s**2).clamp(max=1)  # an error of v is one of x0_hat over s


def scheduler(prediction_type="v_prediction", **betas):
    """A DDIMScheduler of these betas, with a clean end."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        **betas,
        prediction_type=prediction_type,
        timestep_spacing="trailing",
        steps_offset=1,  # unused by trailing; diffusers warns about any other value
        clip_sample=False,
        set_alpha_to_one=True,
    )


def begin(unet, folder: Path) -> None:
    """Take over what the network in `folder` has in the same place (from the middle) and size."""
    if not folder.is_dir():
        raise Refused(
            f"there is no text-to-image model in {folder.parent} to begin with; name one: "
            "--set latent=FOLDER (of the job latent: inner=FOLDER)"
        )
    known = opening.network(folder, "UNet2DConditionModel", safe=False)
    mine = unet.state_dict()
    deeper = len(unet.down_blocks) - len(known.down_blocks)
    for key, value in known.state_dict().items():
        key = re.sub(r"(?<=down_blocks\.)\d+", lambda level: str(int(level[0]) + deeper), key)
        if key in mine and mine[key].shape == value.shape:
            mine[key] = value
    unet.load_state_dict(mine)
