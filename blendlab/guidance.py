"""What the network predicts: from a network to a denoiser, and from a denoiser to a guided one.

Each function here returns a function. The contract is in sampler.py: `denoise(x, t) -> Prediction`.
Classifier-free guidance: 2207.12598; guidance by a gradient: 2105.05233, section 4. Next:
papers/blended_latent.py.
"""

from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from .errors import Refused
from .options import choice, function, number
from .sampler import DENOISER, Prediction, are_levels, is_schedule
from .schedule import Schedule


def from_pipe(pipe, steps, skip=0.0, offset=None, final=None, unet=None, spacing=None):
    """(schedule, timesteps, net) of a diffusers pipeline; net is the `denoiser` of its UNet.

    steps, skip, offset, spacing: as in Schedule.timesteps. final: as in Schedule; None: as its
    scheduler says. unet: to run in the place of the pipeline's.
    """
    schedule = Schedule.from_scheduler(pipe.scheduler)
    schedule = schedule if final is None else replace(schedule, final=final)
    timesteps = schedule.timesteps(steps, skip, spacing, offset)
    prediction = pipe.scheduler.config.get("prediction_type", "epsilon")
    return schedule, timesteps, denoiser(unet or pipe.unet, schedule, prediction, timesteps)


def denoiser(unet, schedule, prediction="epsilon", timesteps=None):
    """Turn a network into `net(x, t, cond=None) -> Prediction`.

    prediction: what the network was trained to predict, as in diffusers' prediction_type.
    cond: text (1 or B, L, d), or a dict of the UNet's keyword arguments; rows are repeated to the
          batch.
    timesteps: needed only to use a learned variance, because that depends on the level moved to.
    The network runs in its own precision; what comes back has the precision of x.
    """
    choice("prediction", prediction, ("epsilon", "v_prediction", "sample"))
    function("unet", unet, "a network, as pipe.unet", needed=True)
    is_schedule(schedule)
    if timesteps is not None:
        are_levels(timesteps)
    after = dict(pairwise(timesteps or ()))
    before = {t_next: t for t, t_next in after.items()}

    def net(x, t, cond=None):
        a, s = schedule.levels(t)
        if not a and prediction == "epsilon":
            raise Refused(
                f"level {t} is all noise (zero terminal SNR), where a prediction of noise says "
                "nothing about the picture: skip=1/steps leaves that level out"
            )
        dtype = getattr(unet, "dtype", x.dtype)
        cond = _rows(cond, len(x), dtype)
        kwargs = {} if cond is None else cond
        if not isinstance(kwargs, dict):
            kwargs = {"encoder_hidden_states": cond}
        classes = getattr(getattr(unet, "config", None), "num_class_embeds", None)
        if classes and "class_labels" not in kwargs:
            raise Refused(
                f"this network was trained with {classes} classes and is told none: pass "
                "cond={'class_labels': labels}, as blended and clip_guided do by their classes="
            )
        levels = torch.full((len(x),), t, device=x.device)
        out = unet(x.to(dtype), levels, **kwargs)
        out = getattr(out, "sample", out).to(x.dtype)  # (B, C or 2C, H, W)

        # A network with twice the channels also predicts how much fresh noise to add.
        out, v = out.split(x.shape[1], dim=1) if out.shape[1] == 2 * x.shape[1] else (out, None)
        learned = v is not None and t in after
        var = _learned(v, schedule, t, after[t], before.get(t)) if learned else None

        # The first formula of every paper: solve x = a * x0 + s * eps for x0.
        if prediction == "epsilon":
            x0_hat = (x - s * out) / a
        elif prediction == "v_prediction":  # v = a * eps - s * x0  (2202.00512, appendix D)
            x0_hat = a * x - s * out
        else:
            x0_hat = out
        return Prediction(x0_hat, var)

    return net


def cfg(net, text, null, w):
    """Classifier-free guidance, u + w * (c - u), in ONE call of the network per step.

    net: `net(x, t, cond) -> Prediction`; text, null: what it takes as cond. w=1 is the conditional
         model.
    """
    function("net", net, "a function (x, t, cond), as denoiser gives", needed=True)
    number("w", w, whole=False)
    if w == 1:
        return lambda x, t: net(x, t, text)

    def denoise(x, t):
        both = net(torch.cat([x, x]), t, stacked(null, text, len(x)))
        u, c = both.x0_hat.chunk(2)  # (B,C,H,W) each
        return Prediction(u + w * (c - u), None if both.var is None else both.var.chunk(2)[1])

    return denoise


def loss_guided(denoise, loss, schedule=None, scale=0.0):
    """Add the gradient of a loss with respect to x: `Prediction.grad`, from the same forward pass.

    loss: `loss(x0_hat, x, t)`, a scalar or (B,), one value per sample.
    The shift of the mean is then the reader's line `step.x = step.x - scale * step.var * step.grad`
    (Blended Diffusion, 2111.14818, algorithm 2). With a `scale` (and a schedule) x0_hat itself
    moves, by
    -scale * s^2/a * grad: the form for DDIM (2105.05233, algorithm 2).
    """
    function("denoise", denoise, DENOISER, needed=True)
    function("loss", loss, "a function (x0_hat, x, t) that gives a scalar or (B,)", needed=True)
    number("scale", scale, whole=False)
    if scale and schedule is None:
        raise Refused("scale= moves x0_hat by the schedule's levels: pass schedule=")

    def guided(x, t):
        needs_gradients("guidance")
        a, s = schedule.levels(t) if scale else (1.0, 0.0)
        if not a:
            raise Refused(
                f"level {t} holds no picture, so x0_hat cannot be moved: leave scale= out"
            )
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            seen = denoise(x, t)
            value, grad = loss(seen.x0_hat, x, t).sum(), None
            if value.requires_grad:
                (grad,) = torch.autograd.grad(value, x, allow_unused=True)
        if grad is None:
            raise Refused(
                "the loss does not depend on x0_hat: compute it from x0_hat itself, without "
                ".detach(), .item() or torch.no_grad()"
            )
        x0_hat = seen.x0_hat.detach()
        if scale:
            x0_hat = x0_hat - scale * s**2 / a * grad
        return Prediction(x0_hat, None if seen.var is None else seen.var.detach(), grad)

    return guided


def needs_gradients(what: str) -> None:
    """Refuse torch.inference_mode()."""
    if torch.is_inference_mode_enabled():
        fix = "take torch.no_grad() in place of torch.inference_mode(), which rules them out"
        raise RuntimeError(f"{what} needs gradients: {fix}")


def _learned(v, schedule, t, t_next, t_before=None):
    """The variance that v places between its bounds, in logarithms (2102.09672, equation 15).

    The smallest one is 0 where the move ends clean; the move before it, from level t_before, gives
    its own there (improved-diffusion, gaussian_diffusion.py, posterior_log_variance_clipped).
    """
    largest, smallest = _bounds(schedule, t, t_next)
    if not smallest and t_before is not None:
        smallest = _bounds(schedule, t_before, t)[1]
    share = (v + 1) / 2  # v is -1 at the smallest, 1 at the largest
    return largest**share * max(smallest, 1e-20) ** (1 - share)


def _bounds(schedule, t, t_next):
    """The largest and the smallest variance of a move: beta and beta tilde of DDPM (2006.11239)."""
    (a, s), (a_next, s_next) = schedule.levels(t), schedule.target(t_next)
    largest = 1 - (a / a_next) ** 2
    return largest, (s_next / s) ** 2 * largest


def _rows(cond, n, dtype):
    """A condition repeated to n rows, in the network's precision; dicts are walked."""
    if isinstance(cond, dict):
        return {key: _rows(value, n, dtype) for key, value in cond.items()}
    if not isinstance(cond, Tensor):
        return cond
    return (cond.to(dtype) if cond.is_floating_point() else cond).expand(n, *cond.shape[1:])


def stacked(first, second, n):
    """n rows with one condition, then n rows with the other; dicts are walked."""
    if isinstance(second, dict):
        return {key: stacked(first[key], second[key], n) for key in second}
    return torch.cat([c.expand(n, *c.shape[1:]) for c in (first, second)])
