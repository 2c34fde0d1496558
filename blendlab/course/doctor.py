"""What to know before the first picture: versions, device, memory, networks (`blendlab doctor`).

`check()` is the last line of the set-up cell of every notebook. Read next: ../cards.py.
"""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from ..cards import CONVERTED, KNOWN, SHIPPED, WEIGHTS

PACKAGES = {
    "torch": "torch",
    "diffusers": "diffusers",
    "transformers": "transformers",
    "open_clip": "open_clip_torch",
}


def check():
    """Print one readable line each: versions, device and free memory, networks here or missing."""
    print("\n".join(report()))


def report():
    """Return the lines that `check` prints."""
    from .. import __version__ as blendlab_version

    packages = ", ".join(f"{name} {_version(package)}" for name, package in PACKAGES.items())
    listed = KNOWN | CONVERTED
    return [
        f"blendlab {blendlab_version}, Python {platform.python_version()}, {packages}",
        _device(),
        _memory(),
        *(_network(name) for name in SHIPPED),
        "to download: "
        + ", ".join(f"{name} ({entry.gigabytes} GB)" for name, entry in listed.items()),
    ]


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


def _device():
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return f"device: cuda, {torch.cuda.get_device_name()}, {_gb(free)} free of {_gb(total)}"
    cores = f"device: cpu, {torch.get_num_threads()} threads"
    if "google.colab" in sys.modules:
        return f"{cores}; for a GPU choose Runtime -> Change runtime type -> T4"
    if torch.backends.mps.is_available():
        return (
            f"{cores}; bl.load(name, device='mps') uses this Mac's GPU, whose numbers "
            "differ slightly"
        )
    return f"{cores}; enough for tinyworld, the models to download want a GPU"


def _memory():
    import psutil

    memory = psutil.virtual_memory()
    return f"memory: {_gb(memory.available)} free of {_gb(memory.total)}"


def _network(name):
    """Say how large a shipped network is, or which command makes it."""
    size = sum(file.stat().st_size for file in (WEIGHTS / name).rglob("*") if file.is_file())
    return (
        f"{name}: {size / 1e6:.1f} MB"
        if size
        else f"{name}: not here yet, `{SHIPPED[name]}` makes it"
    )


def _gb(size):
    return f"{size / 1e9:.1f} GB"
