"""Between pixels and latents: the autoencoder's two directions (latent diffusion, 2112.10752,
section 3.1).

Latents here are scaled as the diffusion model wants them, and float32 whatever the autoencoder's
precision. What it loses is lost everywhere in the picture, also outside a mask. Next:
papers/blended_latent.py.
"""

from contextlib import contextmanager

import torch
from torch import Tensor


@torch.no_grad()
def encode(vae, image: Tensor, noise: Tensor | None = None) -> Tensor:
    """Pictures (B,3,H,W) in [-1,1] to latents (B,C,H/f,W/f): the mode of the posterior, or a sample
    of it.

    noise: standard normal, of the latents' shape; given, it draws the sample, as BLD's LDM code
           does.
    """
    with _precise(vae):
        posterior = vae.encode(image.to(vae.dtype)).latent_dist
    z = posterior.mode() if noise is None else posterior.mean + posterior.std * noise
    return z.float() * vae.config.scaling_factor


@torch.no_grad()
def decode(vae, z: Tensor) -> Tensor:
    """Latents (B,C,h,w) to pictures (B,3,H,W) in [-1,1], float32."""
    with _precise(vae):
        image = vae.decode((z / vae.config.scaling_factor).to(vae.dtype)).sample
    return image.float().clamp(-1, 1)


@contextmanager
def _precise(vae):
    """Run an autoencoder that overflows in float16 (SDXL's) in float32, and put it back."""
    overflows = vae.dtype == torch.float16 and vae.config.force_upcast
    if overflows:
        vae.to(torch.float32)
    try:
        yield
    finally:
        if overflows:
            vae.to(torch.float16)


@contextmanager
def tuned(vae, delta=None):
    """Add `delta` to the weights of an autoencoder, in float32, for the length of a `with`; then
    put all back.

    delta: {name: tensor} as decoder.tune_weights returns it, for as many of the weights as it
           names; None: nothing.
    The body gets the autoencoder frozen and in inference mode, and may do to its weights, gradients
    and modes what it likes: they are copies. Afterwards the old ones are there, with their
    precision, bit for bit.
    """
    named = [*vae.named_parameters(), *vae.named_buffers()]
    before = [(x, x.data, x.grad, x.requires_grad) for _, x in named]
    modes = [(module, module.training) for module in vae.modules()]
    try:
        vae.eval()
        for name, x in named:
            x.grad = None
            x.requires_grad_(False)
            x.data = x.data.to(torch.float32 if x.is_floating_point() else x.dtype, copy=True)
            if delta and name in delta:
                x.data += delta[name].to(x.device)
        yield vae
    finally:
        for x, data, grad, wanted in before:
            x.grad = None
            x.data = data
            x.requires_grad_(wanted)
            x.grad = grad
        for module, mode in modes:
            module.training = mode
