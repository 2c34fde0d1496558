"""Guidance by CLIP in pixels: what the losses are, what they look at, and one guided step after another.

Blended Diffusion (2111.14818), sections 3.1 to 3.3; numbers of the official code by file and line. Both of its
algorithms are made of this: clip_guided.py is algorithm 1, blended.py algorithm 2. Next: those two.
"""

from dataclasses import asdict, dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from . import images
from .blend import blend
from .clip import fit, look, read
from .edit import Edit, memory_advice, one_or_n, take
from .guidance import denoiser, loss_guided
from .options import Options, settle
from .rank import rank
from .sampler import sample
from .schedule import Schedule


@dataclass(frozen=True)
class Guiding(Options):
    """How CLIP guides. The defaults are the paper's."""

    # Weight of the CLIP distance; None: what the model recommends.
    scale: float | None = None
    # Extending augmentations: how many copies of the estimate CLIP sees (None as above), how many of them unwarped.
    augmentations: int | None = None
    unwarped: int = 0
    # Distance of unit vectors: 1 - cos, or half the square of the angle.
    distance: Literal["cosine", "spherical"] = "cosine"
    # What CLIP looks at: the clean estimate, or the official code's mixture of it with the state itself.
    looks_at: Literal["x0_hat", "mixture"] = "x0_hat"
    # What the gradient moves: the mean by variance times gradient, or the noise estimate (the form for DDIM).
    shift: Literal["mean", "epsilon"] | None = None
    # Differentiate through the network, or take its noise estimate for a constant (less time, less quality).
    through_network: bool = True
    # Weight of what leaves [-1,1]: the estimate is never clipped.
    range_scale: float = 0.0
    # Noise level and noise of the kept part, as in blended_latent.Blending.
    level: Literal["t_next", "t"] = "t_next"
    batch_noise: Literal["independent", "shared"] = "independent"
    # What comes out: the last state, or its clean estimate; and whether the source is put back outside the mask.
    result: Literal["state", "x0_hat"] = "state"
    paste: bool = True
    eta: float | None = None
    steps: int | None = None
    skip: float | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.augmentations is not None and self.augmentations < 1:
            raise ValueError(f"augmentations is {self.augmentations}; take 1 with unwarped=1 for none")


# The numbers of the paper and of its code: optimization/arguments.py:17-93, image_editor.py:84-235, losses.py:4-17.
PRESETS = {
    "paper": Guiding(augmentations=16, steps=100, eta=1.0, shift="mean"),
    "official": Guiding(
        scale=1000.0, augmentations=8, unwarped=1, distance="spherical", looks_at="mixture", shift="mean",
        range_scale=50.0, level="t", batch_noise="shared", result="x0_hat", eta=1.0, steps=100),
}  # fmt: skip


def clip_distance(pictures: Tensor, text: Tensor, mask: Tensor, clip, how: Guiding, u=None) -> Tensor:
    """D_CLIP of each picture, (B,), averaged over its warped copies.

    pictures (B,3,H,W) in [-1,1]; what is outside the mask (1 or B,1,H,W) becomes grey, 0. text (1 or B,d) unit
    vectors. u (B,N,12) in [0,1): the parameters of the copies, see `warps`; None: CLIP sees the picture itself.
    """
    shown = fit(clip, pictures * mask)  # (B,3,S,S)
    copies = 1
    if u is not None:
        copies = u.shape[1]
        shown = warp(shown.repeat_interleave(copies, dim=0), warps(u, how.unwarped))  # (B*N,3,S,S)
    seen = look(clip, (shown + 1) / 2).unflatten(0, (-1, copies))  # (B,N,d)
    cos = (seen * text[:, None]).sum(-1)  # (B,N)
    if how.distance == "spherical":  # losses.py:4-7: 2 * asin(|x - y| / 2)^2, which is half the angle squared
        return (2 * ((2 - 2 * cos).clamp(min=1e-12).sqrt() / 2).clamp(max=1 - 1e-6).asin() ** 2).mean(1)
    return (1 - cos).mean(1)


def warps(u: Tensor, unwarped: int = 0) -> Tensor:
    """Projective maps (B*N,3,3) of [-1,1]^2 onto itself from numbers u (B,N,12) in [0,1).

    As augmentations.py:12-15 of the official code draws them: turned by up to 15 degrees and moved by up to a
    tenth of the side (in 7 of 10), then each corner pulled in by up to 0.7 of half the side (in 7 of 10). Of
    the copies of each picture the first `unwarped` stay as they are.
    """
    B, N, _ = u.shape
    u = u.reshape(B * N, 12)
    plain = (torch.arange(B * N, device=u.device) % N < unwarped)[:, None]
    affine, perspective = (u[:, :1] < 0.7) & ~plain, (u[:, 1:2] < 0.7) & ~plain

    # The affine part, as the inverse map: where each place of the result comes from.
    moved = torch.where(affine, 2 * u[:, 2:5] - 1, 0.0)
    angle, x, y = moved[:, 0] * torch.pi / 12, moved[:, 1] * 0.2, moved[:, 2] * 0.2
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    turn = torch.stack([cos, -sin, x, sin, cos, y, zero, zero, zero + 1], dim=1).view(-1, 3, 3)

    # The projective part: solve for the map that takes the pulled-in corners back to the corners.
    corners = u.new_tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    pulled = corners * (1 - 0.7 * torch.where(perspective, u[:, 4:12], 0.0)).view(-1, 4, 2)  # (BN,4,2)
    px, py = pulled.unbind(-1)
    cx, cy = corners.expand_as(pulled).unbind(-1)  # (BN,4)
    one, none = torch.ones_like(px), torch.zeros_like(px)
    rows_x = torch.stack([px, py, one, none, none, none, -px * cx, -py * cx], dim=-1)
    rows_y = torch.stack([none, none, none, px, py, one, -px * cy, -py * cy], dim=-1)
    solved = torch.linalg.solve(torch.cat([rows_x, rows_y], dim=1), torch.cat([cx, cy], dim=1))  # (BN,8)
    tilt = torch.cat([solved, one[:, :1]], dim=1).view(-1, 3, 3)
    return turn @ tilt


def warp(pictures: Tensor, maps: Tensor) -> Tensor:
    """Warp pictures (B,3,H,W); maps (B,3,3) say where in [-1,1]^2 each place comes from. Outside is 0."""
    H, W = pictures.shape[-2:]
    like = {"device": pictures.device, "dtype": pictures.dtype}
    y, x = torch.meshgrid(*((torch.arange(n, **like) + 0.5) / n * 2 - 1 for n in (H, W)), indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], dim=-1).view(1, H * W, 3) @ maps.to(x).mT  # (B,HW,3)
    grid = (places[..., :2] / places[..., 2:].clamp(min=1e-3)).view(-1, H, W, 2)
    return F.grid_sample(pictures, grid, align_corners=False)


def guided_steps(denoise, loss, x, schedule, timesteps, how: Guiding, fresh=None):
    """Yield the steps of guided diffusion, already moved along the gradient; assign to step.x to steer further.

    denoise(x, t) -> Prediction; loss(x0_hat, x, t) -> (B,). x: (B,3,H,W) on level timesteps[0].
    fresh: a function that draws noise for the moves (eta > 0).
    """
    if not how.through_network:
        denoise = _noise_held(denoise, schedule)
    by_mean, (a, _) = how.shift == "mean", schedule.levels(timesteps[0])
    if not by_mean and a < 1e-3:  # it divides by a, as DDIM's form does
        raise ValueError(f"the first level holds {a:.0e} of a picture, too little to shift it: take skip=0.1, or eta=1")
    guided = loss_guided(denoise, loss, schedule, scale=0.0 if by_mean else 1.0)
    for step in sample(guided, x, schedule, timesteps, how.eta, fresh):
        if by_mean:  # downhill, by the variance of this move times the gradient
            step.x = step.x - step.var * step.grad
        yield step


def _noise_held(denoise, schedule):
    """The denoiser with its noise estimate taken for a constant: a gradient reaches x past the network."""

    def held(x, t):
        a, s = schedule.levels(t)
        with torch.no_grad():
            seen = denoise(x.detach(), t)
            eps = (x.detach() - a * seen.x0_hat) / s
        return replace(seen, x0_hat=(x - s * eps) / a)

    return held


def choose(model, method: str, fallback: dict, preset, asked: dict) -> Guiding:
    """The Guiding to use, see options.settle; how the gradient shifts follows eta, unless it was chosen."""
    how = settle(Guiding, method, model, PRESETS, fallback, preset, asked)
    if how.shift == "mean" and not how.eta:
        raise ValueError("shift='mean' moves by the variance, which is 0 with eta=0: take shift='epsilon', or eta=1")
    return replace(how, shift=how.shift or ("mean" if how.eta else "epsilon"))


def admit(model, clip, image, mask, prompt, n: int):
    """Picture, mask and the prompts' vectors (1 or n,d), or a sentence that says what is wrong with them."""
    if n < 1:
        raise ValueError(f"n is {n}; it counts the edits to make, so take 1 or more")
    unet = getattr(model, "unet", None)
    if unet is None or unet.config.in_channels != 3 or hasattr(model, "vae"):
        raise ValueError("pass a model of pixels, as bl.load('tinyworld-pixel') gives; blended_latent is for latents")
    multiple = getattr(unet, "patch", 1) * 2 ** (len(unet.config.block_out_channels) - 1)
    image = images.image(image, size_multiple=multiple).to(unet.device)
    mask = images.mask(mask, like=image, allow_full=True)
    prompt = [prompt] if isinstance(prompt, str) else list(prompt)
    one_or_n(n, {"image": len(image), "mask": len(mask), "prompt": len(prompt)})
    return image, mask, read(clip, prompt).to(image.device)


def clip_loss(text, mask, clip, how: Guiding, schedule, draw=None):
    """`loss(x0_hat, x, t) -> (B,)`: the weighted CLIP distance, and what the estimate exceeds [-1,1] by.

    draw: a function that draws normal noise of a shape for each sample, here the copies' parameters.
    """

    def loss(x0_hat, x, t):
        seen = x0_hat
        if how.looks_at == "mixture":  # image_editor.py:177-178
            _, s = schedule.levels(t)
            seen = x0_hat * s + x * (1 - s)
        alone = how.augmentations == how.unwarped == 1
        u = None if alone else torch.special.ndtr(draw((how.augmentations, 12)))
        total = how.scale * clip_distance(seen, text, mask, clip, how, u)
        if how.range_scale:  # losses.py:16-17
            total = total + how.range_scale * (x0_hat - x0_hat.clamp(-1, 1)).square().mean((1, 2, 3))
        return total

    return loss


def read_model(model):
    """The schedule of a model of pixels, and a function timesteps -> denoiser."""
    schedule = Schedule.from_scheduler(model.scheduler)
    kind = model.scheduler.config.get("prediction_type", "epsilon")
    return schedule, lambda timesteps: denoiser(model.unet, schedule, kind, timesteps)


def results(run, clip, image, mask, text, prompt, how, ranking, n, seed, batch, **used) -> Edit:
    """The Edit of n samples, best first: run(source, mask, text, rows) makes those in `rows`, (B,3,H,W)."""
    tensors, at_once = [], batch or n
    with memory_advice(at_once):
        for start in range(0, n, at_once):
            rows = range(start, min(start + at_once, n))
            tensors.append(run(*(take(value, rows) for value in (image, mask, text)), rows))

    tensor = torch.cat(tensors).clamp(-1, 1)  # (n,3,H,W): a state may overshoot, a picture may not
    if how.paste:
        tensor = blend(mask, edit=tensor, keep=image)
    order, scores = list(range(n)), None
    if ranking and n > 1 and len(image) == len(mask) == len(text) == 1:
        order, scores = rank(tensor, prompt, clip, mask, ranking)
    used |= dict(prompt=prompt, n=n, seed=seed, ranking=ranking, order=order)
    return Edit(tensor[order], None, scores, used | asdict(how))
