"""`load`, the one way to get any network.

What comes back is the ecosystem's own object (a diffusers pipeline), so one that you built works as
well. Read next: ../papers/blended_latent.py.
"""

import difflib
import re
from contextlib import contextmanager
from pathlib import Path

import torch

from ..cards import CONVERTED, KNOWN, LENDERS, SHIPPED, WEIGHTS
from . import folders
from .clip import load_clip

EXEMPLAR = "PaintByExamplePipeline"
PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "DDIMPipeline", "DDPMPipeline")


def load(name, device=None, dtype=None):
    """Return the model called `name`, ready to use: on its device, in inference mode, weights
    frozen.

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
    ValueError: an unknown name, or a model that blendlab cannot run; FileNotFoundError: a folder
    that is not there; OSError: no mirror answers.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if name in SHIPPED:
        return _shipped(name, device, dtype or torch.float32)
    if name in CONVERTED or Path(name).suffix == ".pt":
        return _converted(name, device, dtype or torch.float32)
    dtype = dtype or (torch.float16 if device.type == "cuda" else torch.float32)
    folder = _folder(name)
    return _open(folder, device, dtype) if folder else _from_hub(name, device, dtype)


# -- Names
# ------------------------------------------------------------


def _shipped(name, device, dtype):
    folder = WEIGHTS / name
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{name} is not in this copy of blendlab; make it with `{SHIPPED[name]}`"
        )
    if name == "tinyworld-judge":
        from .judge import Judge

        return Judge.load(folder, device)
    if name == "tinyworld-clip":
        return load_clip(folder, device=device)
    if name == "tinyworld-exemplar":
        from .exemplar import ExemplarPipeline

        with _quiet():
            return ExemplarPipeline.from_folder(folder, *LENDERS).to(device, dtype)
    return _open(folder, device, dtype)


def _converted(name, device, dtype):
    from . import adm

    if name not in CONVERTED:
        return adm.load(name, device, dtype)
    address, sha256 = CONVERTED[name].mirrors[0]
    pipe = adm.load(adm.fetch(address, sha256), device, dtype)
    pipe.register_to_config(_name_or_path=address)  # for `card`
    return pipe


def _folder(name):
    """Return the folder that `name` means, None if it is on the hub; complain if it can be
    neither.
    """
    if name in KNOWN:
        return None
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise ValueError(
            f"{name} is a single file: open it with StableDiffusionPipeline.from_single_file, "
            "save that with save_pretrained(folder), and load the folder"
        )

    # An unknown word, a path that leads nowhere (also "models/sd15" beside a folder models), or a
    # repository.
    if re.fullmatch(r"[\w-][\w.-]*", str(name)) and not isinstance(name, Path):
        names = [*SHIPPED, *KNOWN, *CONVERTED]
        near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.4)
        raise ValueError(
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
# ----------------------------------------------------------


def _open(folder, device, dtype):
    """Open a folder as the pipeline that its model_index.json names, without touching the
    network.
    """
    kind, left_out = _kind(folder)
    if kind is None:
        from .exemplar import ExemplarPipeline

        with _quiet():
            return ExemplarPipeline.from_folder(folder).to(device, dtype)
    folders.check_pipeline(folder)
    with _quiet():
        pipe = kind.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            variant=_variant(folder, dtype),
            **_dtype_argument(dtype),
            **left_out,
        )
    pipe.set_progress_bar_config(disable=True)
    if not hasattr(pipe, "vae"):
        from .patches import Patches, in_patches

        pipe.unet = Patches(pipe.unet) if in_patches(pipe.unet) else pipe.unet
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            folders.check_finite(part.eval().requires_grad_(False), folder / name)
    return pipe.to(device)


def _kind(folder):
    """Return a folder's pipeline class and what leaves its picture filter out; refuse other kinds.

    The class is None for Paint by Example: diffusers no longer opens that pipeline, so we do, part
    by part.
    """
    import diffusers

    index, unet = folder / "model_index.json", folder / "unet" / "config.json"
    if not index.is_file():
        raise ValueError(
            f"{folder} has no model_index.json, so it is no diffusers pipeline; give the folder "
            "that save_pretrained wrote"
        )
    name = str(folders.read_json(index).get("_class_name"))
    unet = folders.read_json(unet) if unet.is_file() else {}
    ours, theirs = unet.get("in_channels"), unet.get("out_channels")
    if name == EXEMPLAR:
        if ours != 9:
            raise ValueError(
                f"{folder} holds a {name} whose UNet takes {ours} channels, not 9 (noisy "
                "latent 4, masked "
                "latent 4, mask 1); check that its folder unet is the one for exemplars"
            )
        return None, {}
    if theirs != ours and not (
        name.startswith("DD") and theirs == 2 * ours
    ):  # a learned variance doubles them
        raise ValueError(
            f"{folder} holds a {name} whose UNet takes {ours} channels; "
            f"blending needs a plain text-to-image model ({theirs} channels), for "
            "instance 'sd15'"
        )
    if name not in PIPELINES:
        raise ValueError(
            f"{folder} holds a {name}; blendlab runs {', '.join(PIPELINES[:-1])} and "
            f"{PIPELINES[-1]}"
        )
    no_filter = dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    return getattr(diffusers, name), no_filter if name == "StableDiffusionPipeline" else {}


def _from_hub(name, device, dtype):
    """Fetch the first mirror that answers, open it, and note where it came from (for `card`)."""
    mirrors = KNOWN[name].mirrors if name in KNOWN else ((name, "main"),)
    for repository, revision in mirrors:
        try:
            folder = _fetch(repository, revision, dtype)
        except ValueError:  # a kind that we cannot run: no mirror will change that
            raise
        except Exception as error:  # what a hub client raises differs between its versions
            reason = error
            continue
        pipe = _open(folder, device, dtype)
        if hasattr(pipe, "register_to_config"):
            pipe.register_to_config(_name_or_path=repository)
        else:
            pipe.name_or_path = repository
        return pipe
    tried = " and ".join(repository for repository, _ in mirrors)
    raise OSError(
        f"{name} could not be downloaded from {tried}; connect to the internet, or copy the "
        "model's folder here and give its path as the name"
    ) from reason


def _fetch(repository, revision, dtype):
    """Return the local copy of a repository as a folder, downloading what is missing of it."""
    from diffusers import DiffusionPipeline
    from huggingface_hub import model_info, snapshot_download

    # one question, answered or refused at once; asking for a file offline is retried for half a
    # minute
    try:
        files = [file.rfilename for file in model_info(repository, revision=revision).siblings]
    except Exception:  # offline, gone or private: an earlier download may still be here
        return Path(snapshot_download(repository, revision=revision, local_files_only=True))

    # Two small files first, so that a model that we cannot run is refused before gigabytes arrive.
    small = ["model_index.json", "unet/config.json"]
    kind, left_out = _kind(
        Path(snapshot_download(repository, revision=revision, allow_patterns=small))
    )
    if kind is None:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=_parts(files)))
    half = dtype == torch.float16 and any(file.endswith(".fp16.safetensors") for file in files)
    return Path(
        DiffusionPipeline.download(
            repository,
            revision=revision,
            use_safetensors=True,
            variant="fp16" if half else None,
            **left_out,
        )
    )


def _parts(files):
    """The files of a Paint by Example repository to fetch: no picture filter, no weights twice."""
    parts = (
        "vae/",
        "unet/",
        "image_encoder/",
        "scheduler/",
        "feature_extractor/",
        "model_index.json",
        "blendlab.json",
    )
    files = [file for file in files if file.startswith(parts) and ".fp16." not in file]
    safe = {file.split("/")[0] for file in files if file.endswith(".safetensors")}
    return [file for file in files if not (file.endswith(".bin") and file.split("/")[0] in safe)]


def _variant(folder, dtype):
    """Return "fp16" to read a folder's half-precision files: when we want them, or when it has no
    others.
    """
    files = [file.name for file in folder.glob("unet/*.safetensors")]
    half = [file for file in files if ".fp16." in file]
    return "fp16" if half and (dtype == torch.float16 or half == files) else None


def _dtype_argument(dtype):
    import diffusers

    version = tuple(int(part) for part in diffusers.__version__.split(".")[:2])
    return {"dtype" if version >= (0, 42) else "torch_dtype": dtype}  # renamed; the old name warns


@contextmanager
def _quiet():
    """Hide the progress bars of opening files (not those of downloads), and put them back."""
    import diffusers
    import transformers

    bars = [library.utils.logging for library in (diffusers, transformers)]
    bars = [bar for bar in bars if bar.is_progress_bar_enabled()]
    for bar in bars:
        bar.disable_progress_bar()
    try:
        yield
    finally:
        for bar in bars:
            bar.enable_progress_bar()
