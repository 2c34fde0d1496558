"""How different two pictures look: LPIPS (1801.03924), or the same by an autoencoder's features.

LPIPS needs a network that is downloaded; tinyworld has its autoencoder, which travels in the
package and judges nothing else. Next: ../papers/clip_guided.py, whose background loss uses it.
"""

import warnings

import torch
import torch.nn.functional as F

from .. import cards, latents
from . import load as networks
from . import opening


def perceptual_distance(model):
    """A model's own distance: a function of two batches (B,3,H,W) in [-1,1] that gives (B,)."""
    other = cards.card(model).get("perceptual")  # a model whose autoencoder lends its features
    if other:
        return encoder_distance(networks.load(other, device=model.device).vae)
    return lpips_distance(device=model.device)


def encoder_distance(vae):
    """Mean square distance of unit feature vectors, averaged over places, then over the encoder's
    levels. An autoencoder that overflows in float16 works in float32 here, too.

    Gradients are those of the first batch. The features of the second are kept until another one
    comes, as a walk compares all its estimates with one source.
    """
    vae, known = latents.precise(vae), None

    def distance(a, b):
        nonlocal known
        if known is None or known[0].shape != b.shape or not torch.equal(known[0], b):
            with torch.no_grad():
                known = b.detach().clone(), list(encoder_features(vae, b))
        pairs = zip(encoder_features(vae, a), known[1], strict=True)
        return torch.stack([(x - y).square().sum(1).mean((1, 2)) for x, y in pairs]).mean(0)

    return distance


def encoder_features(vae, x):
    """Yield unit feature vectors (B,d,h,w) of pictures, of each level of an encoder."""
    x = vae.encoder.conv_in(x.to(next(vae.parameters()).dtype))
    for level in vae.encoder.down_blocks:
        x = level(x)
        yield F.normalize(x, dim=1).float()


@opening.undisturbed()
def lpips_distance(net: str = "vgg", device="cpu"):
    """LPIPS by the network of Blended Diffusion (image_editor.py:94); downloaded at first use."""
    import lpips

    try:
        with warnings.catch_warnings():  # it asks torchvision in a way that is deprecated
            warnings.simplefilter("ignore")
            network = lpips.LPIPS(net=net, verbose=False).to(device).eval().requires_grad_(False)
    except OSError as error:
        raise OSError(
            f"LPIPS could not download its {net} network; connect to the internet once, or pass "
            "perceptual=, a function of two batches of pictures"
        ) from error
    return lambda a, b: network(a, b).flatten()  # (B,)
