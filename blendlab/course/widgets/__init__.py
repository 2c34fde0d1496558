"""The course's widgets: painters, boxes, tables, an upload, and the panel of Play sections.

Each has its JavaScript beside it; nothing comes from the network. Read next: panel.py.
"""

from ...sampler import filmed
from .boxes import BoxEditor
from .film import scrub
from .painter import CellPicker, MaskPainter, ScribblePainter
from .panel import Panel, panel
from .rating import Rating
from .runs import Stopped, result
from .table import TablePicker
from .upload import PictureUpload, fit

__all__ = [
    "BoxEditor", "CellPicker", "MaskPainter", "Panel", "PictureUpload", "Rating",
    "ScribblePainter", "Stopped", "TablePicker", "filmed", "fit", "panel", "result", "scrub",
]  # fmt: skip
