"""Weights: whether they are whole, fit their network and are numbers, asked before it is used.

Libraries draw at random what a file lacks, and take NaN and integers. Next: folders.py, which
looks at everything else in a folder; opening.py, which opens its parts.
"""

import re
import zipfile
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import Refused

# safetensors' names of number formats; whatever else a file holds is refused by its name.
FORMATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
AGAIN = "copy or download it again"
IN_FLOATS = "take weights in float16, bfloat16 or float32"

# Attention in the autoencoders of Stable Diffusion 1.x: diffusers still reads the first names.
OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def plain(key: str) -> str:
    """The name of a weight without what the versions of the libraries write differently."""
    key = re.sub(r"(?<![^.])(text_model|vision_model)\.", "", key).removeprefix("text.")
    return re.sub(
        r"\.(query|key|value|proj_attn)\.(weight|bias)$", lambda m: f".{OLD[m[1]]}.{m[2]}", key
    )


def check_weights(module: nn.Module, weights: dict, where) -> None:
    """Refuse weights that lack some of the module's, have others, or are not finite floats.

    weights: {name: tensor}; tensors on the device "meta" (`header` gives them) are not asked for
    their numbers. where: the file or folder, for the sentence.
    """
    mine, theirs = _by_plain_name(module.state_dict()), _by_plain_name(weights)
    kind = type(module).__name__
    if missing := mine.keys() - theirs.keys():
        how_many = f"{len(missing)} of the {len(mine)} weights of this {kind}"
        raise Refused(f"{where} lacks {how_many}, {_some(missing)}: {AGAIN}")
    if strange := theirs.keys() - mine.keys():
        what = f"what this {kind} has no place for, {_some(strange)}"
        raise Refused(f"{where} holds {what}: take the files of one model")
    for key, value in theirs.items():
        if value.shape != mine[key].shape:
            raise Refused(
                f"{where} holds {key} of the shape {tuple(value.shape)}, where this {kind} has "
                f"{tuple(mine[key].shape)}: take weights and config.json of one model"
            )
        if mine[key].is_floating_point() and value.dtype not in FLOATS:
            form = str(value.dtype).removeprefix("torch.")
            raise Refused(f"{where} holds {form} numbers in {key}: {IN_FLOATS}")
    _finite(((key, value) for key, value in theirs.items() if not value.is_meta), where)


def check_finite(module: nn.Module, where) -> None:
    """Refuse a network with weights that are NaN or infinite."""
    _finite(module.state_dict().items(), where)


def take_weights(module: nn.Module, weights: dict, where="these weights") -> None:
    """Load all weights of a module, whatever version of the libraries named them."""
    check_weights(module, weights, where)
    mine = {plain(key): key for key in module.state_dict()}
    module.load_state_dict({mine[key]: value for key, value in _by_plain_name(weights).items()})


def header(file) -> dict[str, Tensor]:
    """{name: tensor without numbers (on "meta")} of a file, from the header of a .safetensors."""
    if file.suffix != ".safetensors":
        return read_pickle(file, "meta")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            slices = {key: opened.get_slice(key) for key in opened.keys()}
            said = {key: (part.get_dtype(), part.get_shape()) for key, part in slices.items()}
    except (SafetensorError, OSError) as error:
        raise Refused(f"{file} is torn ({brief(error)}): {AGAIN}") from error
    for key, (name, _) in said.items():
        if name not in FORMATS:
            raise Refused(f"{file} holds {name} numbers in {key}: {IN_FLOATS}")
    return {
        key: torch.empty(shape, dtype=FORMATS[name], device="meta")
        for key, (name, shape) in said.items()
    }


def read(file) -> dict[str, Tensor]:
    """The tensors in a .safetensors, or in a pickle of nothing but tensors."""
    if file.suffix != ".safetensors":
        return read_pickle(file)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise Refused(f"{file} is torn ({brief(error)}): {AGAIN}") from error


def read_pickle(file, device="cpu") -> dict[str, Tensor]:
    """The tensors in a file of torch.save, without running what else it may hold.

    An archive that is compressed, or whose entries overlap, may unpack to any size; torch.save
    writes neither. Its directory tells, before anything is unpacked.
    """
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
            unpacked = sum(entry.file_size for entry in entries)
            if any(e.compress_type for e in entries) or unpacked > Path(file).stat().st_size:
                raise Refused(
                    f"{file} is a compressed archive, which torch.save does not write: save the "
                    "network's state_dict with torch.save"
                )
        state = torch.load(file, map_location=device, weights_only=True)
    except Refused:
        raise
    except Exception as error:  # each kind of damage has another one
        raise Refused(
            f"{file} is not a file of weights alone: download it again, or save the network's "
            "state_dict with torch.save"
        ) from error
    if not isinstance(state, dict):
        raise Refused(f"{file} holds a {type(state).__name__}: give a file with a state_dict")
    for key, value in state.items():
        if not isinstance(value, Tensor):
            kind = type(value).__name__
            raise Refused(f"{file} holds a {kind} in {key!r}: save the network's state_dict alone")
    return state


@contextmanager
def described(file, what: str):
    """In a `with` that builds a network from the numbers in a file: refuse those that fit none."""
    try:
        yield
    except Exception as error:  # a library may raise anything about numbers that do not fit
        raise Refused(
            f"{file} describes no {what} ({brief(error)}): copy or download it again"
        ) from error


def brief(error) -> str:
    """What a library said, on one line and not too long."""
    said = " ".join(str(error).split()) or type(error).__name__
    return said if len(said) <= 160 else f"{said[:160]}..."


def _by_plain_name(weights):
    """Weights by their plain names, without the counts 0, 1, 2, ... that old checkpoints hold."""
    kept = {key: value for key, value in weights.items() if not key.endswith("position_ids")}
    return {plain(key): value for key, value in kept.items()}


def _finite(named, where):
    for key, value in named:
        if value.is_floating_point() and not value.isfinite().all():
            half = ", or load it in float32" if value.dtype == torch.float16 else ""
            raise Refused(f"{where} has NaN or infinite numbers in {key}: {AGAIN}{half}")


def _some(names):
    """The first names, and how many more there are."""
    first, more = sorted(names)[:3], len(names) - 3
    return ", ".join(first) + (f" and {more} more" if more > 0 else "")
