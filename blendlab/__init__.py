"""blendlab: diffusion image editing by blending, in one loop that fits on a screen.

    import blendlab as bl
    pipe = bl.load("tinyworld")
    image, mask = bl.data("scenes/meadow.png"), bl.data("masks/meadow.png")
    edit = bl.blended_latent(pipe, image, mask, "a red mushroom", n=4, seed=0)
    edit.images[0]

Read sampler.py first: everything else is a line in the body of its loop, or a wrapper around its
denoiser.
"""

from . import cards as models
from . import images, masks, world
from .blend import blend
from .course.doctor import check
from .edit import Edit
from .files import data
from .guidance import cfg, denoiser, loss_guided
from .images import fit
from .networks.load import load
from .noise import Noise
from .papers.blended import blended
from .papers.blended_latent import PRESETS, Blending, blended_latent
from .papers.clip_guided import clip_guided
from .papers.decoder import reconstruct
from .papers.exemplar import exemplar
from .papers.inversion import invert
from .papers.layout import layout
from .papers.paint_by_word import paint_by_word
from .papers.repaint import repaint
from .papers.reword import reword
from .rank import rank
from .sampler import Prediction, Step, last, sample
from .schedule import Schedule

__version__ = "0.1.0"
__all__ = [
    "Blending", "Edit", "Noise", "PRESETS", "Prediction", "Schedule", "Step", "blend", "blended",
    "blended_latent", "cfg", "check", "clip_guided", "data", "denoiser", "exemplar", "fit",
    "images", "invert", "last", "layout", "load", "loss_guided", "masks", "metrics", "models",
    "paint_by_word", "rank", "reconstruct", "repaint", "reword", "sample", "viz", "world",
]  # fmt: skip


def __getattr__(name):
    """Plots and metrics are imported when they are first used: matplotlib is slow to arrive."""
    places = {"viz": ".viz", "metrics": ".measuring.metrics"}
    if name in places:
        from importlib import import_module

        return import_module(places[name], __name__)
    raise AttributeError(f"blendlab has no {name!r}; it has {', '.join(__all__)}")
