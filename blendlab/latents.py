"""Between pixels and latents: the autoencoder's two directions (2112.10752, section 3.1).

Latents here are scaled as the diffusion model wants them, and float32 whatever the autoencoder's
precision. What it loses is lost everywhere in the picture, also outside a mask. Next:
papers/blended_latent.py.
"""

import torch
from torch import Tensor

from .errors import Refused
from .options import tensor
from .twins import twin


@torch.no_grad()
def encode(vae, image: Tensor, noise: Tensor | None = None) -> Tensor:
    """Pictures (B,3,H,W) in [-1,1] to latents (B,C,H/f,W/f): the posterior's mode or a sample.

    noise: standard normal, of the latents' shape; given, it draws the sample, as BLD's LDM code
           does.
    """
    vae = precise(vae)
    tensor("image", image, "B,3,H,W")
    found = vae.encode(image.to(vae.dtype))
    if not hasattr(found, "latent_dist"):
        kind = type(vae).__name__
        raise Refused(f"{kind} gives no posterior: pass a pipeline with an AutoencoderKL")
    posterior = found.latent_dist
    z = posterior.mode() if noise is None else posterior.mean + posterior.std * noise
    return z.float() * vae.config.scaling_factor


@torch.no_grad()
def decode(vae, z: Tensor) -> Tensor:
    """Latents (B,C,h,w) to pictures (B,3,H,W) in [-1,1], float32."""
    vae = precise(vae)
    tensor("z", z, f"B,{getattr(vae.config, 'latent_channels', 'C')},h,w")
    image = vae.decode((z / vae.config.scaling_factor).to(vae.dtype)).sample
    return image.float().clamp(-1, 1)


def precise(vae):
    """The autoencoder, or a copy in float32 of one that overflows in float16 (SDXL's)."""
    if not hasattr(vae, "config") or not hasattr(vae, "decode"):
        raise Refused(f"vae is a {type(vae).__name__}: pass an autoencoder, as pipe.vae")
    return tuned(vae) if vae.dtype == torch.float16 and vae.config.force_upcast else vae


def tuned(vae, delta=None):
    """A copy of an autoencoder in float32, with `delta` added to its weights.

    delta: {name: tensor} as decoder.tune_weights returns it, for as many of the weights as it
           names; None: nothing.
    The copy is frozen and in inference mode, and its weights are its own: do with them what you
    like.
    """

    def convert(name, x):
        x = x.to(torch.float32 if x.is_floating_point() else x.dtype, copy=True)
        return x if delta is None or name not in delta else x + delta[name].to(x.device)

    return twin(vae, convert).eval()
