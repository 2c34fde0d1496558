"""Blended Diffusion (2111.14818), algorithm 2: CLIP guides inside the mask, the picture outside.

Every step ends with the source, noised to the same level, put back outside the mask; the next step
then makes the two halves one picture. Next: clip_guided.py, the baseline that has to ask for the
background instead.
"""

from dataclasses import asdict, replace

import torch

from .. import door, masks
from ..blend import blend
from ..clip_guidance import FALLBACK, Guiding, choose, clip_loss, guided_steps, not_for, told
from ..edit import Edit
from ..guidance import from_pipe
from ..options import registered
from ..rank import is_clip, read
from ..schedule import read_from


@registered("tinyworld-pixel", Guiding)
@torch.no_grad()
def blended(
    model, clip, image, mask, prompt, *,
    preset=None, ranking="mask", n=1, seed=0, batch=None, first=0, **options,
) -> Edit:  # fmt: skip
    """Edit a picture inside a mask as the prompt says; return an `Edit` with n results, best first.

    model:    a pixel model (DDIMPipeline, DDPMPipeline), as bl.load("tinyworld-pixel") gives
    clip:     a Clip, as bl.load("tinyworld-clip") or networks.clip.load_clip("ViT-B-16") gives
    image:    PIL, a path or (1 or n,3,H,W) in [-1,1]
    mask:     PIL, a path or (1 or n,1,H,W) in {0,1}, with soft=True in [0,1]; 1 (white) = edit
    prompt:   a text, or a list of n
    scale, augmentations, steps, skip, eta, resamplings: weight of the CLIP distance, copies it is
              averaged over, number of levels, share of them left out at the noisy end, 1 for DDPM
              and 0 for DDIM, moves at each level (RePaint, 2201.09865).
              Left out, they come from the preset, else from the model, else from the official code
    preset:   "paper", "official", or a clip_guidance.Guiding; options: any field of Guiding
    ranking:  how CLIP orders results of one picture and prompt (rank's view), or None to leave
              their order
    n, seed, batch, first: how many, from which seed, how many at once, the number of the first.
              Sample i is the same whatever n, batch and first are

    Outside the mask the result is the source bit for bit (unless paste=False). Bad input raises
    ValueError with the fix before any network runs.
    """
    how = choose(model, blended, FALLBACK, preset, options)
    not_for("blended", options, background_loss="here the background is put back")
    is_clip(clip, ranking)
    counts = dict(n=n, seed=seed, batch=batch, first=first)
    request = door.pixel(model, image, mask, prompt, soft=how.soft, **counts)
    schedule, timesteps, net = from_pipe(model, how.steps, how.skip)
    per_move = masks.strengths(request.strength, len(timesteps) - 1)
    text = read(clip, request.prompt).to(request.image.device)  # (1 or n,d)
    tensors = []

    with request.memory():
        for rows, part in request.batches(text=text, masks_per_move=per_move):
            denoise = told(net, model.unet, how, request.noise("class", rows))
            behind = request.noise("background", rows, shared=how.batch_noise == "shared")
            copies = request.noise("augment", rows)
            loss = clip_loss(part.text, part.mask, clip, how, schedule, copies)
            initial = request.noise("initial", rows)()
            x = schedule.add_noise(part.image, timesteps[0], initial)  # (B,3,H,W)
            fresh, again = request.noise("step", rows), request.noise("resample", rows)
            guided = guided_steps(denoise, loss, x, schedule, timesteps, how, fresh, again)
            given = part.image, part.masks_per_move, schedule, how, behind
            for step in blended_steps(guided, *given):
                result = step.x if how.result == "state" else step.x0_hat
            tensors.append(result.clamp(-1, 1))  # a state may overshoot, a picture may not

    request = replace(request, mask=per_move[-1])  # soft: all that any move may change
    used = dict(prompt=prompt, ranking=ranking) | read_from(model.scheduler) | asdict(how)
    return request.finish(tensors, None, used, how.paste, clip, ranking)


def blended_steps(steps, source, masks_per_move, schedule, how, background):
    """Yield guided steps, blended with the source at their level; assign to step.x to steer on.

    steps: from clip_guidance.guided_steps. source: (1 or B,3,H,W). masks_per_move: one (1 or
    B,1,H,W) each, 1 = edit. background: a function that draws the noise of the kept part.
    """
    for step in steps:
        keep = schedule.add_noise(source, step.t if how.level == "t" else step.t_next, background())
        step.x = blend(masks_per_move[step.i], edit=step.x, keep=keep)
        yield step
