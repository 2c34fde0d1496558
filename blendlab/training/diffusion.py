"""What every diffusion model here is trained on: a level for each sample, the noised sample, its target and weight.

v as in arXiv 2202.00512, appendix D. Read next: pixel.py, the shortest of latent, pixel and exemplar.
"""

import re
from pathlib import Path

import torch
from torch import Tensor


def levels(B: int, g: torch.Generator) -> Tensor:
    """Levels t (B,) in 0 .. 999: each part of the schedule once per batch."""
    return ((torch.randperm(B, generator=g) + torch.rand(B, generator=g)) / B * 1000).long().clamp(max=999)


def noised(scheduler, x0: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x0 (B,C,H,W) on levels t (B,), the v to predict there, and what an error of it counts, (B,1,1,1).

    An error of x0_hat counts SNR + 1 times, as v weighs it; at most 6 times, as in min-SNR-5 (arXiv 2303.09556), or
    little noise drowns what much noise has to decide.
    """
    abar = scheduler.alphas_cumprod.to(t.device)[t][:, None, None, None]
    a, s = abar.sqrt(), (1 - abar).sqrt()
    return a * x0 + s * noise, a * noise - s * x0, (6 * (1 - abar)).clamp(max=1)


def scheduler(**betas):
    """A DDIMScheduler of these betas, with a clean end."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        **betas,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        steps_offset=1,  # unused by trailing; diffusers warns about any other value
        clip_sample=False,
        set_alpha_to_one=True,
    )


def begin(unet, folder: Path) -> None:
    """Take over what the network in `folder` has in the same place, counted from the middle, and in the same size."""
    from diffusers import UNet2DConditionModel

    if not folder.is_dir():
        raise ValueError(f"there is no text-to-image model in {folder.parent} to begin with; name one: latent=FOLDER")
    known, mine = UNet2DConditionModel.from_pretrained(folder).float(), unet.state_dict()
    deeper = len(unet.down_blocks) - len(known.down_blocks)
    for key, value in known.state_dict().items():
        key = re.sub(r"(?<=down_blocks\.)\d+", lambda level: str(int(level[0]) + deeper), key)
        if key in mine and mine[key].shape == value.shape:
            mine[key] = value
    unet.load_state_dict(mine)
