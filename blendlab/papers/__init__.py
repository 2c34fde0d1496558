"""A module for each method; none imports another paper's. Next: blended_latent.py."""

from importlib import import_module
from pkgutil import iter_modules

from ..options import METHODS, EditMethod


def methods() -> dict[str, EditMethod]:
    """The editing methods by name: what the files in this folder have `registered`."""
    for module in iter_modules(__path__, f"{__name__}."):
        import_module(module.name)
    return METHODS
