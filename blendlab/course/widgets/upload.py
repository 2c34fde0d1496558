"""Own pictures: an upload, the part to take, and a sentence that says what became of it.

    upload = PictureUpload(64, bl.data("scenes/meadow.png"))
    upload                                    # in a cell
    bl.blended_latent(pipe, upload.value, ...)

No paper. Next: panel.py, where an upload is a control like any other.
"""

import html
import io

import ipywidgets as widgets
from PIL import Image, ImageOps
from traitlets import Any

from ... import images
from .boxes import BoxEditor
from .common import picture

UPRIGHT = 1  # EXIF's orientation of a picture that is not to be turned
ORIENTATION = 0x0112


def fit(image, size: int | tuple[int, int], box=None) -> Image.Image:
    """Cut a box out of a picture and resize it to `size`, as PIL; by default the largest, centred.

    image: PIL, a path or a tensor. size: one side, or (width, height). box: (x0, y0, x1, y1) in
    fractions; if its shape is not that of `size`, its largest centred part that is. Pixels are
    averaged (Lanczos), not picked.
    """
    if box is not None:
        image = picture(image)
        sides = (image.width, image.height) * 2
        x0, y0, x1, y1 = (round(share * side) for share, side in zip(box, sides, strict=True))
        image = image.crop((x0, y0, x1, y1))
    return images.fit(image, size)


def uploaded(value) -> list[tuple[str, bytes]]:
    """(name, bytes) of what a FileUpload holds: a dict in ipywidgets 7, a tuple of dicts in 8."""
    if isinstance(value, dict):
        return [(name, bytes(file["content"])) for name, file in value.items()]
    return [(file["name"], bytes(file["content"])) for file in value]


def opened(name: str, content: bytes) -> tuple[Image.Image, bool]:
    """An uploaded picture, upright and RGB, and whether it had to be turned."""
    try:
        found = Image.open(io.BytesIO(content))
    except Exception as error:  # decoders raise almost anything
        raise ValueError(
            f"{name} is no picture that can be read here: save it as PNG or JPEG"
        ) from error
    try:
        upright = picture(found)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return upright, found.getexif().get(ORIENTATION, UPRIGHT) != UPRIGHT


class PictureUpload(widgets.VBox):
    """A button for a file, a box for the part to take, and a sentence; `value` is the picture.

    size: one side or (width, height), what the model takes. image: the picture before any upload.
    note: a sentence to add, for instance why photographs come out as the model sees them.
    A picture of another size comes with the largest box in its middle, which can be dragged.
    """

    value = Any()

    def __init__(self, size: int | tuple[int, int], image, note: str = "", shown: int = 256):
        width, height = (size, size) if isinstance(size, int) else size
        self.size = (width, height)
        self.note, self.whole, self.about = note, None, ""
        self.file = widgets.FileUpload(accept="image/*", description="Own picture")
        aspect = self.size[0] / self.size[1]
        self.crop = BoxEditor(
            Image.new("RGB", self.size), {}, aspect=aspect, shown=shown, label="Part to take"
        )
        self.crop.layout.display = "none"
        self.says = widgets.HTML()
        super().__init__([self.file, self.crop, self.says])
        self.add_class("bl-upload")
        self.value = picture(image)
        if self.value.size != self.size:
            w, h = self.size
            width, height = self.value.size
            raise ValueError(f"the picture is {width}x{height}: pass fit(image, ({w}, {h}))")
        self._say(
            f"Choose a picture of your own; it comes in as {self.size[0]} x {self.size[1]} pixels."
        )
        self.file.observe(self._received, "value")
        self.crop.observe(self._cropped, "value")

    def _received(self, change):
        for name, content in uploaded(self.file.value)[-1:]:
            try:
                whole, turned = opened(name, content)
            except ValueError as error:
                self._say(f"{error}.", error=True)
                continue
            self.about = f"{name} is {whole.width} x {whole.height}" + (
                ", turned upright" if turned else ""
            )
            self._take(whole)

    def _take(self, whole):
        self.whole = None  # what the box does meanwhile is not the reader's doing
        fits = whole.size == self.size
        self.crop.layout.display = "none" if fits else None
        self.crop.image = ImageOps.contain(whole, (1024, 1024)) if max(whole.size) > 1024 else whole
        self.crop.boxes = {} if fits else {"this part": _middle(whole.size, self.size)}
        self.whole = whole
        self._cropped()

    def _cropped(self, change=None):
        if self.whole is None:
            return
        if not self.crop.boxes:
            self._say(self.about + " and is taken as it is.")
            self.value = self.whole
            return
        ((_, box),) = self.crop.boxes
        part = [round((box[i + 2] - box[i]) * self.whole.size[i]) for i in (0, 1)]
        how = "reduced" if part[0] > self.size[0] else "enlarged"
        self._say(
            f"{self.about}. Of it the box is taken, {part[0]} x {part[1]}, and {how} to "
            f"{self.size[0]} x {self.size[1]}; drag the box to take another part."
        )
        self.value = fit(self.whole, self.size, box)

    def _say(self, sentence, error=False):
        kind = 'class="bl-error" role="alert"' if error else 'class="bl-quiet" role="status"'
        self.says.value = f"<span {kind}>{html.escape(f'{sentence} {self.note}'.strip())}</span>"


def _middle(size, shape):
    """The largest centred box of that shape in a picture of that size, in fractions."""
    width, height = size
    x, y = (
        min(1, height * shape[0] / shape[1] / width),
        min(1, width * shape[1] / shape[0] / height),
    )
    return (1 - x) / 2, (1 - y) / 2, (1 + x) / 2, (1 + y) / 2
