"""Blended Diffusion (2111.14818), algorithm 2: words, a mask, a picture; CLIP guides inside, the
picture outside.

Every step ends with the source, noised to the same level, put back outside the mask; the next step
then makes the two halves one picture. Next: clip_guided.py, the baseline that has to ask for the
background instead.
"""

import torch

from ..blend import blend
from ..edit import Edit
from ..noise import Noise
from .clip_guidance import admit, choose, clip_loss, guided_steps, read_model, results

# arguments.py:17-59, the copies as in the paper
FALLBACK = {"scale": 1000.0, "augmentations": 16, "steps": 100, "skip": 0.25, "eta": 1.0}


def blended_steps(steps, source, mask, schedule, how, background):
    """Yield guided steps, each blended with the source at its level; assign to step.x to steer
    further.

    steps: from clip_guidance.guided_steps. source: (1 or B,3,H,W). mask: (1 or B,1,H,W), 1 = edit.
    background: a function that draws the noise of the kept part.
    """
    for step in steps:
        keep = schedule.add_noise(source, step.t if how.level == "t" else step.t_next, background())
        step.x = blend(mask, edit=step.x, keep=keep)
        yield step


@torch.no_grad()
def blended(
    model,
    clip,
    image,
    mask,
    prompt,
    *,
    scale=None,
    augmentations=None,
    steps=None,
    skip=None,
    eta=None,
    preset=None,
    ranking="mask",
    n=1,
    seed=0,
    batch=None,
    **options,
) -> Edit:
    """Edit a picture inside a mask as the prompt says; return an `Edit` with n results, best first.

    model:    a pixel model (DDIMPipeline, DDPMPipeline), as bl.load("tinyworld-pixel") gives
    clip:     a Clip, as bl.load("tinyworld-clip") or blendlab.clip.load_clip("ViT-B-16") gives
    image:    PIL, a path or (1 or n,3,H,W) in [-1,1]; mask: PIL, a path or (1 or n,1,H,W) in {0,1},
              1 = edit
    prompt:   a text, or a list of n
    scale, augmentations, steps, skip, eta: weight of the CLIP distance, copies it is averaged over,
              number of levels, share of them left out at the noisy end, 1 for DDPM and 0 for DDIM.
              Left out, they come from the preset, else from the model, else from the official code
    preset:   "paper", "official", or a clip_guidance.Guiding; options: any field of Guiding
    ranking:  how CLIP orders results of one picture and prompt (rank's view), or None to leave
              their order
    n, seed, batch: how many, from which seed, how many at once. Sample i is the same whatever n and
                    batch are

    Outside the mask the result is the source bit for bit (unless paste=False). Bad input raises
    ValueError with the fix before any network runs.
    """
    chosen = dict(scale=scale, augmentations=augmentations, steps=steps, skip=skip, eta=eta)
    how = choose(model, "blended", FALLBACK, preset, chosen | options)
    image, mask, text = admit(model, clip, image, mask, prompt, n)

    def run(source, mask, text, rows):
        return _run(model, clip, source, mask, text, how, seed, rows)

    return results(run, clip, image, mask, text, prompt, how, ranking, n, seed, batch)


def _run(model, clip, source, mask, text, how, seed, rows):
    """The results of the samples in `rows`, each with its own streams of noise."""
    schedule, denoiser = read_model(model)
    timesteps = schedule.timesteps(how.steps, how.skip)
    shape, device, shared = source.shape[1:], source.device, how.batch_noise == "shared"
    purposes = ("initial", "step", "augment")
    stream = {purpose: Noise(seed, len(rows), purpose, device, rows.start) for purpose in purposes}
    behind = Noise(
        seed, 1 if shared else len(rows), "background", device, 0 if shared else rows.start
    )

    loss = clip_loss(text, mask, clip, how, schedule, stream["augment"])
    x = schedule.add_noise(source, timesteps[0], stream["initial"](shape))  # (B,3,H,W)
    guided = guided_steps(
        denoiser(timesteps), loss, x, schedule, timesteps, how, lambda: stream["step"](shape)
    )
    for step in blended_steps(guided, source, mask, schedule, how, lambda: behind(shape)):
        result = step.x if how.result == "state" else step.x0_hat
    return result
