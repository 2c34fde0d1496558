"""Blended Latent Diffusion (2206.02779): the edit inside the mask, the picture outside.

Algorithm 1 in latent space. `blended_steps` is the algorithm, `blended_latent` the front door
around it, `Blending` what its implementations disagree on. Next: ../rank.py, then ../masks.py for
thin masks.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch

from .. import door, masks, prompts
from ..blend import blend
from ..edit import Edit, take
from ..errors import Refused
from ..guidance import cfg, from_pipe
from ..latents import decode
from ..options import Options, registered, settle
from ..rank import is_clip, readable
from ..reader import Reader
from ..sampler import last, resampled
from ..schedule import Spacing, read_from


@dataclass(frozen=True)
class Blending(Options):
    """How to blend. The defaults leave the latent outside the mask exactly the source's."""

    # When: after each move, on the state that the network is about to see, or on its estimate.
    when: Literal["after", "before", "x0", "before and x0"] = "after"
    # Noise level of the kept part: the level that the state is on, or the one that it has just
    # left; "ratio": the noise has the ratio to the picture of the one left, as under Euler's units.
    level: Literal["t_next", "t", "ratio"] = "t_next"
    # Noise of the kept part: drawn at each step, drawn once, or the one the edit starts from.
    noise: Literal["fresh", "fixed", "initial"] = "fresh"
    # One draw of it for each sample, or one for all.
    batch_noise: Literal["independent", "shared"] = "independent"
    # Where the edit starts: the noised source, or pure noise (which forgets the source).
    start: Literal["noised source", "noise"] = "noised source"
    # The kept part after the last move: the source itself, noised as before, or the network's.
    final: Literal["clean", "noised", "none"] = "clean"
    # Where the edited part's last move ends: as the scheduler says, clean, or at abar[0].
    end: Literal["scheduler", "clean", "first"] = "scheduler"
    # The source's latent: the posterior's mode, or a sample of it.
    posterior: Literal["mode", "sample"] = "mode"
    # How the mask comes to latent size, see masks.to_latent.
    mask_rule: Literal["centre", "corner", "area", "any"] = "centre"
    # RePaint (2201.09865): moves at each level (above resample_above), with ways up between.
    resamplings: int = 1
    resample_above: int | None = None
    # Initial image editing (2305.03382): the edit starts from that one of so many noises under
    # which the words are looked at most inside the mask.
    noises: int = 1
    # Differential Diffusion (2306.00950): greys of the mask say how strongly a place may change.
    soft: bool = False
    # Edit a square of this many sides of the mask's box, enlarged to the model's size; None: all.
    around: float | None = None
    # Edit a square of at least so many pixels around the mask, at its own size, as a network sees
    # it that was trained on crops; 0: the whole picture, None: what the model recommends.
    window: int | None = None
    paste: bool = False  # put the source's pixels back outside the mask, bit for bit
    eta: float | None = None  # 0 is DDIM, 1 is DDPM; None: what the model recommends, else 0
    w: float | None = None  # guidance weight; None: what the model recommends
    steps: int | None = None  # levels from noise to picture, before skipping
    skip: float | None = None  # share of them left out at the noisy end
    # How levels are spaced, and what is added to "leading" ones; None: as the scheduler says.
    spacing: Spacing | None = None
    offset: int | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.around and self.window:
            raise Refused("around= and window= are two ways to edit a square: choose one")
        if self.noise == "initial" and self.batch_noise == "shared":
            raise Refused("noise='initial' is each sample's own: take batch_noise='independent'")
        if self.around:  # so that no model's recommended window joins it
            object.__setattr__(self, "window", 0)


# What BLD's scripts are run with: text_editing_SD2.py:28-75, text_editing_SDXL.py:71 and 115-119.
SD2: dict[str, Any] = dict(w=7.5, steps=50, skip=0.25)
SDXL: dict[str, Any] = dict(w=5.0, steps=50, skip=0.25)

# What the implementations do (BLD: the authors' code, by file and line), past the defaults.
PRESETS = {
    # BLD, algorithm 1: z_bg = noise(z_init, t) beside z_fg = denoise(z_t, t), one level further.
    "paper": Blending(level="t", final="noised"),
    # BLD, ldm/models/diffusion/ddim.py:222-245: the last background is the model's estimate.
    "official-ldm": Blending(
        when="before",
        batch_noise="shared",
        final="none",
        end="first",
        posterior="sample",
        w=5.0,
        steps=50,
        skip=0.0,
        spacing="leading",
        offset=1,
    ),
    # BLD, text_editing_SD2.py:106-143: noised to t beside a state on t - 20, from pure noise.
    "official-sd2": Blending(
        level="t", final="noised", end="first", start="noise", spacing="leading", offset=0, **SD2
    ),
    # BLD, text_editing_SDXL.py:115-119 and 231-238: the scheduler that SDXL ships, Euler, noises to
    # x0 + s/a * n, whatever level the state is on; started from the noised source.
    "official-sdxl": Blending(
        level="ratio", final="noised", end="clean", spacing="leading", offset=1, **SDXL
    ),
    # labml's annotated Stable Diffusion, sampler/ddim.py:287-297.
    "labml": Blending(level="t", final="noised", end="first", spacing="leading", offset=1),
    # diffusers, pipeline_stable_diffusion_inpaint.py:1294-1307: a UNet of 4 channels, strength 1.
    "diffusers": Blending(
        noise="initial",
        start="noise",
        posterior="sample",
        mask_rule="corner",
        w=7.5,
        steps=50,
        skip=0.0,
    ),
    # diffusers' community pipeline pipeline_stable_diffusion_xl_differential_img2img.py:1303-1333.
    # Its greys are thresholds: so are ours, with soft=True.
    "differential": Blending(when="before", noise="initial", final="none"),
    # ComfyUI, comfy/samplers.py:398-411.
    "comfyui": Blending(when="before and x0", noise="initial"),
    # InvokeAI, backend/stable_diffusion/diffusers_pipeline.py:33-62.
    "invokeai": Blending(when="before", noise="initial"),
    # A1111, modules/sd_samplers_cfg_denoiser.py.
    "a1111": Blending(when="x0"),
}
# All step by DDIM (eta 0) and edit the whole picture.
PRESETS = {name: replace(how, eta=0.0, window=0) for name, how in PRESETS.items()}

# For pipelines that nobody recommends numbers for: those of the SD 2 script.
FALLBACK = SD2 | {"eta": 0.0, "window": 0}


@registered("tinyworld", Blending)
@torch.no_grad()
def blended_latent(
    pipe, image, mask, prompt, *,
    shrink=None, preset=None, clip=None, ranking="mask", negative="",
    n=1, seed=0, batch=None, first=0, **options,
) -> Edit:  # fmt: skip
    """Edit a picture inside a mask as the prompt says; return an `Edit` with n results.

    pipe:     a StableDiffusionPipeline (predicting epsilon, v or x0) or a StableDiffusionXLPipeline
    image:    PIL, a path or (1 or n,3,H,W) in [-1,1]; sides are multiples of the autoencoder's
              factor
    mask:     PIL, a path or (1 or n,1,H,W) in {0,1}, with soft=True in [0,1]; 1 (white) = edit
    prompt:   a text, or a list of n; negative: a text to steer away from
    w, steps, skip: guidance weight, number of levels, share of them left out at the noisy end. Left
              out, they (and eta and window) come from the preset, else from the model, else from
              BLD's script (7.5, 50, 0.25, 0, and the whole picture)
    shrink:   start with a wider mask (section 4.3): how many dilations (the paper: 3), or radii in
              cells
    preset:   a name in PRESETS ("paper", "official-sd2", "diffusers", ...), or a Blending
    options:  any field of Blending, as in mask_rule="any", noise="fixed", paste=True, soft=True,
              resamplings=3, window=64, around=1.5, noises=8
    clip, ranking: who orders the results, best first, and by which view (see rank)
    n, seed, batch, first: how many, from which seed, how many at once, the number of the first.
              Sample i is the same whatever n, batch and first are

    Outside the mask the latents are the source's exactly, the pixels within the autoencoder's
    error, or bit for bit with paste=True or around=. Bad input raises ValueError with the fix
    before any network runs.
    """
    how = settle(Blending, blended_latent, pipe, PRESETS, FALLBACK, preset, options)
    closer = door.closer(pipe, image, mask, how.around, how.soft) if how.around else None
    if closer:
        image, mask = closer.crop, closer.crop_strength
    counts = dict(n=n, seed=seed, batch=batch, first=first)
    request = door.latent(pipe, image, mask, prompt, soft=how.soft, known=bool(closer), **counts)
    is_clip(clip, ranking, optional=True)
    if clip is not None:
        request.one_of_each("clip=")
        if ranking and n > 1:
            readable(clip, request.prompt)
    door.readable(pipe, request.prompt, negative, how.w)
    if how.noises > 1 and not all(text.strip() for text in request.prompt):
        raise Refused("noises= looks where the words look, and a prompt is empty: leave it out")

    # The levels to visit, the mask for each move, and the square around it.
    end = None if how.end == "scheduler" else how.end
    levels = dict(final=end, spacing=how.spacing, offset=how.offset)
    schedule, timesteps, net = from_pipe(pipe, how.steps, how.skip, **levels)
    mask_small = masks.to_latent(request.strength, request.size, how.mask_rule)
    moves = len(timesteps) - 1
    masks_small = door.per_move(mask_small, moves, shrink, how.soft)
    if how.soft:  # what is too dark for any move is outside
        request = replace(request, mask=masks.strengths(request.strength, moves)[-1])
        closer = closer and replace(closer, mask=masks.strengths(closer.mask, moves)[-1])
    squares = door.squares(pipe, request, masks_small, how.window)
    readers = {}
    sizes = {(bottom - top, right - left) for left, top, right, bottom in squares}
    for size in sizes if how.noises > 1 else ():
        readers[size] = [Reader.of(pipe, one, [one], size, tiled=False) for one in request.prompt]

    latents, tensors = [], []
    with request.memory():
        source = request.encoded(pipe.vae, request.image, how.posterior == "sample")
        text, null = prompts.encode(pipe, request.prompt, negative, tuple(request.image.shape[-2:]))
        given = dict(source=source, text=text, null=null, masks_small=masks_small)
        for rows, part in request.batches(**given):
            z = part.source.repeat(len(rows) // len(part.source), 1, 1, 1)
            maps = "source", "masks_small"
            for some, piece, places in door.in_squares(z, rows, part, squares, maps):
                known = readers.get(tuple(piece.source.shape[-2:]))
                made = _edited(request, net, schedule, timesteps, how, some, piece, known)
                for place, edit in zip(places, made, strict=True):
                    place.copy_(edit)
            latents.append(z)
            tensors.append(decode(pipe.vae, z))

    used = dict(prompt=request.prompt, negative=negative, shrink=shrink, ranking=ranking)
    used |= asdict(how) | read_from(pipe.scheduler, how.spacing)
    if how.window:
        used["square"] = door.in_pixels(pipe, squares)
    if closer:
        used["square"] = [closer.square]
    return request.finish(tensors, latents, used, how.paste, clip, ranking, closer)


def _edited(request, net, schedule, timesteps, how, rows, part, readers):
    """The final latents of some samples, whose squares have one size."""
    denoise = cfg(net, part.text, part.null, how.w)
    draw = request.noise("initial", rows, part.source.shape[1:])
    draws = torch.stack([draw() for _ in range(how.noises)], dim=1)  # (B,K,C,h,w)
    initial = draws[:, 0]
    if readers:
        initial = _suited(draws, rows, part, net, schedule, timesteps[0], how, readers)
    return _run(request, rows, part, denoise, schedule, timesteps, how, initial)


def _suited(draws, rows, part, net, schedule, t, how, readers):
    """Of draws (B,K,C,h,w), those (B,C,h,w) under which the words look most inside the mask: where
    any move may change something. readers: one for all prompts or one each.
    """
    best, mask_small = [], torch.stack(part.masks_small).amax(0)
    for i, (row, z) in enumerate(zip(rows, draws, strict=True)):
        source, text, mask = take([part.source, part.text, mask_small], range(i, i + 1))
        reader = readers[row if len(readers) > 1 else 0]
        x = z if how.start == "noise" else schedule.add_noise(source, t, z)
        best.append(z[reader.inside(net, x, t, text, mask).argmax()])
    return torch.stack(best)


def _run(request, rows, part, denoise, schedule, timesteps, how, initial):
    """The final latents of the samples in `rows`, each with streams of noise of its own."""
    shape = part.source.shape[1:]
    behind = request.noise("background", rows, shape, shared=how.batch_noise == "shared")
    if how.noise != "fresh":
        once = initial if how.noise == "initial" else behind()
        behind = lambda: once  # noqa: E731
    z = initial if how.start == "noise" else schedule.add_noise(part.source, timesteps[0], initial)
    fresh, again = (request.noise(purpose, rows, shape) for purpose in ("step", "resample"))
    steps = blended_steps(
        denoise, z, part.source, part.masks_small, schedule, timesteps, how, behind, fresh, again
    )
    return last(steps)


def blended_steps(
    denoise, z, source, masks_small, schedule, timesteps, how, background, fresh=None, again=None
):
    """Yield the steps of algorithm 1, already blended; assign to step.x to steer further.

    denoise(x, t) -> Prediction. z: (B,C,h,w) on level timesteps[0]. source: clean latents (1 or
    B,C,h,w).
    masks_small: one (1 or B,1,h,w) in [0,1] per move, 1 = edit. how: a Blending.
    background, fresh, again: functions that draw noise, for the kept part, (eta > 0) for the moves
    and (resamplings > 1) for the ways up.
    """
    if "x0" in how.when:
        denoise = _clean_outside(denoise, source, masks_small, timesteps)
    if "before" in how.when:  # what is blended after one move is blended with the mask of the next
        keep = schedule.add_noise(source, timesteps[0], background())
        z = blend(masks_small[0], edit=z, keep=keep)
        masks_small = [*masks_small[1:], masks_small[-1]]

    # 1. Move everything one level towards the prompt.
    ways = dict(passes=how.resamplings, renewed=again, above=how.resample_above)
    for step in resampled(denoise, z, schedule, timesteps, how.eta or 0.0, fresh, **ways):
        last_move = step.t_next < 0

        # 2. Bring the source to the level that the state is on (or to where the preset wants it).
        if last_move and how.final == "clean":
            keep = source
        elif how.when == "x0" or last_move and how.final == "none":
            keep = step.x
        else:
            keep = _noised(source, step, schedule, how.level, background())

        # 3. The edit inside the mask, the source outside.
        step.x = blend(masks_small[step.i], edit=step.x, keep=keep)
        yield step


def _noised(source, step, schedule, level, noise):
    """The source as noisy as a Blending's `level` wants it, beside a state on step.t_next."""
    if level != "ratio":
        return schedule.add_noise(source, step.t if level == "t" else step.t_next, noise)
    (a, s), (a_next, _) = schedule.levels(step.t), schedule.levels(step.t_next)
    return a_next * (source + s / max(a, 2**-12) * noise)  # 2^-12: what Euler has at zero SNR


def _clean_outside(denoise, source, masks_small, timesteps):
    """The denoiser whose clean estimate is the source outside the mask."""
    mask_at = dict(zip(timesteps, masks_small, strict=False))

    def kept(x, t):
        seen = denoise(x, t)
        return replace(seen, x0_hat=blend(mask_at[t], edit=seen.x0_hat, keep=source))

    return kept
