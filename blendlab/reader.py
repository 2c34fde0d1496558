"""Where the words of a prompt look, before any step is made (initial image editing, 2305.03382).

The attention of the first step foretells where objects will appear. A `Reader` reads it for some
words, on cells of one size. Next: papers/layout.py and papers/tendency.py, which use it.
"""

from dataclasses import dataclass
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

from . import attention
from .errors import Refused
from .noise import Noise
from .walk import Drawing

NOISES = 32  # whose mean a relative map is compared with
MOST = 1024  # blocks; to share these out takes 0.3 s, four times as many 20 s


@dataclass(frozen=True)
class Reading(Drawing):
    """How a picture is made from noise, and where in the network words are read."""

    # Whose attention decides; None: the encoder's last, as published.
    layers: str | tuple | None = None


@dataclass(frozen=True)
class Reader:
    """Which words' attention is read, in which layers, on which cells."""

    unet: object
    places: list[list[int]]  # of each word among the tokens
    layers: list[str]
    block: int  # side of a cell in cells of the latent
    cells: tuple[int, int]  # (H, W): how many tile the latent

    @classmethod
    def of(cls, pipe, prompt, words, shape, layers=None, block=None, tiled=True):
        """shape: ends with (h, w) of the latents; layers: as in attention.capture, None: the
        encoder's last; block: None: their finest. tiled: the blocks must tile the latents.
        """
        names = list(attention.cross_attention(pipe.unet, layers))
        if layers is None:  # input_blocks.8 of Stable Diffusion 1 (utils.py:188)
            names = [name for name in names if name.startswith("down")][-1:] or names
        places = [attention.tokens(pipe, prompt, word) for word in words]

        # Each level of a UNet halves the sides: a cell of level l is 2^l cells of the latent.
        deepest = len(pipe.unet.config.down_block_types) - 1
        levels = {"up": lambda i: deepest - int(i), "mid": lambda i: deepest}
        parts = [name.replace("_", ".").split(".") for name in names]  # "down", "blocks", "1", ...
        block = block or 2 ** min(levels.get(kind, int)(i) for kind, _, i, *_ in parts)
        h, w = shape[-2:]
        if not tiled:
            return cls(pipe.unet, places, names, block, (ceil(h / block), ceil(w / block)))
        if h % block or w % block:
            fix = f"pass block={_divisor(h, w, block)}"
            raise Refused(f"blocks of {block} do not tile latents of {w}x{h}: {fix}")
        if (blocks := h * w // block**2) > MOST:
            fix = f"pass block={_divisor(h, w, block)}"
            raise Refused(f"block={block} makes {blocks} blocks, more than {MOST}: {fix}")
        return cls(pipe.unet, places, names, block, (h // block, w // block))

    def looks(self, net, x, t, text) -> Tensor:
        """(B,words,H,W) on the CPU: how much more than on average each word is looked at.

        net: the `denoiser` of this reader's network.
        """
        with attention.capture(self.unet, self.layers, branch="both") as maps:
            net(x, t, text)
        heat = [m.weights.mean(1).permute(0, 3, 1, 2) for m in maps]  # each (B,tokens,h,w)
        heat = [F.adaptive_avg_pool2d(each, self.cells) for each in heat]
        heat = torch.stack(heat).mean(0)  # (B,tokens,H,W)
        heat = torch.stack([heat[:, place].mean(1) for place in self.places], dim=1)
        return heat / heat.mean((2, 3), keepdim=True)

    def usual(self, walk, request) -> Tensor:
        """(words,H,W): the mean of `looks` at the first step over NOISES noises."""
        z, t = Noise("usual", NOISES, "initial", request.device)(request.shape), walk.timesteps[0]
        parts = [self.looks(walk.net, x, t, walk.text) for x in z.split(request.at_once)]
        return torch.cat(parts).mean(0)

    def inside(self, net, x, t, text, mask_small) -> Tensor:
        """(K,): how much the words are looked at inside a mask (1,1,h,w), for each of K noises
        (K,C,h,w) on level t; 1 is the mean of these noises.
        """
        heat = self.looks(net, x, t, text).mean(1)  # (K,H,W)
        share = F.adaptive_avg_pool2d(mask_small.cpu().float(), self.cells)[0, 0]
        return (heat / heat.mean(0) * share).sum((1, 2)) / share.sum().clamp(min=1e-6)


def _divisor(h, w, block):
    """The next block that tiles latents and is not too fine."""
    fits = [b for b in range(1, min(h, w) + 1) if h % b == w % b == 0 and h * w <= MOST * b**2]
    if not fits:
        raise Refused(
            f"no block tiles latents of {h}x{w} cells: take pictures with sides of multiples of 64"
        )
    return min(fits, key=lambda b: (b < block, abs(b - block)))
