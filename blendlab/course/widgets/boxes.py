"""Boxes over a picture, as a notebook widget: drag them, pull their corners, or use the arrow keys.

    editor = BoxEditor("photo.png", {"cat": (0.1, 0.5, 0.5, 0.9), "bus": (0.5, 0.2, 0.9, 0.6)})
    bl.layout(pipe, "a cat and a bus", editor.boxes)

No paper. Next: upload.py, whose crop is such a box.
"""

from PIL import Image
from traitlets import Any, CBytes, Float, Int, List, Unicode, observe, validate

from .common import CSS, Widget, encoded, picture, script


class BoxEditor(Widget):
    """Named boxes (x0, y0, x1, y1) in fractions of the picture, as bl.layout takes them.

    boxes: {name: box} or [(name, box), ...]; `editor.boxes` is the latter, and may be set.
    aspect: width over height in pixels that every box keeps; None: any. Corners lie between pixels.
    """

    _esm, _css = script("boxes.js"), CSS
    _image = CBytes().tag(sync=True)
    _boxes: List = List().tag(sync=True)
    _size = List(Int(), [1, 1]).tag(sync=True)  # width and height of the picture
    aspect = Float(None, allow_none=True).tag(sync=True)
    shown = Int(384).tag(sync=True)
    label = Unicode("Boxes to drag and resize").tag(sync=True)
    image, value = Any(), Any()

    def __init__(self, image, boxes, **traits):
        super().__init__(**traits)
        self.image = image
        self.value = boxes
        self.add_class("bl-boxes")

    @property
    def boxes(self) -> list:
        return self.value

    @boxes.setter
    def boxes(self, boxes):
        self.value = boxes

    @validate("image")
    def _checked_image(self, proposal):
        return picture(proposal.value)

    @observe("image")
    def _show_image(self, change):
        self._size = list(self.image.size)
        self._image = encoded(self.image)

    @validate("value")
    def _checked_value(self, proposal):
        pairs = proposal.value.items() if isinstance(proposal.value, dict) else proposal.value
        return [(name, _checked(name, tuple(box))) for name, box in pairs]

    @observe("value")
    def _send_boxes(self, change):
        self._boxes = [[name, list(box)] for name, box in self.value]

    @observe("_boxes")
    def _read_boxes(self, change):
        self.value = self._boxes

    def mask(self, name: str) -> Image.Image:
        """The mask of one box, white inside."""
        from ... import images, masks

        width, height = self.image.size
        (mask,) = images.to_pil(masks.from_box(dict(self.value)[name], (height, width)))
        return mask


def _checked(name, box):
    x0, y0, x1, y1 = box
    if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
        fix = "give left, top, right, bottom in fractions of the picture, 0 at the left and the top"
        raise ValueError(f"the box of {name!r} is {box}: {fix}")
    return box
