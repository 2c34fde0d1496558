"""CLIP (2103.00020): a network that says how well a picture and a text go together.

Any open_clip model, with its own size and normalisation; pictures are differentiable all the way.
Next: ../rank.py, which asks it which edit is best.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from .. import cards
from ..errors import Refused
from . import folders, opening
from .weights import check_finite, check_weights, described, header


@dataclass
class Clip:
    """A CLIP, and how to show it pictures: (B,3,size,size) in [0,1], minus mean, over std."""

    model: torch.nn.Module
    tokenizer: object  # list of str -> token ids (B, context)
    size: int
    mean: tuple
    std: tuple
    words: tuple | None = None  # all that it was trained on; None: it reads anything


@opening.undisturbed()
def load_clip(name="ViT-B-16", pretrained="openai", device=None):
    """Return a `Clip` in float32, frozen.

    name: an open_clip architecture, `pretrained` naming its weights (the default is what BD and BLD
        use, image_editor.py:87-89), or a folder with open_clip_config.json and weights, which never
        downloads and of which nothing runs. Its blendlab.json, if there is one, lists the words
        that it knows.
    """
    import open_clip

    device = opening.device(device or "cpu")
    folder = Path(str(name).removeprefix("local-dir:")).expanduser()
    if folder.is_dir():
        folders.check_clip(folder)  # nothing in it runs or fetches, and its weights are its CLIP's
        name, weights, file = f"local-dir:{folder}", {}, folders.clip_file(folder)
        with described(folder / "open_clip_config.json", "CLIP"), torch.device("meta"):
            skeleton = open_clip.create_model(name, device="meta", load_weights=False)
        check_weights(skeleton, header(file), file)
    elif pretrained in open_clip.list_pretrained_tags_by_model(str(name)):
        quick_gelu = open_clip.get_pretrained_cfg(name, pretrained).get("quick_gelu", False)
        weights = dict(pretrained=pretrained, force_quick_gelu=quick_gelu)  # as they were trained
    else:
        raise Refused(
            f"open_clip has no {name!r} with weights {pretrained!r}; see "
            "open_clip.list_pretrained(), or give a folder with open_clip_config.json"
        )
    model = open_clip.create_model(name, device=device, **weights).eval().requires_grad_(False)
    check_finite(model, folder if folder.is_dir() else name)
    size = model.visual.image_size
    words = cards.read(folder).get("words") if folder.is_dir() else None
    side = size if isinstance(size, int) else size[0]
    mean, std = tuple(model.visual.image_mean), tuple(model.visual.image_std)
    return Clip(model, open_clip.get_tokenizer(name), side, mean, std, words and tuple(words))
