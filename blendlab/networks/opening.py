"""How one part of a model is opened: a network with its weights, a scheduler, a tokenizer.

What opens a part is a class of diffusers or transformers that folders.py lists; weights are checked
before and after. Nothing else in the process changes while it happens. Next: load.py.
"""

import logging
import random
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from ..errors import Refused
from . import folders
from .weights import brief, check_finite, check_weights, described, header


def device(wanted) -> torch.device:
    """The device that is asked for; None: the GPU where there is one. A missing one is refused."""
    gpus = max(1, torch.cuda.device_count()) if torch.cuda.is_available() else 0
    try:
        found = torch.device(("cuda" if gpus else "cpu") if wanted is None else wanted)
    except (RuntimeError, TypeError) as error:
        raise Refused(f"device is {wanted!r}; choose cpu, cuda or mps") from error
    there = {"cpu": 1, "cuda": gpus, "mps": int(torch.backends.mps.is_available())}
    if (found.index or 0) >= there.get(found.type, 0):
        raise Refused(f"device is {wanted!r}, which PyTorch does not find here: pass device='cpu'")
    return found


def part(folder: Path, kind: str, dtype=torch.float32):
    """Open the part in `folder`, of the class `kind`; networks frozen and in inference mode."""
    import diffusers
    import transformers

    if kind in folders.TOKENIZERS:
        folders.tokenizer(folder)
        return _try(folder, getattr(transformers, kind))
    if kind in folders.SCHEDULERS:
        folders.scheduler(folder)
        return _try(folder, getattr(diffusers, kind))
    return network(folder, kind, dtype)


def network(folder: Path, kind: str, dtype=torch.float32, safe=True):
    """Open a network whose weights are whole, fit its config.json and are finite floats.

    safe: only from safetensors; else a .bin of weights alone will do.
    """
    import diffusers
    import transformers

    ours = kind in folders.LIBRARIES["diffusers"]
    library, stem = (diffusers, "diffusion_pytorch_model") if ours else (transformers, "model")
    files, variant = folders.weight_files(folder, stem, dtype == torch.float16, safe)
    cls, config = getattr(library, kind), folders.read_json(folder / "config.json")
    if ours and config.get("_class_name") != kind:
        raise Refused(
            f"{folder / 'config.json'} describes a {config.get('_class_name')}, not the {kind} "
            "that belongs there: take the folder of one model"
        )
    stored = {key: value for file in files for key, value in header(file).items()}
    check_weights(_skeleton(folder, cls, config), stored, folder)
    named = "torch_dtype" if ours and _version(diffusers) < (0, 42) else "dtype"
    options = {"use_safetensors": files[0].suffix == ".safetensors", named: dtype}
    model = _try(folder, cls, variant=variant, **options)
    check_finite(model, folder)
    return model.eval().requires_grad_(False)


def _skeleton(folder, cls, config):
    """The network that a config.json describes, without numbers."""
    from transformers import CLIPTextConfig

    with described(folder / "config.json", cls.__name__), torch.device("meta"):
        if hasattr(cls, "from_config"):
            return cls.from_config(config)
        return cls(CLIPTextConfig.from_dict(config))


def _try(folder, cls, **options):
    """Open a folder, and name it where a library fails in it."""
    try:
        return cls.from_pretrained(folder, local_files_only=True, **options)
    except Exception as error:
        what = f"{folder} does not open as a {cls.__name__} ({brief(error)})"
        raise Refused(f"{what}: copy or download the folder again") from error


def _version(library):
    return tuple(int(number) for number in library.__version__.split(".")[:2])


@contextmanager
def undisturbed():
    """Leave the process as it is: its global random generators, and its root logger.

    Networks are built with numbers that their weights then replace. open_clip tells the root logger
    all that it does, and a root logger without a handler would get one.
    """
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    root, guard = logging.getLogger(), logging.NullHandler()
    root.addHandler(guard)
    root.addFilter(_not_open_clip)
    try:
        yield
    finally:
        root.removeFilter(_not_open_clip)
        root.removeHandler(guard)
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def _not_open_clip(record):
    return "open_clip" not in Path(record.pathname).parts


@contextmanager
def quiet():
    """Hide the progress bars of opening files (not those of downloads), and put them back."""
    from diffusers.utils import logging as diffusers_bars
    from transformers.utils import logging as transformers_bars

    bars = [bar for bar in (diffusers_bars, transformers_bars) if bar.is_progress_bar_enabled()]
    for bar in bars:
        bar.disable_progress_bar()
    try:
        yield
    finally:
        for bar in bars:
            bar.enable_progress_bar()
