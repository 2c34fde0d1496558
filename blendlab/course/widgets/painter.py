"""Painters over a picture, as notebook widgets: a mask, colour scribbles, cells of a grid.

    painter = MaskPainter("photo.png", mask="mask.png")
    painter                                   # in a cell: paint by mouse, touch, pen or keyboard
    bl.blended_latent(pipe, painter.image, painter.mask, "a red mushroom")

What is painted stays at the picture's own resolution, however large it is shown. Each has a
`value`, which panels and other widgets observe. No paper. Next: boxes.py, panel.py.
"""

import numpy as np
from PIL import Image
from traitlets import Any, Bool, CBytes, Float, Int, List, Unicode, observe, validate

from .common import CSS, Widget, encoded, grey, picture, script


class _Painter(Widget):
    """A picture and a layer of bytes over it; subclasses say what the layer means."""

    _esm, _css = script("layer.js", "painter.js"), CSS
    _image, _layer = CBytes().tag(sync=True), CBytes().tag(sync=True)
    # Width and height of the layer, then of the picture.
    _size = List(Int(), [1, 1, 1, 1]).tag(sync=True)
    mode = Unicode().tag(sync=True)
    shown = Int(384).tag(sync=True)  # width on the screen, in CSS pixels
    label = Unicode().tag(sync=True)  # what a screen reader calls it
    brush = Float(8).tag(sync=True)  # diameter in pixels of the picture
    erase, soft = Bool(False).tag(sync=True), Bool(False).tag(sync=True)
    colour = Unicode("#d9722e").tag(sync=True)
    image, value = Any(), Any()

    def __init__(self, image, **traits):
        super().__init__(**traits)
        self.image = image
        self.add_class("bl-" + self.mode)

    @validate("image")
    def _checked_image(self, proposal):
        return picture(proposal.value)

    @observe("image")
    def _show_image(self, change):
        """Show another picture; what is painted stays, or is cleared if the size changes."""
        size = [*self._layer_size(), *self.image.size]
        if size != self._size:
            self._size = size
            self._layer = bytes(self._channels * size[0] * size[1])
        self._image = encoded(self.image)
        self.value = self._painted()

    @observe("_layer")
    def _read_layer(self, change):
        self.value = self._painted()

    @validate("value")
    def _checked_value(self, proposal):
        if proposal.value != self._painted():
            raise ValueError(f"value follows from what is painted: set {self._settable}")
        return proposal.value

    _channels = 1

    def _layer_size(self):
        return self.image.size

    def _cover(self):
        """The first plane of the layer, as a grey picture of its size."""
        width, height = self._size[:2]
        return Image.frombytes("L", (width, height), self._layer[: width * height])


class MaskPainter(_Painter):
    """A mask to paint: `mask` is a PIL "L" picture, white = edit, as bl.blended_latent takes it.

    image: PIL, a path or a tensor. mask: the same, or an array; set `painter.mask` to show another.
    soft: a brush with a soft edge, which paints greys, for functions that take them. Turned off, it
    makes greys black and white, at half. Also: brush (pixels), erase, shown (width on the screen).
    """

    def __init__(self, image, mask=None, **traits):
        label = "Mask to paint: what is painted is edited"
        super().__init__(image, **dict(mode="mask", label=label) | traits)
        self.mask = mask

    @property
    def mask(self) -> Image.Image:
        return self.value

    @mask.setter
    def mask(self, mask):
        self.value = grey(mask, self.image.size, self.soft)

    @validate("value")
    def _checked_value(self, proposal):
        return grey(proposal.value, self.image.size, self.soft)

    @observe("value")
    def _send_value(self, change):
        if self.value is None:
            self.mask = None
        self._layer = self.value.tobytes()

    @observe("_layer")
    def _read_layer(self, change):
        """Undo may bring greys back after soft was turned off: turn it on again."""
        self.soft = self.soft or any(self._cover().histogram()[1:255])
        self.value = self._painted()

    @observe("soft")
    def _harden(self, change):
        if not self.soft and self._layer:
            self._layer = self._cover().point(lambda v: 255 * (v > 127)).tobytes()

    def _painted(self):
        return self._cover()


class CellPicker(_Painter):
    """Cells of a grid over a picture, to click or drag over: of a latent, of noise, of attention.

    shape: rows and columns. cells: bools (rows, columns), true where picked; `picker.cells` may be
    set. `picker.mask` is the same at the picture's size, for bl.repaint(region=picker.mask).
    """

    _settable = "cells"
    shape = List(Int())

    def __init__(self, image, shape: tuple[int, int], cells=None, **traits):
        label = f"Cells to pick, {shape[1]} across and {shape[0]} down"
        super().__init__(image, shape=list(shape), **dict(mode="cells", label=label) | traits)
        if cells is not None:
            self.cells = cells

    @property
    def cells(self) -> np.ndarray:
        return np.asarray(self._cover()) > 0

    @cells.setter
    def cells(self, cells):
        cells = np.asarray(cells, bool)
        if list(cells.shape) != self.shape:
            shape = tuple(self.shape)
            raise ValueError(f"cells are {cells.shape}: pass bools of shape {shape}, rows first")
        self._layer = (255 * cells.astype(np.uint8)).tobytes()

    @property
    def mask(self) -> Image.Image:
        return self.value

    def _layer_size(self):
        rows, columns = self.shape
        return columns, rows

    def _painted(self):
        return self._cover().resize(self.image.size, Image.Resampling.NEAREST)


class ScribblePainter(_Painter):
    """Colours to scribble: `picture` is the RGB picture with them, `scribbles` they alone, RGBA."""

    _channels, _settable = 4, "scribbles"

    def __init__(self, image, scribbles: Image.Image | None = None, **traits):
        super().__init__(image, **dict(mode="scribble", label="Picture to scribble on") | traits)
        if scribbles is not None:
            self.scribbles = scribbles

    @property
    def picture(self) -> Image.Image:
        return self.value

    @property
    def scribbles(self) -> Image.Image:
        scribbles = self._colours()
        scribbles.putalpha(self._cover())
        return scribbles

    @scribbles.setter
    def scribbles(self, scribbles):
        if scribbles.mode != "RGBA" or scribbles.size != self.image.size:
            size = f"{self.image.width}x{self.image.height}"
            raise ValueError(
                f"scribbles are {scribbles.mode}: pass RGBA of {size}, clear where nothing is"
            )
        self._layer = scribbles.getchannel("A").tobytes() + scribbles.convert("RGB").tobytes()

    def _colours(self):
        cover = self.image.width * self.image.height
        return Image.frombytes("RGB", self.image.size, self._layer[cover:])

    def _painted(self):
        return Image.composite(self._colours(), self.image, self._cover())
