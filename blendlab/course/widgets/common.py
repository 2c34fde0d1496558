"""What all widgets share: their JavaScript and CSS from this folder, pictures as bytes and back.

No paper. Read next: painter.py.
"""

import io
from pathlib import Path

import anywidget
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ... import images
from ...errors import Refused

HERE = Path(__file__).parent
CSS = (HERE / "widgets.css").read_text(encoding="utf-8")


class Widget(anywidget.AnyWidget):
    """A widget that a page hears of when it is first shown, complete as it is then.

    anywidget loses changes that come before its page has loaded the widget (its issue 803), which
    a busy machine makes likely: then painters had no picture.
    """

    _closed = False

    def __init__(self, **traits):
        if strange := [name for name in traits if not self.has_trait(name)]:
            known = ", ".join(sorted(n for n in self.trait_names(sync=True) if n[0] != "_"))
            raise Refused(f"{type(self).__name__} has no option {strange[0]!r}: it has {known}")
        super().__init__(**traits)

    def open(self):
        """What a page is told at first waits until it asks for the widget by `model_id`."""

    @property
    def model_id(self):
        if self.comm is None and not self._closed:
            super().open()
        return super().model_id

    def close(self):
        self._closed = True
        super().close()


def script(*names: str) -> str:
    """One JavaScript module out of files of this folder, which is all that a widget loads."""
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in ("shared.js", *names))


def picture(x, name: str = "image") -> Image.Image:
    """One RGB picture from PIL, a path or a tensor (1,3,H,W); bad ones raise as in images.image."""
    found = images.to_pil(images.image(x, name=name))
    if len(found) != 1:
        raise ValueError(f"{name} holds {len(found)} pictures: pass one, {name}[:1]")
    return found[0]


def grey(x, size: tuple[int, int], soft: bool, name: str = "mask") -> Image.Image:
    """A mask as PIL "L" of size (width, height); it may be black everywhere.

    x: PIL, a path, an array (H,W) or a tensor (H,W) or (1,1,H,W); None is black everywhere.
    """
    if x is None:
        return Image.new("L", size)
    if isinstance(x, np.ndarray):
        x = Image.fromarray(x) if x.dtype == np.uint8 else torch.from_numpy(x.copy())
    if isinstance(x, Tensor) and x.ndim == 2:
        x = x[None, None]
    if isinstance(x, Image.Image) and x.getbbox() is None or isinstance(x, Tensor) and not x.any():
        x = Image.new("L", x.size if isinstance(x, Image.Image) else (x.shape[-1], x.shape[-2]))
    else:
        (x,) = images.to_pil(images.mask(x, soft=soft, allow_full=True, name=name))
    if x.size != size:
        (width, height), (w, h) = x.size, size
        sizes = f"{name} is {width}x{height} and the picture {w}x{h} (width x height)"
        raise ValueError(f"{sizes}: resize it with bl.images.fit_mask({name}, ({w}, {h}))")
    return x


def encoded(x: Image.Image, film: bool = False) -> bytes:
    """The bytes of a picture for the browser: exact, as PNG; large frames of a film as JPEG."""
    file, large = io.BytesIO(), x.width * x.height > 256 * 256
    x.save(file, **(dict(format="JPEG", quality=88) if film and large else dict(format="PNG")))
    return file.getvalue()
