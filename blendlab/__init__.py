"""blendlab: diffusion image editing by blending, in one loop that fits on a screen.

    import blendlab as bl
    pipe = bl.load("tinyworld")
    edit = bl.blended_latent(pipe, bl.data("scenes/meadow.png"), bl.data("masks/meadow.png"), "a red mushroom", n=4, seed=0)
    edit.images[0]

Names are fetched when they are first used, so that importing blendlab costs little. Read sampler.py first: everything
else is a line in the body of its loop, or a wrapper around its denoiser.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "load": "models", "settings": "models", "check": "doctor", "data": "files", "blended_latent": "blended_latent", "rank": "rank",
    "sample": "sampler", "last": "sampler", "Step": "sampler", "Prediction": "sampler", "Schedule": "schedule", "Noise": "noise",
    "cfg": "guidance", "denoiser": "guidance", "loss_guided": "guidance", "blend": "blend",
}  # fmt: skip
_MODULES = ("world", "images", "masks", "viz", "models", "judge")
__all__ = sorted([*_HOME, *_MODULES])


def __getattr__(name: str):
    if name in _HOME:
        value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    elif name in _MODULES:
        value = import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"blendlab has no {name!r}; it has {', '.join(__all__)}")
    globals()[name] = value  # a submodule of the same name must not shadow the function
    return value


def __dir__():
    return __all__
