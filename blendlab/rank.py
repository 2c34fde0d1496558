"""Which of several edits shows the prompt best, by CLIP, as BD and BLD rank their results.

Blended Diffusion (2111.14818), BLD (2206.02779). CLIP is asked without augmentations, and it also
likes partial objects and written words. Next: papers/blended_latent.py, which ranks when given
clip=.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor

from . import images as inputs
from . import prompts
from .errors import Refused
from .options import check, choice

VIEWS = {"mask": ("mask",), "image": ("image",), "both": ("mask", "image")}


@torch.no_grad()
def rank(images, prompt: str, clip, mask=None, view: str = "mask", normalised: bool = True):
    """Sort edits by their distance to the prompt; return (order, scores), best first.

    images: (n,3,H,W) in [-1,1], a list of PIL pictures or paths, or an Edit.
    mask: (1 or n,1,H,W), 1 = edit.
    clip: an object with model, tokenizer, size, mean and std, as bl.load("tinyworld-clip") returns.
    view: "mask" shows CLIP the edit on black (BLD, image_editor.py:331-357), "image" the whole
          picture,
    "both" means the two distances. normalised=False: CLIP is shown pictures as they are, without
    its mean and deviation, which BD's code forgets (image_editor.py:123-128).
    scores are cosine distances, 0 to 2: the smallest is the best.
    """
    is_clip(clip)
    check("normalised", normalised, bool)
    choice("view", view, VIEWS)
    if mask is None and view != "image":
        raise Refused(
            f"view='{view}' shows CLIP what is inside the mask: pass mask=, or view='image'"
        )
    pictures = (_pictures(images) + 1) / 2  # (n,3,H,W) in [0,1]: 0 is black
    shown = {"image": pictures}
    if mask is not None:
        mask = inputs.mask(mask, like=pictures, allow_full=True)
        if len(mask) not in (1, len(pictures)):
            raise Refused(
                f"{len(mask)} masks for {len(pictures)} images: pass one mask, or one for each"
            )
        shown["mask"] = pictures * mask

    text = read(clip, [prompt])  # (1,d)
    if not normalised:
        parts = {part: getattr(clip, part, None) for part in ("model", "size", "words")}
        clip = SimpleNamespace(**parts, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    seen = [look(clip, fit(clip, shown[v].to(text.device)).clamp(0, 1)) for v in VIEWS[view]]
    distances = [1 - (vectors * text).sum(-1) for vectors in seen]  # each (n,)
    scores, order = torch.stack(distances).mean(0).sort(stable=True)
    return order.tolist(), scores.tolist()


def is_clip(clip, ranking=None, optional=False):
    """Refuse what is no CLIP (optional: None may be), and views that there are not."""
    choice("ranking", ranking, (*VIEWS, None))
    if clip is None and optional:
        return
    fix = "pass bl.load('tinyworld-clip')"
    if isinstance(clip, str):
        fix += f", or blendlab.networks.clip.load_clip({clip!r})"
        raise Refused(f"clip is the name {clip!r}: {fix}")
    if not all(hasattr(clip, part) for part in ("model", "tokenizer", "size", "mean", "std")):
        kind = type(clip).__name__
        raise Refused(f"clip is a {kind}, which cannot compare pictures with words: {fix}")


def _pictures(images) -> Tensor:
    """Pictures in every form that `rank` takes, as one tensor (n,3,H,W) in [-1,1]."""
    if not isinstance(images, list | tuple):
        made_here = hasattr(images, "tensor")
        return inputs.image(images.tensor if made_here else images, known=made_here)
    if not images:
        raise Refused("images is an empty list: pass at least one picture")
    each = [inputs.image(x, name=f"images[{i}]") for i, x in enumerate(images)]
    sizes = [f"{x.shape[-1]}x{x.shape[-2]}" for x in each]
    if len(set(sizes)) > 1:
        other = next(i for i, size in enumerate(sizes) if size != sizes[0])
        raise Refused(
            f"images[0] is {sizes[0]} and images[{other}] {sizes[other]} (width x height): resize "
            f"it with bl.fit(images[{other}], ({sizes[0].replace('x', ', ')}))"
        )
    return torch.cat(each)


def fit(clip, pictures: Tensor) -> Tensor:
    """Pictures (n,3,H,W) at a CLIP's size, (n,3,size,size); values may overshoot a little.

    A CLIP whose card lists its words is tinyworld's, which is shown means of areas, as the judge
    is. Published CLIPs are shown bicubic pictures, as they were trained.
    """
    if getattr(clip, "words", None):
        return inputs.at_side(pictures, clip.size)
    size = (clip.size, clip.size)
    if pictures.shape[-2:] == size:
        return pictures
    return F.interpolate(pictures, size, mode="bicubic", antialias=True)


def look(clip, pictures: Tensor) -> Tensor:
    """CLIP's unit vectors (n,d) for pictures (n,3,size,size) in [0,1], on the pictures' device."""
    device = next(clip.model.parameters()).device
    seen = clip.model.encode_image(normalised(clip, pictures.to(device)))
    return F.normalize(seen, dim=-1).to(pictures.device)


def normalised(clip, pictures: Tensor) -> Tensor:
    """Pictures (n,3,H,W) in [0,1], normalised as a network learned with."""
    device = pictures.device
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (clip.mean, clip.std))
    return (pictures - mean) / std


@torch.no_grad()
def read(clip, texts: list[str]) -> Tensor:
    """CLIP's unit vectors (n,d) for texts, all of whose words it has to know and to read."""
    readable(clip, texts)
    device = next(clip.model.parameters()).device
    with prompts.one_at_a_time:
        ids = clip.tokenizer(texts)
    return F.normalize(clip.model.encode_text(ids.to(device)), dim=-1)


def readable(clip, texts: list[str]):
    """Refuse texts with words that this CLIP does not know, or with more than it reads."""
    for text in prompts.listed(texts):
        prompts.known_words(text, getattr(clip, "words", None), "this CLIP")
        _check_length(clip.tokenizer, text)


def _check_length(tokenizer, text):
    """Both kinds of open_clip's tokenizers cut a long text in silence."""
    room = getattr(tokenizer, "context_length", None)
    inner = getattr(tokenizer, "tokenizer", None)  # a tokenizer of transformers
    if room and callable(inner):
        prompts.fits(text, inner, room, who="CLIP")
    elif room and hasattr(tokenizer, "encode"):
        ids = tokenizer.encode(text)  # without start and end
        if len(ids) > room - 2:
            dropped = tokenizer.decode(ids[room - 2 :]).strip()
            raise prompts.too_long("prompt", len(ids), "CLIP", room - 2, dropped)
