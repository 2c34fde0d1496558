"""Re-painting (2305.03382, section 4.1): fresh noise in a region paints that region anew.

The noise that a picture starts from decides what appears where. The walk is ../walk.py's. Next:
layout.py.
"""

from collections.abc import Callable
from dataclasses import asdict, replace

import torch

from .. import images, masks
from ..blend import blend
from ..edit import Edit, one_or_n
from ..errors import Refused
from ..networks import perceptual
from ..options import function, number, takes
from ..schedule import read_from
from ..walk import Drawing, Walk, admit, settled


@takes(Drawing)
@torch.no_grad()
def repaint(
    pipe, prompt: str, region, *,
    image=None, noise=None, caption=None, new_seed=1, until: Callable | None = None, tries=20,
    distance=None, mask_rule="centre", negative="", n=1, seed=0, batch=None, first=0, **options,
) -> Edit:  # fmt: skip
    """Draw fresh noise inside a region and make the picture again (section 4.1); an `Edit`.

    The rest is not kept: it comes from the noise that it came from, and moves a little.

    region:   a box (x0, y0, x1, y1) in fractions, a list of boxes, or a mask: PIL, a path or (1 or
              n,1,H,W), 1 = anew; not the whole picture, as what moves outside is measured
    image:    start from the noise of this picture, which `caption` (None: the prompt) describes;
              see inversion.invert
    noise:    start from this (1 or n,C,h,w). Without both, seed draws it
    new_seed: of the fresh noise; every further try takes the next one
    until:    a test, from pictures (m,3,H,W) to m bools; those that fail are tried again, up to
              `tries` times. The authors needed 4 to 5 tries. None: one try
    distance: how different two batches of pictures look, (B,); None: over the features of the
              model's autoencoder
    mask_rule: how the mask comes to latent size, see masks.to_latent
    w, steps, options: see walk.Drawing. n, seed, batch, first: sample i is the same whatever n,
                       batch and first are

    settings["before"]: the pictures (n,3,H,W) that were there. "tries" and "met": how many each
    took, and whether it passed in the end. "moved": how far the result is from them, "outside" and
    "inside" the region (root mean square, as a share of the range) and in looks outside ("looks"),
    (n,) each. "noise": the edited noise.
    """
    how = settled(Drawing, repaint, pipe, options)
    number("tries", tries)
    number("new_seed", new_seed)
    function("until", until, "a function of pictures that gives a bool for each")
    function("distance", distance, "a function of two batches of pictures")
    caption = prompt if caption is None else caption
    counts = dict(n=n, seed=seed, batch=batch, first=first)
    request = admit(pipe, [prompt, caption], negative, image, noise, how, **counts)
    n = request.n
    size = [side * pipe.vae_scale_factor for side in request.size]
    like = torch.empty(1, device=request.device).expand(n, 3, *size)
    mask = images.mask(_region(region, size), like=like, name="region")
    one_or_n(n, {"region": len(mask)})
    mask_small = masks.to_latent(mask, request.size, mask_rule).expand(n, -1, -1, -1)

    with request.memory():
        walk = Walk.of(pipe, prompt, how, negative, request.size)
        z = Walk.of(pipe, caption, how, negative, request.size).start(request)  # (n,C,h,w)
        if image is None:
            _, before = walk.pictures(z, request)
        else:
            before = request.image.expand(n, -1, -1, -1)

        left, tried = list(range(n)), [0] * n
        new, latents, tensor = z.clone(), torch.empty_like(z), torch.empty_like(before)
        for k in range(tries if until else 1):
            # Fresh noise in the region, the old noise around it; then everything again.
            fresh = replace(request, seed=new_seed + k).noise("repaint", left)()
            inside = mask_small[left]
            mixed = blend(inside, edit=fresh, keep=z[left])
            new[left] = mixed / (inside.square() + (1 - inside).square()).sqrt()  # normal again
            latents[left], tensor[left] = walk.pictures(new[left], request, left)
            tried = [count + (i in left) for i, count in enumerate(tried)]
            if until:
                answers = until(tensor[left])
                try:
                    answers = list(answers)
                except TypeError:
                    raise Refused(f"until gave {answers!r}: give a bool for each picture") from None
                if len(answers) != len(left):
                    given = f"{len(answers)} answers for {len(left)} pictures"
                    raise Refused(f"until gave {given}: give one for each")
                left = [i for i, met in zip(left, answers, strict=True) if not met]
            if not left:
                break
        moved = _moved(pipe, before, tensor, mask, distance, request.at_once)
    met = [i not in left for i in range(n)] if until else None
    used = dict(prompt=prompt, caption=caption, region=region, negative=negative, new_seed=new_seed)
    used |= dict(mask_rule=mask_rule, tries=tried, met=met, moved=moved, before=before, noise=new)
    used |= read_from(pipe.scheduler) | asdict(how)
    return request.finish([tensor], [latents], used)


def _region(region, size):
    """A box or a list of boxes as a mask (1,1,H,W); masks pass."""
    if not isinstance(region, (tuple, list)):
        return region
    boxes = region if region and isinstance(region[0], (tuple, list)) else [region]
    return torch.stack([masks.from_box(box, size) for box in boxes]).amax(0)


def _moved(pipe, before, after, mask, distance, at_once):
    """How far pictures moved outside and inside the mask, and how much the rest differs; (n,)."""
    distance = distance or perceptual.encoder_distance(pipe.vae)
    rest = blend(mask, edit=before, keep=after)  # with the old region, so that only the rest counts
    pairs = zip(before.split(at_once), rest.split(at_once), strict=True)
    change, seen = (after - before) / 2, torch.cat([distance(*pair).float() for pair in pairs])
    return dict(outside=masks.rms(change, 1 - mask), inside=masks.rms(change, mask), looks=seen)
