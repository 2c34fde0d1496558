"""blendlab: diffusion image editing by blending, in one loop that fits on a screen.

    import blendlab as bl
    pipe = bl.load("tinyworld")
    image, mask = bl.data("scenes/meadow.png"), bl.data("masks/meadow.png")
    edit = bl.blended_latent(pipe, image, mask, "a red mushroom", n=4, seed=0)
    edit.images[0]

Read sampler.py first: everything else is a line in the body of its loop, or a wrapper around its denoiser.
"""

from . import images, masks, models, world
from .baselines import paint_by_word
from .blend import blend
from .blended import blended
from .blended_latent import PRESETS, Blending, blended_latent
from .clip_guided import clip_guided
from .decoder import reconstruct
from .doctor import check
from .edit import Edit
from .exemplar import exemplar
from .files import data
from .guidance import cfg, denoiser, loss_guided
from .inversion import invert, reword
from .models import load
from .noise import Noise
from .noise_edit import layout, repaint
from .rank import rank
from .sampler import Prediction, Step, last, sample
from .schedule import Schedule

__version__ = "0.1.0"
__all__ = [
    "Blending", "Edit", "Noise", "PRESETS", "Prediction", "Schedule", "Step", "blend", "blended",
    "blended_latent", "cfg", "check", "clip_guided", "data", "denoiser", "exemplar", "images", "invert", "last",
    "layout", "load", "loss_guided", "masks", "models", "paint_by_word", "rank", "reconstruct", "repaint", "reword",
    "sample", "viz", "world",
]  # fmt: skip


def __getattr__(name):
    """Plotting is imported when it is first used: matplotlib is slow to arrive."""
    if name == "viz":
        from importlib import import_module

        return import_module(".viz", __name__)
    raise AttributeError(f"blendlab has no {name!r}; it has {', '.join(__all__)}")
