"""`load`, the one way to get any network.

What comes back is the ecosystem's own object (a diffusers pipeline), so one that you built works as
well. Read next: ../papers/blended_latent.py.
"""

import difflib
import re
from functools import partial
from pathlib import Path

import torch

from .. import cards
from ..cards import CONVERTED, KNOWN, LENDERS, SHIPPED, WEIGHTS
from ..errors import Refused, WrongType
from . import folders, opening
from .clip import load_clip
from .weights import FLOATS


@opening.undisturbed()
def load(name, device=None, dtype=None):
    """Return the model called `name`, ready to use: on its device, in inference mode, frozen.

    name: a shipped network ("tinyworld", ...), a published one ("sd15", "sd21-base", "sd21",
        "sdxl", "adm-256"), a folder that save_pretrained wrote (never downloads; "./sd15" for a
        folder with the name of a model), a guided-diffusion checkpoint "file.pt", or a diffusers
        repository "organisation/name".
    device: the CUDA GPU if there is one, else the CPU.
    dtype: float32, except that repositories and folders are float16 on CUDA. Only networks run in
           it.

    Gives a StableDiffusionPipeline or StableDiffusionXLPipeline, a DDIMPipeline or DDPMPipeline for
    a model without words, a `Judge` for "tinyworld-judge", a `Clip` for "tinyworld-clip", an
    `ExemplarPipeline` for "tinyworld-exemplar" and any folder or repository of Paint by Example.
    A folder may come from a stranger: nothing in it runs (folders.py). The model carries its card,
    so that recommended numbers do not depend on where the process stands (cards.py).
    ValueError: an unknown name, or a model that blendlab cannot run; FileNotFoundError: a folder
    or a part of it that is missing; OSError: no mirror answers.
    """
    if not isinstance(name, (str, Path)):
        raise WrongType(
            f"name is a {type(name).__name__}; give the name of a model, a folder or a repository"
        )
    device = opening.device(device)
    if dtype not in (None, *FLOATS):
        raise Refused(f"dtype is {dtype!r}; give torch.float16, torch.bfloat16 or torch.float32")
    if name in SHIPPED:
        return _shipped(name, device, dtype or torch.float32)
    if name in CONVERTED or Path(name).suffix == ".pt":
        return _converted(name, device, dtype or torch.float32)
    dtype = dtype or (torch.float16 if device.type == "cuda" else torch.float32)
    folder = _folder(name)
    return _open(folder, device, dtype) if folder else _from_hub(name, device, dtype)


# -- Names


def _shipped(name, device, dtype):
    folder = WEIGHTS / name
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{name} is not in this copy of blendlab; make it with `{SHIPPED[name]}`"
        )
    if name in ("tinyworld-judge", "tinyworld-clip") and dtype not in (None, torch.float32):
        raise Refused(f"{name} works in float32 alone, not {dtype}: leave dtype= out")
    if name == "tinyworld-judge":
        from .judge import Judge

        return Judge.load(folder, device)
    if name == "tinyworld-clip":
        return load_clip(folder, device=device)
    if name == "tinyworld-exemplar":
        from .exemplar import ExemplarPipeline

        with opening.quiet():
            return ExemplarPipeline.from_folder(folder, *LENDERS).to(device, dtype)
    return _open(folder, device, dtype)


def _converted(name, device, dtype):
    from . import adm

    if name not in CONVERTED:
        return adm.load(name, device, dtype)
    address, sha256 = CONVERTED[name].mirrors[0]
    pipe = adm.load(adm.fetch(address, sha256), device, dtype)
    pipe.register_to_config(_name_or_path=address)
    cards.remember(pipe, cards.published(address))
    return pipe


def _folder(name):
    """Return the folder that `name` means, None for one of the hub; complain if it is neither."""
    if name in KNOWN:
        return None
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise Refused(
            f"{name} is a single file: open it with StableDiffusionPipeline.from_single_file, "
            "save that with save_pretrained(folder), and load the folder"
        )

    # An unknown word, a path that leads nowhere (also "models/sd15" beside a folder models), or a
    # repository.
    if re.fullmatch(r"[\w-][\w.-]*", str(name)) and not isinstance(name, Path):
        names = [*SHIPPED, *KNOWN, *CONVERTED]
        near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.4)
        raise Refused(
            f"unknown model {name!r}{f' (did you mean {near[0]!r}?)' if near else ''}; blendlab "
            f"knows {', '.join(names)}, and takes a folder or a repository 'organisation/name'"
        )
    repository = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", str(name)) and not path.parent.is_dir()
    if isinstance(name, Path) or not repository:
        raise FileNotFoundError(
            f"there is no folder {path.absolute()}; check the path, or give a known name "
            f"({', '.join([*SHIPPED, *KNOWN, *CONVERTED])})"
        )
    return None


# -- Opening a folder, and getting one from the hub


def _open(folder, device, dtype):
    """Open a folder as the pipeline that its model_index.json names, offline.

    Its parts are opened one by one (opening.py), each as a class of the lists in folders.py.
    """
    import diffusers

    plan, card = folders.plan(folder), cards.read(folder)
    if plan.kind == folders.EXEMPLAR:  # diffusers no longer opens that pipeline
        from .exemplar import ExemplarPipeline

        with opening.quiet():
            return ExemplarPipeline.from_folder(folder).to(device, dtype)
    folders.check(folder, plan.parts)
    with opening.quiet():
        parts = {
            name: opening.part(folder / name, kind, dtype) for name, kind in plan.parts.items()
        }
        if plan.kind in ("StableDiffusionPipeline", folders.INPAINT):  # without its picture filter
            parts |= dict(safety_checker=None, feature_extractor=None)
            parts |= dict(requires_safety_checker=False)
        pipe = getattr(diffusers, plan.kind)(**parts, **plan.settings)
    pipe.register_to_config(_name_or_path=folder)
    cards.remember(pipe, card)
    pipe.set_progress_bar_config(disable=True)
    if not hasattr(pipe, "vae"):
        from . import patches

        if patches.in_patches(pipe.unet):
            pipe.unet = patches.Patches(pipe.unet)
            pipe.save_pretrained = partial(patches.save, pipe)
    return pipe.to(device, silence_dtype_warnings=True)


def _from_hub(name, device, dtype):
    """Fetch the first mirror that answers, open it, and note where it came from (for `card`)."""
    mirrors = KNOWN[name].mirrors if name in KNOWN else ((name, "main"),)
    for repository, revision in mirrors:
        try:
            folder = _fetch(repository, revision, dtype)
        except Refused:  # a kind that we cannot run: no mirror will change that
            raise
        except Exception as error:  # what a hub client raises differs between its versions
            reason = error
            continue
        pipe = _open(folder, device, dtype)
        if hasattr(pipe, "register_to_config"):
            pipe.register_to_config(_name_or_path=repository)
        else:
            pipe.name_or_path = repository
        cards.remember(pipe, cards.published(repository) or cards.card(pipe))
        return pipe
    tried = " and ".join(repository for repository, _ in mirrors)
    raise OSError(
        f"{name} could not be downloaded from {tried}; connect to the internet, or copy the "
        "model's folder here and give its path as the name"
    ) from reason


def _fetch(repository, revision, dtype):
    """Return the local copy of a repository as a folder, downloading what is missing of it."""
    from huggingface_hub import model_info, snapshot_download

    # one question, answered or refused at once; asking for a file offline is retried for half a
    # minute
    try:
        files = [file.rfilename for file in model_info(repository, revision=revision).siblings]
    except Exception:  # offline, gone or private: an earlier download may still be here
        return Path(snapshot_download(repository, revision=revision, local_files_only=True))

    # Two small files first, so that a model that we cannot run is refused before gigabytes arrive.
    small = ["model_index.json", "unet/config.json"]
    folder = snapshot_download(repository, revision=revision, allow_patterns=small)
    plan = folders.plan(Path(folder))
    if plan.kind == folders.INPAINT:
        raise Refused(
            f"{repository} holds a {plan.kind} whose UNet takes 9 channels; blending needs a plain "
            "text-to-image model, for instance 'sd15'"
        )
    wanted = _wanted(files, plan, dtype == torch.float16)
    return Path(snapshot_download(repository, revision=revision, allow_patterns=wanted))


STORED = re.compile(
    r"(diffusion_pytorch_|pytorch_)?model(\.fp16)?(-\d+-of-\d+)?\.(safetensors|bin)"
)


def _wanted(files, plan, half):
    """The files of a repository to fetch: no weights twice, no pickles beside safetensors."""
    exemplar = plan.kind == folders.EXEMPLAR
    parts = {*folders.LAYOUTS[plan.kind]}
    if exemplar:
        parts |= {"image_encoder", "feature_extractor"}
    wanted = [file for file in files if file in ("model_index.json", "blendlab.json")]
    for part in sorted(parts):
        here = [file for file in files if re.fullmatch(rf"{part}/[^/]+", file)]
        wanted += [file for file in here if file.endswith((".json", ".txt"))]
        stored = [file for file in here if STORED.fullmatch(file.split("/")[1])]
        safe = [file for file in stored if file.endswith(".safetensors")]
        kinds = [[file for file in safe if (".fp16" in file) == fp16] for fp16 in (half, not half)]
        kinds += [[file for file in stored if exemplar and file not in safe]]
        wanted += next((kind for kind in kinds if kind), [])
    return wanted
