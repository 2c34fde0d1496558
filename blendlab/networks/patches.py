"""A network on small squares of pixels, used as one on pixels: a way to make a pixel model cheaper.

Four by four pixels become 48 channels of one cell (pixel_unshuffle), so the widest part of the
network works on a sixteenth of the places, as it does in latent diffusion, with nothing learned or
lost on the way. Transformers on pixels do the same (arXiv 2212.09748, and 2511.13720, which finds
that such a network should predict the clean picture, not the noise). Next: ../training/pixel.py,
which trains one.
"""

import math

import torch.nn.functional as F
from diffusers.configuration_utils import FrozenDict
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor, nn

from .. import cards


class Patches(nn.Module):
    """A UNet2DModel of 3*p*p channels as one of three, on (B,3,H,W); p divides H and W."""

    def __init__(self, unet):
        super().__init__()
        self.unet, self.patch = unet, math.isqrt(unet.config.in_channels // 3)
        side = unet.config.sample_size * self.patch
        sizes = {"in_channels": 3, "out_channels": 3, "sample_size": side}
        self.config = FrozenDict({**unet.config, **sizes})

    dtype = property(lambda self: self.unet.dtype)
    device = property(lambda self: self.unet.device)

    def forward(self, sample: Tensor, timestep, **kwargs):
        cells = F.pixel_unshuffle(sample, self.patch)  # (B,3pp,H/p,W/p)
        out = self.unet(cells, timestep, return_dict=False, **kwargs)[0]
        return UNet2DOutput(F.pixel_shuffle(out, self.patch))


def in_patches(unet) -> bool:
    """Whether a network is one for `Patches`: 3*p*p channels in and out, p of 2 or more."""
    channels = unet.config.in_channels
    p = math.isqrt(channels // 3)
    return p > 1 and channels == unet.config.out_channels == 3 * p * p


def save(pipe, folder, **options) -> None:
    """Write the folder that such a pipeline came from: the network without its wrapping."""
    plain = type(pipe)(pipe.unet.unet, pipe.scheduler)
    cards.remember(plain, cards.card(pipe))
    plain.save_pretrained(folder, **options)
