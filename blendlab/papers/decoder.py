"""Background reconstruction (2206.02779, section 4.2): the source back outside the mask.

An autoencoder loses detail everywhere, so an edited latent does not decode to the source outside
the mask. `reconstruct` is the front door to six remedies; `tune_weights` is the paper's, which
adapts a copy of the decoder to one picture, and `tuned` makes the copy of the autoencoder that has
what was found. Next: ../joins.py.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from .. import cards, door, images
from ..blend import blend
from ..edit import Edit, one_or_n, take
from ..errors import Refused, WrongType
from ..guidance import needs_gradients
from ..joins import poisson
from ..latents import decode, tuned
from ..muon import Muon
from ..options import ADAM, Options, choice, settle, takes

OF_WEIGHTS = {"optimizer", "blocks", "reuse"}  # options that tuned latents do not have
METHODS = ("none", "paste", "poisson", "latents", "weights", "weights and paste")


@dataclass(frozen=True)
class Tuning(Options):
    """How to tune. None: what the preset says, else what the model recommends, else FALLBACK."""

    steps: int | None = None  # of the optimizer
    lr: float | None = None
    # "muon" (../muon.py) needs a quarter of Adam's steps (table decoder_settings); its rate falls
    # in the second half of them. For weights only: latents always have Adam.
    optimizer: Literal["adam", "muon"] = "adam"
    lam: float = 100.0  # what the source outside weighs against the edit inside
    # The last so many up blocks of the decoder and what follows them; of weights only.
    blocks: int | Literal["all"] | None = None
    # Stop when ten steps lower the loss by less than this share; 0 is never.
    plateau: float | None = None
    reuse: bool = True  # compute what comes before the tuned part once, not in each step
    # bfloat16: mixed precision, the weights stay float32. Autoencoders overflow in float16.
    precision: Literal["float32", "bfloat16"] = "float32"
    together: bool = False  # one decoder for all pictures, tuned for their mean loss
    SPANS = {"steps": ADAM}


# All of the decoder (post_quant_conv, which comes before it, stays), to the last step. The official
# code starts from a latent that it makes of the 8-bit file; here it is z_0 itself.
PAPER = Tuning(steps=75, lr=1e-4, blocks="all", plateau=0.0)
PRESETS = {  # what is tuned: options
    # Section 4.2: 75 steps of Adam at 1e-4, lam 100.
    "paper": {"weights": PAPER, "latents": PAPER},
    # BLD, ldm/image_reconstruction.py:126-131 (steps), :216 (lam), :312 and :315 (the two rates).
    "official": {"weights": PAPER, "latents": replace(PAPER, lr=0.1)},
    # Ours, chosen on tinyworld: the same background in a quarter of the time.
    "fast": {"weights": replace(PAPER, optimizer="muon", steps=18, lr=2e-3)},
}
# For pipelines that nobody recommends numbers for: the official code's.
FALLBACK = {
    of: {name: getattr(how, name) for name in ("steps", "lr", "blocks", "plateau")}
    for of, how in PRESETS["official"].items()
}

CHECK = 10  # steps between two looks at the loss for a plateau; nothing else waits for the device


@takes(Tuning)
def reconstruct(pipe, edit, image, mask, *, method="weights", preset=None, **options) -> Edit:
    """Bring the source back outside the mask of an edit; return a new `Edit`.

    pipe:     the pipeline that made the edit; a copy of its autoencoder is tuned, so other threads
              may use it meanwhile
    edit:     an Edit (not one of around=, whose latents are of a square), or latents (n,C,h,w).
              The picture is decoded anew from the latents, never read from 8 bits
    image:    the picture that was edited: PIL, a path or (1 or n,3,H,W) in [-1,1]
    mask:     the mask that it was edited in: PIL, a path or (1 or n,1,H,W) in {0,1}; 1 (white) =
              edit. Of a grey one pass bl.images.mask(mask, soft=True) > 0
    method:   "none" (as decoded), "paste" (the source's pixels), "poisson" (no seam, but other
              colours), "latents" (the best latent for the decoder; too smooth), "weights" (the best
              decoder for the latent), "weights and paste" (the source exactly, and hardly a seam)
    steps, lr: of the optimizer. Left out, they, blocks and plateau come from the preset ("paper",
              "official", "fast" for the weights, or a Tuning), else from the model, else from the
              official code
    options:  any field of Tuning, as in lam=10.0, blocks=1, precision="bfloat16", together=True

    Scores and order stay those of the edit. Of the result, settings["reconstruct"] tells what was
    used, and "taken" in it the steps done. ["loss"] is the loss before each of them, the mean of
    the n; ["delta"] is what tuning added: to the latents, (n,C,h,w), or to the weights, a list with
    a dict for each picture or one for all, see `tuned`. Bad input raises ValueError or TypeError
    with the fix before any network runs.
    """
    choice("method", method, METHODS)
    of = method.split()[0] if method.startswith(("latents", "weights")) else None  # what is tuned
    edit, image, mask = _admit(pipe, edit, image, mask, of)
    numbers = _settle(pipe, of, preset, options)
    asked = options if preset is None else {"preset": preset} | options
    idle = {None: asked.keys(), "latents": asked.keys() & OF_WEIGHTS}
    if unused := idle.get(of):
        images.warn(f"{min(unused)}= is not honoured by method={method!r}: leave it out")
    how, found = {"method": method}, {}
    if of:
        tensor, found, taken = _tune_each(pipe.vae, edit.latents, image, mask, of, **numbers)
        how |= numbers | {"taken": taken}
    elif edit.latents is None:
        tensor = edit.tensor
    else:
        tensor = torch.cat([decode(pipe.vae, z) for z in edit.latents.split(1)])  # (n,3,H,W)

    door.finite(how, tensor)
    if method.endswith("paste"):
        tensor = blend(mask, edit=tensor, keep=image)
    elif method == "poisson":
        tensor = poisson(mask, edit=tensor, keep=image).clamp(-1, 1)
    earlier = {key: value for key, value in edit.settings.items() if key not in ("loss", "delta")}
    return replace(edit, tensor=tensor, settings=earlier | {"reconstruct": how} | found)


def tune_weights(
    vae, z, image, mask, *,
    steps, lr, optimizer="adam", lam=100.0, blocks="all", plateau=0.0, reuse=True,
    precision="float32",
) -> tuple[dict[str, Tensor], Tensor]:  # fmt: skip
    """Adapt the decoder to latents z (B,C,h,w): return what to add to its weights, and losses.

    image (1 or B,3,H,W), mask (1 or B,1,H,W), 1 = edit; the options are those of `reconstruct`. The
    first value is {name: float32 tensor, on the CPU}, of the tuned weights only; the second the
    loss before each step, (steps,).
    """
    vae = tuned(vae)
    still, moving = _halves(vae, blocks)
    h = still(z / vae.config.scaling_factor)  # what stays the same is computed once
    edit = moving(h)  # (B,3,H,W) D_0(z_0), not clamped: where it is the target, nothing is gained
    ours = {id(w) for w in moving.parameters()}
    weights = {name: w for name, w in vae.named_parameters() if id(w) in ours}
    start = {name: w.clone() for name, w in weights.items()}
    for w in weights.values():
        w.requires_grad_(True)

    def loss():
        picture = moving(h if reuse else still(z / vae.config.scaling_factor))
        return background_loss(picture.float(), edit, image, mask, lam)

    if optimizer == "muon":  # 0.95, as in training, is too long a memory for so few steps
        muon = Muon(moving, lr, momentum=0.8, least=1, weight_decay=0.0)
        rates = LambdaLR(muon, lambda i: min(1.0, 2 * (1 - i / steps)))
        losses = _descend(muon, loss, steps, plateau, precision, rates)
    else:
        adam = torch.optim.Adam(weights.values(), lr=lr)
        losses = _descend(adam, loss, steps, plateau, precision)
    return {name: (w.detach() - start[name]).cpu() for name, w in weights.items()}, losses


def tune_latents(
    vae, z, image, mask, *, steps, lr, lam=100.0, plateau=0.0, precision="float32"
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The same for latents: return what to add to z (B,C,h,w), and losses (steps,)."""
    vae = tuned(vae)
    before, decoder = _halves(vae, "all")
    moving = z.clone().requires_grad_(True)
    picture = lambda: decoder(before(moving / vae.config.scaling_factor)).float()  # noqa: E731
    edit = picture().detach()  # (B,3,H,W)
    loss = lambda: background_loss(picture(), edit, image, mask, lam)  # noqa: E731
    losses = _descend(torch.optim.Adam([moving], lr=lr), loss, steps, plateau, precision)
    return moving.detach() - z, losses


def background_loss(
    picture: Tensor, edit: Tensor, image: Tensor, mask: Tensor, lam: float = 100.0
) -> Tensor:
    """Section 4.2: the edit is kept inside the mask, the source comes back outside by lam.

    Mean squares over the whole picture, the other side of the mask counted as zeros, as in BLD,
    ldm/image_reconstruction.py:210-223; of several pictures (B,3,H,W) in [-1,1] the mean. mask: (1
    or B,1,H,W), 1 = edit.
    """
    inside, outside = mask * (picture - edit), (1 - mask) * (picture - image)
    return inside.square().mean() + lam * outside.square().mean()


def _descend(optimizer, loss, steps, plateau, precision, rates=None):
    """Step an optimizer, whose rate `rates` may change; the loss before each step, (steps,), on the
    device of what it moves.
    """
    needs_gradients("tuning")
    device, losses = optimizer.param_groups[0]["params"][0].device.type, []
    for i in range(1, steps + 1):
        with torch.enable_grad():
            with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
                now = loss()
            optimizer.zero_grad()
            now.backward()
        optimizer.step()
        if rates:
            rates.step()
        losses.append(now.detach())
        if plateau and i % CHECK == 0 and i >= 2 * CHECK:
            earlier, last = torch.stack(losses[-2 * CHECK :]).view(2, CHECK).mean(1)
            if last > (1 - plateau) * earlier:
                break
    return torch.stack(losses)


def _halves(vae, blocks):
    """From scaled-back latents to pictures in two halves: what stays, and the part to tune."""
    decoder = vae.decoder
    end = nn.Sequential(decoder.conv_norm_out, decoder.conv_act, decoder.conv_out)
    stages = [decoder.conv_in, decoder.mid_block, *decoder.up_blocks, end]
    first = 0 if blocks == "all" else len(stages) - 1 - blocks
    before = vae.post_quant_conv or nn.Identity()
    return nn.Sequential(before, *stages[:first]), nn.Sequential(*stages[first:])


def _tune_each(vae, z, image, mask, of, together, **numbers):
    """Tune once for all pictures or for each: pictures (n,3,H,W), what was found, steps taken."""
    n, tune = len(z), tune_weights if of == "weights" else tune_latents
    pictures, deltas, curves = [], [], []
    try:
        for rows in [range(n)] if together else [range(i, i + 1) for i in range(n)]:
            z_now, *rest = (take(value, rows) for value in (z, image, mask))
            delta, losses = tune(vae, z_now, *rest, **numbers)
            changed = tuned(vae, delta if of == "weights" else None)
            pictures.append(decode(changed, z_now if of == "weights" else z_now + delta))
            deltas.append(delta)
            curves.append(losses.cpu())
    except torch.OutOfMemoryError as error:
        raise MemoryError(
            "out of memory while tuning: take one picture at a time (together=False), fewer "
            "blocks (blocks=1), or precision='bfloat16'"
        ) from error

    # The mean over pictures, step by step; of one that ended earlier the last loss counts.
    taken = [len(curve) for curve in curves]
    padded = [torch.cat([curve, curve[-1:].expand(max(taken) - len(curve))]) for curve in curves]
    found = {
        "loss": torch.stack(padded).mean(0).tolist(),
        "delta": deltas if of == "weights" else torch.cat(deltas),
    }
    return torch.cat(pictures), found, taken


# What comes in


def _admit(pipe, edit, image, mask, of):
    """The Edit, its latents on the device, picture and mask; or a sentence on what is wrong."""
    if isinstance(edit, Tensor):
        edit = Edit(None, edit)
    if not isinstance(edit, Edit):
        kind = type(edit).__name__
        raise WrongType(f"edit is a {kind}: pass what bl.blended_latent returned, or its latents")
    if edit.latents is not None and edit.settings.get("around"):
        raise Refused(
            "edit was made with around=, so its latents are of an enlarged square, and outside the "
            "mask it is the source already: pass an edit that was made without around="
        )
    z = edit.latents
    if z is None and of:
        fix = "pass an edit of bl.blended_latent, or take method='paste' or 'poisson'"
        raise Refused(
            f"edit was made in pixels and has no latents, so there are no {of} to tune: {fix}"
        )
    if z is None:
        n, (height, width), device = len(edit.tensor), edit.tensor.shape[-2:], edit.tensor.device
    else:
        door.has_autoencoder(pipe, unet=False)
        z, device = door.finite_latents("edit", z, pipe.vae), pipe._execution_device
        n, factor = len(z), pipe.vae_scale_factor
        height, width = z.shape[-2] * factor, z.shape[-1] * factor
        edit = replace(edit, latents=z.to(device))
    image = images.image(image).detach().to(device)
    mask = images.mask(mask, like=image)
    if image.shape[-2:] != (height, width):
        raise Refused(
            f"image is {image.shape[-1]}x{image.shape[-2]} and the edit {width}x{height} "
            "(width x height): pass the picture that was edited"
        )
    one_or_n(n, {"image": len(image), "mask": len(mask)})
    return edit, image, mask


def _settle(pipe, of, preset, asked):
    """The numbers of a Tuning to use for what is tuned, as options.settle chooses them.

    of: None where nothing is: the numbers are checked all the same, and none is recommended.
    """
    quiet, of = of is None, of or "weights"
    presets = {name: each[of] for name, each in PRESETS.items() if of in each}
    own = cards.settings(pipe, "reconstruct")
    own = own.get(of, FALLBACK[of]) if own or quiet else {}
    how = settle(Tuning, reconstruct, pipe, presets, FALLBACK[of], preset, asked, own)
    numbers = asdict(how)
    most = len(pipe.vae.decoder.up_blocks) if hasattr(pipe, "vae") else math.inf
    if of == "latents":
        numbers = {name: value for name, value in numbers.items() if name not in OF_WEIGHTS}
    elif how.blocks != "all" and how.blocks > most:
        raise Refused(
            f"blocks is {how.blocks}: this decoder has {most}, so choose 0 to {most}, or 'all'"
        )
    return numbers
